"""State at rest: sealed by a host key, which lies beside it in a file or is sealed itself."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import gcm
from .atomic_file import make_file, read_file, remove_file, replace_file
from .clear_bytes import make_random, wiped
from .envelope import (
    HOST_KEY_SIZE,
    SIZE_MAX,
    Envelope,
    derive_key,
    new_envelope,
    unseal_key,
)
from .errors import AccessError, ConfigError, CoprocessorError, FormatError
from .json_object import JsonObject
from .kept_bytes import KeptBytes
from .seal_state import SealMethod, SealState

SALT_SIZE: Final = 32
ID_SIZE: Final = 8
ENVELOPE_SUFFIX: Final = ".sealed"
#: What systemd's credential with the secret is called (systemd.exec(5), CREDENTIALS).
CREDENTIAL_NAME: Final = "fusecrypt-keystore"
_CREDENTIAL_MAX: Final = 4096
_INFO_SEAL: Final = b"fusecrypt adapter state 1"
_INFO_ID: Final = b"fusecrypt host key id 1"
_NONCE: Final = bytes(gcm.NONCE_SIZE)  # each seal has a key of its own, by its salt


@dataclass(frozen=True, slots=True)
class Sealed:
    """Bytes that only the holder of one host key can read or alter."""

    host_key_id: bytes  # tells a wrong host key from an altered file
    salt: bytes
    ciphertext: bytes = field(repr=False)

    @classmethod
    def take(cls, json: JsonObject, name: str, size: int) -> Self:
        """The member ``sealed``, of which ``name`` is what was sealed: ``size`` clear bytes.

        Raises:
            FormatError: there is none, or something else in it.
        """
        members = json.take_object("sealed")
        sealed = cls(
            members.take_hex("host_key", ID_SIZE),
            members.take_hex("salt", SALT_SIZE),
            members.take_hex(name, size + gcm.TAG_SIZE),
        )
        members.finish()
        return sealed

    def pack(self, name: str) -> dict[str, str]:
        """What `take` takes."""
        return {
            "host_key": self.host_key_id.hex(),
            "salt": self.salt.hex(),
            name: self.ciphertext.hex(),
        }


class HostKey:
    """The 32 random bytes that seal the adapters' state.

    They are in a file, read for each use and never kept; or sealed in an *envelope*, a file too.
    Those that a passphrase or a TPM has opened are kept until the process ends, or `lock`.
    """

    def __init__(
        self, path: Path, envelope: Path | None = None, credentials: Path | None = None
    ) -> None:
        """``envelope``: where the sealed one is; ``credentials``: systemd's directory of them."""
        self.path = path
        self.envelope = envelope or path.with_name(path.name + ENVELOPE_SUFFIX)
        self._credentials = credentials
        self._kept: KeptBytes | None = None
        self._kept_of = b""  # digest of the envelope that they came out of

    def make(self) -> None:
        """Make the file unless there is a host key, mode 0600.

        Raises:
            AccessError: the file system refuses.
        """
        if self.path.exists() or self.envelope.exists():
            return
        with wiped(make_random(HOST_KEY_SIZE)) as key:
            try:
                make_file(self.path, key)
            except FileExistsError:
                return  # another process was faster; its key is as good

    def get_state(self) -> SealState:
        """How the host key is kept.

        Raises:
            FormatError, AccessError: the envelope is damaged, or cannot be read.
        """
        content = self._read_envelope()
        has_file = self.path.exists()
        if content is None:
            return SealState(SealMethod.HOST_KEY_FILE, is_locked=False, has_plain_file=has_file)
        method = Envelope.parse(content, str(self.envelope)).method
        is_locked = method is SealMethod.PASSPHRASE and not self._is_kept(content)
        return SealState(method, is_locked, has_file)

    def seal(self, clear: bytearray, public: bytes) -> Sealed:
        """The bytes sealed, bound to the public bytes that stand beside them.

        Raises:
            CoprocessorError, AccessError, FormatError: the host key cannot be had.
        """
        salt = os.urandom(SALT_SIZE)
        with self.opened() as keys, wiped(keys[:HOST_KEY_SIZE]) as host_key:
            return seal_with(host_key, salt, clear, public)

    def unseal(self, sealed: Sealed, public: bytes, where: str) -> bytearray:
        """What was sealed; the caller wipes it. ``where`` names the file in errors.

        Raises:
            FormatError: another host key sealed it, or it or ``public`` were altered.
            CoprocessorError, AccessError: the host key cannot be had.
        """
        with self.opened() as keys:
            for start in range(0, len(keys), HOST_KEY_SIZE):
                with wiped(keys[start : start + HOST_KEY_SIZE]) as host_key:
                    if sealed.host_key_id != _make_id(host_key):
                        continue
                    with wiped(_derive(host_key, sealed.salt)) as key:
                        try:
                            return gcm.decrypt(sealed.ciphertext, key, _NONCE, public)
                        except gcm.NotAuthenticError as error:
                            raise FormatError(f"{where}: altered since it was sealed") from error
            with wiped(keys[:HOST_KEY_SIZE]) as host_key:
                name = self.envelope if self.envelope.exists() else self.path
                raise FormatError(
                    f"{where}: sealed by host key {sealed.host_key_id.hex()}, "
                    f"{name} is {_make_id(host_key).hex()}"
                )

    def unlock(self, passphrase: bytearray) -> None:
        """Open the envelope with a passphrase, which the caller wipes.

        Raises:
            NoKeyError: another passphrase.
            ConfigError: there is nothing that a passphrase opens.
            FormatError, AccessError, CoprocessorError: the envelope cannot be read.
        """
        content = self._read_envelope()
        envelope = Envelope.parse(content, str(self.envelope)) if content else None
        if content is None or envelope is None or envelope.method is not SealMethod.PASSPHRASE:
            method = envelope.method if envelope else SealMethod.HOST_KEY_FILE
            raise ConfigError(f"adapters: sealed with {method}, no passphrase is wanted")
        where = str(self.envelope)
        with (
            wiped(derive_key(envelope, passphrase, where)) as key,
            wiped(envelope.open(key, where)) as keys,
        ):
            self._keep(keys, content)

    def lock(self) -> None:
        """Forget what is kept."""
        if self._kept is not None:
            self._kept.wipe()
            self._kept = None

    @contextmanager
    def replacing(
        self, method: SealMethod, passphrase: bytearray, pcrs: str = ""
    ) -> Generator[None, None, None]:
        """Make another host key, and seal it so; within the block adapters are sealed by it anew.

        Until the block ends both host keys are there. A crash in it is mended by doing it again.

        Raises:
            ConfigError: no passphrase, no credential, or no choice of PCRs.
            CoprocessorError: the old host key cannot be had; the TPM is missing or refuses.
            AccessError, FormatError: the file system refuses, or the envelope is damaged.
        """
        self.make()
        with self.opened() as old, wiped(make_random(HOST_KEY_SIZE)) as new:
            if method is SealMethod.HOST_KEY_FILE:
                yield
                self._put_plain(old)
                return
            with (
                wiped(self._get_secret(method, passphrase)) as secret,
                new_envelope(method, secret, pcrs) as (empty, key),
                wiped(bytearray(HOST_KEY_SIZE + len(old))) as both,
            ):
                both[:HOST_KEY_SIZE] = new
                both[HOST_KEY_SIZE:] = old
                self._put(empty.with_keys(both, key), both)
                yield
                self._put(empty.with_keys(new, key), new)
        _overwrite(self.path)

    @contextmanager
    def opened(self) -> Generator[bytearray, None, None]:
        """The host keys for the length of a block, the one that seals first.

        Raises:
            CoprocessorError: there is none, or a passphrase, credential or TPM is missing.
            FormatError, AccessError: a file is damaged, or others can read it.
        """
        content = self._read_envelope()
        if content is None:
            with wiped(bytearray(HOST_KEY_SIZE + 1)) as buffer:
                if self._read_into(self.path, buffer) != HOST_KEY_SIZE:
                    raise FormatError(f"host key {self.path}: wanted {HOST_KEY_SIZE} bytes")
                with wiped(buffer[:HOST_KEY_SIZE]) as key:
                    yield key
            return
        if self._kept is None or not self._is_kept(content):
            envelope = Envelope.parse(content, str(self.envelope))
            with (
                wiped(self._find_key(envelope)) as key,
                wiped(envelope.open(key, str(self.envelope))) as keys,
            ):
                if envelope.method is not SealMethod.TPM2:
                    yield keys
                    return
                self._keep(keys, content)  # a TPM takes its time
        assert self._kept is not None
        with wiped(self._kept.copy()) as keys:
            yield keys

    def _find_key(self, envelope: Envelope) -> bytearray:
        """The key to the envelope, without anybody being asked; the caller wipes it."""
        match envelope.method:
            case SealMethod.TPM2:
                return unseal_key(envelope)
            case SealMethod.CREDENTIAL:
                with wiped(self._read_credential()) as secret:
                    return derive_key(envelope, secret, str(self.envelope))
            case _:
                raise CoprocessorError(
                    "the adapters are locked; 'fusecrypt adapter unlock' takes the passphrase"
                )

    def _get_secret(self, method: SealMethod, passphrase: bytearray) -> bytearray:
        return self._read_credential() if method is SealMethod.CREDENTIAL else passphrase[:]

    def _read_credential(self) -> bytearray:
        if self._credentials is None:
            raise CoprocessorError(
                f"credential {CREDENTIAL_NAME}: none, this is no service that systemd gave it to"
            )
        with wiped(bytearray(_CREDENTIAL_MAX + 1)) as buffer:
            size = self._read_into(self._credentials / CREDENTIAL_NAME, buffer)
            if size > _CREDENTIAL_MAX:
                raise FormatError(f"credential {CREDENTIAL_NAME}: over {_CREDENTIAL_MAX} bytes")
            return buffer[:size]

    def _read_envelope(self) -> bytes | None:
        try:
            return read_file(self.envelope, SIZE_MAX)
        except FileNotFoundError:
            return None

    def _put(self, envelope: Envelope, keys: bytearray) -> None:
        content = envelope.pack()
        replace_file(self.envelope, content)
        self._keep(keys, content)

    def _put_plain(self, keys: bytearray) -> None:
        """Let the host key lie in a file again."""
        with wiped(keys[:HOST_KEY_SIZE]) as key:
            replace_file(self.path, key)
        with suppress(FileNotFoundError):
            remove_file(self.envelope)  # not overwritten first: a crash would leave nothing usable
        self.lock()

    def _keep(self, keys: bytearray, content: bytes) -> None:
        self.lock()
        self._kept = KeptBytes(keys)
        self._kept_of = hashlib.sha256(content).digest()

    def _is_kept(self, content: bytes) -> bool:
        return self._kept is not None and self._kept_of == hashlib.sha256(content).digest()

    def _read_into(self, path: Path, buffer: bytearray) -> int:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise CoprocessorError(
                f"host key {path}: missing; the adapters' state opens with no other"
            ) from error
        except OSError as error:
            raise AccessError(f"host key {path}: {error.strerror}") from error
        try:
            _check(path, os.fstat(fd))
            return os.readv(fd, [buffer])
        except OSError as error:
            raise AccessError(f"host key {path}: {error.strerror}") from error
        finally:
            os.close(fd)


