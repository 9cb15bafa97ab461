"""The key that a passphrase stands for: scrypt (RFC 7914), its parameters as files hold them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final, Self

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from . import gcm
from .clear_bytes import wipe
from .errors import CoprocessorError, FormatError
from .json_object import JsonObject

_SALT_SIZE: Final = 32
#: 32 MiB, so that it fits a process whose memory is locked; three times, as OWASP's cheat sheet on
#: password storage has it for this size.
_COST: Final = (1 << 15, 8, 3)
#: What a file may demand of us.
_MEMORY_MAX: Final = 256 << 20
_WORK_MAX: Final = 1 << 22  # n * r * p: five times ours, about a second


@dataclass(frozen=True, slots=True)
class PassphraseKdf:
    """Parameters of scrypt."""

    n: int
    r: int
    p: int
    salt: bytes

    @classmethod
    def make(cls) -> Self:
        """What a new file has, with a salt of its own."""
        return cls(*_COST, os.urandom(_SALT_SIZE))

    @classmethod
    def take(cls, json: JsonObject, where: str) -> Self:
        """What `pack` packed.

        Raises:
            FormatError: not that, or it would need more than 256 MiB.
        """
        json.take_constant("type", "scrypt")
        n = json.take_int("n", 2, 1 << 24)
        kdf = cls(
            n,
            json.take_int("r", 1, 64),
            json.take_int("p", 1, 64),
            json.take_hex("salt", _SALT_SIZE),
        )
        json.finish()
        if n & (n - 1) or n >= 1 << 16 * kdf.r:  # RFC 7914 section 2
            raise FormatError(f"{where}: kdf: n is {n}, wanted a power of two that fits r {kdf.r}")
        if kdf.memory > _MEMORY_MAX or n * kdf.r * kdf.p > _WORK_MAX:
            raise FormatError(
                f"{where}: kdf: wants {kdf.memory >> 20} MiB {kdf.p} times, at most "
                f"{_MEMORY_MAX >> 20} MiB"
            )
        return kdf

    @property
    def memory(self) -> int:
        """Bytes that deriving needs."""
        return 128 * self.n * self.r  # RFC 7914 section 2

    def pack(self) -> dict[str, Any]:
        """The members of a JSON object."""
        return {"type": "scrypt", "n": self.n, "r": self.r, "p": self.p, "salt": self.salt.hex()}

    def derive(self, passphrase: bytearray, where: str) -> bytearray:
        """The key of AES-256-GCM; the caller wipes it.

        Raises:
            CoprocessorError: no memory.
        """
        key = bytearray(gcm.KEY_SIZE)
        try:
            Scrypt(self.salt, gcm.KEY_SIZE, self.n, self.r, self.p).derive_into(passphrase, key)
        except MemoryError as error:
            wipe(key)
            raise CoprocessorError(
                f"{where}: no memory for the passphrase's KDF, {self.memory >> 20} MiB"
            ) from error
        return key
