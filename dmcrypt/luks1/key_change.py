"""Adding, changing and removing keyslots of a LUKS1 header on disk.

The order of writes: new key material into the area of a keyslot that is not in use, durable; then
the header that has it in use; then the header that has the old one free; then random bytes over the
old material. A removed keyslot's material is wiped first, as the real tool does: after a cut one
can remove it again.

Source: lib/setup.c (crypt_keyslot_change_by_passphrase), lib/luks1/keymanage.c (LUKS_set_key,
LUKS_del_key).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...keystore.errors import BusyError, ConfigError
from ...keystore.keys import ProtectedKey
from ..backing import sync
from ..engine.client import Engine, Secret
from ..engine.messages import DigestSpec, Kdf
from ..old_header import Keep
from ..pbkdf import PbkdfParams, make_kdf
from ..unlock import check_volume_key, try_keyslots
from . import edit
from .change import Change, changing
from .header import Keyslot, Luks1Header

#: Refuses by raising, of the header as it is under the lock.
Check = Callable[[Luks1Header], None]


@dataclass(frozen=True, slots=True)
class NumberedKeyslot:
    """A keyslot in use, and its number."""

    id: int
    slot: Keyslot


@dataclass(frozen=True, slots=True)
class UnlockedKey:
    """The volume key of a header."""

    key: ProtectedKey
    size: int  # bytes
    digest: DigestSpec
    keyslot: NumberedKeyslot | None = None  # that gave it; None: it was given


def unlock(
    engine: Engine, header: Luks1Header, fd: int, secret: Secret, *, number: int | None = None
) -> UnlockedKey:
    """The volume key that a passphrase or key file opens, of keyslot ``number`` or of any.

    Raises:
        ConfigError: there is no keyslot to try.
        NoKeyError: none opens with this secret.
        UnsupportedError, FormatError, EngineMemoryError: what a keyslot is that was to be tried.
    """
    if number is not None:
        edit.get_keyslot(header, number)
    numbers = header.list_keyslots() if number is None else (number,)
    if not numbers:
        raise ConfigError("no usable keyslot is available")
    return _unlock_one_of(engine, header, fd, secret, numbers)


def unlock_another(
    engine: Engine, header: Luks1Header, fd: int, secret: Secret, number: int
) -> UnlockedKey:
    """The volume key that a passphrase opens of any other keyslot than ``number``.

    If ``number`` is the last one, that is the one tried.

    Raises:
        NoKeyError: none opens with this secret.
        UnsupportedError, FormatError, EngineMemoryError: what a keyslot is that was to be tried.
    """
    others = tuple(n for n in header.list_keyslots() if n != number)
    return _unlock_one_of(engine, header, fd, secret, others or (number,))


def check_given_key(
    engine: Engine, header: Luks1Header, key: ProtectedKey, size: int
) -> UnlockedKey:
    """A volume key that was given, as the key of a header's data.

    Raises:
        DigestMismatchError: it is not.
    """
    digest = header.make_digest_spec()
    check_volume_key(engine, key, digest)
    return UnlockedKey(key, size, digest)


def add_keyslot(
    engine: Engine,
    fd: int,
    unlocked: UnlockedKey,
    secret: Secret,
    pbkdf: PbkdfParams,
    number: int | None,
    keep: Keep,
) -> tuple[Luks1Header, int]:
    """Add a keyslot that holds the volume key under ``secret``; header and number.

    Raises:
        ConfigError: no keyslot is free.
        BusyError: the header was changed in the meantime.
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    with changing(fd, keep) as change:
        _check_same_digest(change.header, unlocked.digest)
        chosen = edit.choose_keyslot(change.header, number)
        kdf = _make_kdf(engine, change.header, pbkdf)
        return _add(engine, change, secret, unlocked.key, chosen, kdf), chosen


