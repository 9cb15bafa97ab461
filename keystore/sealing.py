"""State at rest: sealed by a key of this machine that only the owner of the state can read."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import gcm
from .atomic_file import make_file
from .clear_bytes import make_random, wiped
from .errors import AccessError, CoprocessorError, FormatError

HOST_KEY_SIZE: Final = 32
SALT_SIZE: Final = 32
ID_SIZE: Final = 8
_INFO_SEAL: Final = b"fusecrypt adapter state 1"
_INFO_ID: Final = b"fusecrypt host key id 1"
_NONCE: Final = bytes(gcm.NONCE_SIZE)  # each seal has a key of its own, by its salt


@dataclass(frozen=True, slots=True)
class Sealed:
    """Bytes that only the holder of one host key can read or alter."""

    host_key_id: bytes  # tells a wrong host key from an altered file
    salt: bytes
    ciphertext: bytes = field(repr=False)


class HostKey:
    """The file of 32 random bytes that seals the adapters' state; read for each use, never kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Make the file unless it is there, mode 0600.

        Raises:
            AccessError: the file system refuses.
        """
        if self.path.exists():
            return
        with wiped(make_random(HOST_KEY_SIZE)) as key:
            try:
                make_file(self.path, key)
            except FileExistsError:
                return  # another process was faster; its key is as good

    def seal(self, clear: bytearray, public: bytes) -> Sealed:
        """The bytes sealed, bound to the public bytes that stand beside them.

        Raises:
            CoprocessorError, AccessError, FormatError: the host key cannot be had.
        """
        salt = os.urandom(SALT_SIZE)
        with self._open() as host_key, wiped(_derive(host_key, salt)) as key:
            return Sealed(_make_id(host_key), salt, gcm.encrypt(clear, key, _NONCE, public))

    def unseal(self, sealed: Sealed, public: bytes, where: str) -> bytearray:
        """What was sealed; the caller wipes it. ``where`` names the file in errors.

        Raises:
            FormatError: another host key sealed it, or it or ``public`` were altered.
            CoprocessorError, AccessError: the host key cannot be had.
        """
        with self._open() as host_key:
            if sealed.host_key_id != _make_id(host_key):
                raise FormatError(
                    f"{where}: sealed by host key {sealed.host_key_id.hex()}, "
                    f"{self.path} is {_make_id(host_key).hex()}"
                )
            with wiped(_derive(host_key, sealed.salt)) as key:
                try:
                    return gcm.decrypt(sealed.ciphertext, key, _NONCE, public)
                except gcm.NotAuthenticError as error:
                    raise FormatError(f"{where}: altered since it was sealed") from error

    @contextmanager
    def _open(self) -> Generator[bytearray, None, None]:
        """The key for the length of a block."""
        with wiped(bytearray(HOST_KEY_SIZE + 1)) as buffer:
            if self._read_into(buffer) != HOST_KEY_SIZE:
                raise FormatError(f"host key {self.path}: wanted {HOST_KEY_SIZE} bytes")
            with wiped(buffer[:HOST_KEY_SIZE]) as key:
                yield key

    def _read_into(self, buffer: bytearray) -> int:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise CoprocessorError(
                f"host key {self.path}: missing; the adapters' state opens with no other"
            ) from error
        except OSError as error:
            raise AccessError(f"host key {self.path}: {error.strerror}") from error
        try:
            self._check(os.fstat(fd))
            return os.readv(fd, [buffer])
        except OSError as error:
            raise AccessError(f"host key {self.path}: {error.strerror}") from error
        finally:
            os.close(fd)

    def _check(self, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise AccessError(f"host key {self.path}: no regular file")
        if status.st_uid not in (0, os.geteuid()):
            raise AccessError(
                f"host key {self.path}: owned by uid {status.st_uid}, wanted {os.geteuid()}"
            )
        # systemd gives a service's credential to its user by an access control list, whose mask
        # stands where the group's bits are.
        is_credential = mode == 0o440 and status.st_uid == status.st_gid == 0 and os.geteuid() != 0
        if mode & 0o077 and not is_credential:
            raise AccessError(
                f"host key {self.path}: mode {mode:04o} lets others at it, wanted 0600"
            )


def _derive(host_key: bytearray, salt: bytes) -> bytearray:
    key = bytearray(gcm.KEY_SIZE)
    HKDF(hashes.SHA256(), gcm.KEY_SIZE, salt, _INFO_SEAL).derive_into(host_key, key)
    return key


def _make_id(host_key: bytearray) -> bytes:
    return HKDF(hashes.SHA256(), ID_SIZE, None, _INFO_ID).derive(host_key)
