"""A LUKS2 volume whose volume key is a secure key: what it is under, and putting another one in.

All of it blocks. The caller has opened the file, runs an engine, and knows passphrases; the secure
key, which is no secret, passes through here on its way between engine and keystored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..dmcrypt.cipher_spec import CipherSpec
from ..dmcrypt.effective_key import get_public_key
from ..dmcrypt.engine.client import Engine, Secret
from ..dmcrypt.engine.messages import KeyKind
from ..dmcrypt.luks2 import Luks2Header, key_change, volume_key, volume_key_change
from ..dmcrypt.luks2.key_change import UnlockedKey
from ..dmcrypt.luks2.token import find_verification_pattern
from ..dmcrypt.luks2.volume_key import Pending
from ..dmcrypt.luks2.volume_key_change import OpenKeyslot
from ..dmcrypt.old_header import Keep
from ..keystore.coprocessor import Register, Validation
from ..keystore.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    NoKeyError,
    PolicyError,
    UnsupportedError,
)
from ..keystore.keys import ProtectedKey, SecureKey
from .keystored.client import Keystore

TRAP = (
    "the volume key is only the beginning of a secure key, as a forgotten --key-size leaves it; "
    "it is used as a clear key, which whoever has the secure key's file knows"
)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """The secure key in a keyslot, and what the adapters say of it."""

    key: SecureKey
    validation: Validation


class SecureVolume:
    """One header, and who is needed to change it."""

    def __init__(self, engine: Engine, keystore: Keystore, fd: int, keep: Keep) -> None:
        self._engine = engine
        self._keystore = keystore
        self._fd = fd
        self._keep = keep

    def read(self, cipher: str = "paes") -> Luks2Header:
        """The header as it is now, which may be changed.

        Raises:
            ConfigError: the data's cipher is another one than ``cipher``, or there is not one
                segment.
            MapperError: as `check_changeable`.
        """
        header = key_change.check_changeable(self._fd)
        get_encryption(header, cipher)
        return header

    def unlock_each(
        self, header: Luks2Header, secret: Secret, numbers: Iterable[int]
    ) -> list[UnlockedKey]:
        """The keyslots of ``numbers`` that the secret opens.

        Raises:
            MapperError: a keyslot that cannot be tried.
        """
        found: list[UnlockedKey] = []
        for number in numbers:
            try:
                found.append(
                    key_change.unlock(self._engine, header, self._fd, secret, number=number)
                )
            except NoKeyError:
                continue
        return found

    def read_key(self, header: Luks2Header, volume_key: ProtectedKey) -> SecureKey:
        """The secure key that a volume key of the header is.

        Raises:
            PolicyError: the beginning of one.
            UnsupportedError: none at all.
        """
        exported = self._engine.export_key(volume_key)
        if exported.kind is KeyKind.FRAGMENT:
            raise PolicyError(TRAP)
        if exported.kind is not KeyKind.SECURE:
            raise UnsupportedError(
                "the volume key is not a secure key, but a clear or protected one"
            )
        key = SecureKey.parse(exported.secure)
        if get_encryption(header, "paes").is_xts and not key.is_xts:
            raise PolicyError(TRAP)
        return key

    def validate(self, key: SecureKey) -> KnownKey:
        """What the adapters say of a key.

        Raises:
            MasterKeyChangedError: none holds its master key.
        """
        return KnownKey(key, self._keystore.validate(key))

    def reencipher(self, known: KnownKey, target: Register) -> SecureKey:
        """The same key under another master key.

        Raises:
            FormatError: it would be another key.
            CoprocessorError: no adapter can do it.
        """
        new = self._keystore.reencipher(known.key, target)
        if target is Register.CURRENT:
            check_pattern(known.validation.pattern, self._keystore.validate(new).pattern)
        return new

    def stage(self, slots: Sequence[OpenKeyslot], new: SecureKey, pattern: str) -> Luks2Header:
        """Let a key wait in the header.

        Raises:
            MapperError: as `volume_key_change.stage`.
        """
        loaded = volume_key_change.load_secure_key(self._engine, new, pattern)
        return volume_key_change.stage(self._engine, self._fd, slots, loaded, self._keep)

    def replace(
        self,
        slots: Sequence[OpenKeyslot],
        new: SecureKey,
        pattern: str,
        *,
        encryption: str | None = None,
    ) -> Luks2Header:
        """Put a key into the header at once.

        Raises:
            MapperError: as `volume_key_change.replace_key`.
        """
        loaded = volume_key_change.load_secure_key(self._engine, new, pattern)
        return volume_key_change.replace_key(
            self._engine, self._fd, slots, loaded, self._keep, encryption=encryption
        )

    def activate(self, pending: Sequence[Pending], *, may_drop: bool) -> Luks2Header:
        """Make the key that waits the volume's; ``may_drop``: keyslots without heir go.

        Raises:
            PolicyError: there are some.
            MapperError: as `volume_key_change.activate`.
        """

        def check(header: Luks2Header) -> None:
            if volume_key.find_pending(header.metadata) != tuple(pending):
                raise ConfigError("header: what waits was changed in the meantime")
            if not may_drop:
                check_heirs(header, [each.original for each in pending])

        return volume_key_change.activate(self._fd, self._keep, check)

    def cancel(self) -> Luks2Header:
        """Forget the key that waits.

        Raises:
            MapperError: as `volume_key_change.cancel`.
        """
        return volume_key_change.cancel(self._fd, self._keep)

    def check_same_key(self, header: Luks2Header, key: SecureKey) -> Validation:
        """That a secure key stands for the clear volume key of the header; what adapters say of it.

        The effective key goes from the adapter to the engine, which compares it with the header's
        digest: nobody else sees a clear key.

        Raises:
            DigestMismatchError: it stands for another one.
            CoprocessorError: no adapter can use it.
        """
        validation = self._keystore.validate(key)
        transport = self._keystore.make_transport(key, get_public_key(self._engine, key))
        effective = self._engine.import_key(transport.blob, key_size=transport.key_size)
        try:
            key_change.check_given_key(self._engine, header, effective, transport.key_size)
        except DigestMismatchError:
            raise DigestMismatchError(
                "secure key: stands for another key than the volume's; nothing was changed"
            ) from None
        return validation


def get_encryption(header: Luks2Header, cipher: str) -> CipherSpec:
    """The cipher of the data, which must be ``cipher``.

    Raises:
        ConfigError: it is another one, or the volume has not exactly one segment without integrity.
    """
    segments = header.metadata.segments
    encryption = (segments[0].encryption or "none") if segments else "none"
    if len(segments) != 1 or segments[0].integrity is not None:
        raise ConfigError("wanted: a volume with one segment of data, without integrity")
    if encryption.partition("-")[0] != cipher:
        raise ConfigError(f"is not encrypted using the '{cipher}' cipher, but with {encryption}")
    return CipherSpec.parse(encryption)


def check_heirs(header: Luks2Header, numbers: Iterable[int]) -> None:
    """That every keyslot of the volume key is among ``numbers``.

    Raises:
        PolicyError: names the others.
    """
    lost = volume_key.list_heirless(header, set(numbers))
    if lost:
        raise PolicyError(
            f"keyslots {', '.join(map(str, lost))}: no passphrase of theirs was given, so they "
            "cannot have the new key; wanted: a --key-file for each, or --force to remove them"
        )


def check_pattern(old: str | None, new: str) -> None:
    """That two keys encipher alike, as far as a pattern of the old one is known.

    Raises:
        FormatError: they do not.
    """
    if old and old != new:
        raise FormatError(
            f"the verification patterns of the new and the old key do not match: {new}, {old}"
        )


def find_pattern(header: Luks2Header) -> str | None:
    """What the header's token says.

    Raises:
        FormatError: a damaged token.
    """
    return find_verification_pattern(header.metadata)