def change_keyslot(
    engine: Engine,
    fd: int,
    unlocked: UnlockedKey,
    secret: Secret,
    pbkdf: PbkdfParams,
    keep: Keep,
    *,
    keep_number: bool,
    may_overwrite: bool = False,
) -> tuple[Luks1Header, int]:
    """Have ``secret`` open what the keyslot that gave a key opened; header and number.

    As with the real tool it is the lowest free keyslot that does so then, unless ``keep_number``:
    then that is only where the key lies while the old keyslot is made anew. With ``may_overwrite``
    the old keyslot is overwritten if none is free; a cut then leaves neither, but for what ``keep``
    made of the old header.

    Raises:
        MapperError: as `add_keyslot`.
    """
    assert unlocked.keyslot is not None
    old = unlocked.keyslot.id
    with changing(fd, keep) as change:
        check_same_keyslot(change.header, unlocked.keyslot)
        kdf = _make_kdf(engine, change.header, pbkdf)
        free = edit.find_free_keyslot(change.header)
        if free is None:
            if not may_overwrite:
                edit.choose_keyslot(change.header, None)
            return _add(engine, change, secret, unlocked.key, old, kdf), old
        _add(engine, change, secret, unlocked.key, free, kdf)
        header = _remove_forgotten(change, old)
        if keep_number:
            again = _make_kdf(engine, header, replace(pbkdf, iterations=kdf.iterations))
            _add(engine, change, secret, unlocked.key, old, again)
            return _remove_forgotten(change, free), old
        return header, free


def remove_keyslot(fd: int, number: int, keep: Keep, check: Check) -> Luks1Header:
    """Wipe a keyslot and forget it. ``check`` may refuse, of the header as it is under the lock.

    Raises:
        ConfigError: there is no such keyslot.
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    with changing(fd, keep) as change:
        edit.get_keyslot(change.header, number)
        check(change.header)
        edited = edit.remove_keyslots(change.header, [number])
        change.wipe(change.header.get_area(number))
        return change.write(edited)


def erase_keyslots(fd: int, keep: Keep) -> tuple[Luks1Header, tuple[int, ...]]:
    """Wipe and forget every keyslot; header and their numbers.

    Raises:
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    with changing(fd, keep) as change:
        numbers = change.header.list_keyslots()
        if not numbers:
            return change.header, ()
        edited = edit.remove_keyslots(change.header, numbers)
        for number in numbers:
            change.wipe(change.header.get_area(number))
        return change.write(edited), numbers


def check_same_keyslot(header: Luks1Header, old: NumberedKeyslot) -> None:
    """Refuse when a keyslot is no longer the one that a passphrase was tried on.

    Raises:
        BusyError: it is another, or gone.
    """
    # The salt of a keyslot is random: the same one means the same passphrase and key.
    if header.keyslots[old.id] != old.slot:
        raise BusyError(f"keyslot {old.id}: was changed in the meantime by somebody else")


def _unlock_one_of(
    engine: Engine, header: Luks1Header, fd: int, secret: Secret, numbers: tuple[int, ...]
) -> UnlockedKey:
    digest = header.make_digest_spec()

    def open_keyslot(number: int) -> ProtectedKey:
        return engine.open_keyslot(fd, secret, header.make_keyslot_spec(number), digest)

    key, number = try_keyslots(numbers, open_keyslot)
    slot = NumberedKeyslot(number, header.keyslots[number])
    return UnlockedKey(key, header.key_size, digest, slot)


def _make_kdf(engine: Engine, header: Luks1Header, pbkdf: PbkdfParams) -> Kdf:
    """All of a LUKS1 header has one hash."""
    return make_kdf(engine, replace(pbkdf, hash_name=header.hash_name.lower()), header.key_size)


def _add(
    engine: Engine, change: Change, secret: Secret, key: ProtectedKey, number: int, kdf: Kdf
) -> Luks1Header:
    """Key material first, durable before the header tells of it."""
    edited = edit.add_keyslot(change.header, number, kdf)
    spec = edited.make_keyslot_spec(number)
    change.begin()
    engine.create_keyslot(change.fd, secret, key, spec)
    sync(change.fd)
    return change.write(edited)


def _remove_forgotten(change: Change, number: int) -> Luks1Header:
    """Have a keyslot free that another one stands in for; its material is wiped afterwards."""
    area = change.header.get_area(number)
    header = change.write(edit.remove_keyslots(change.header, [number]))
    change.wipe(area)
    return header


def _check_same_digest(header: Luks1Header, digest: DigestSpec) -> None:
    if header.make_digest_spec() != digest:
        raise BusyError("header: was changed in the meantime; the key is no longer that of it")