def _check(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise AccessError(f"host key {path}: no regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise AccessError(f"host key {path}: owned by uid {status.st_uid}, wanted {os.geteuid()}")
    # systemd gives a service's credential to its user by an access control list, whose mask
    # stands where the group's bits are.
    is_credential = mode == 0o440 and status.st_uid == status.st_gid == 0 and os.geteuid() != 0
    if mode & 0o077 and not is_credential:
        raise AccessError(f"host key {path}: mode {mode:04o} lets others at it, wanted 0600")


def seal_with(host_key: bytearray, salt: bytes, clear: bytearray, public: bytes) -> Sealed:
    """The bytes sealed by this host key."""
    with wiped(_derive(host_key, salt)) as key:
        return Sealed(_make_id(host_key), salt, gcm.encrypt(clear, key, _NONCE, public))


def _overwrite(path: Path) -> None:
    """Remove a file for good, as far as the file system overwrites in place."""
    try:
        with path.open("r+b", buffering=0) as file:
            file.write(bytes(os.fstat(file.fileno()).st_size))
            os.fsync(file.fileno())
        remove_file(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise AccessError(f"{path}: cannot be removed: {error.strerror}") from error


def _derive(host_key: bytearray, salt: bytes) -> bytearray:
    key = bytearray(gcm.KEY_SIZE)
    HKDF(hashes.SHA256(), gcm.KEY_SIZE, salt, _INFO_SEAL).derive_into(host_key, key)
    return key


def _make_id(host_key: bytearray) -> bytes:
    return HKDF(hashes.SHA256(), ID_SIZE, None, _INFO_ID).derive(host_key)
