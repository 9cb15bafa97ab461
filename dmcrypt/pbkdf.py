"""What a new keyslot and its volume's digest cost, and the KDFs that are chosen by it.

Source: lib/utils_pbkdf.c, lib/luks1/keymanage.c (LUKS_generate_phdr),
lib/luks2/luks2_digest_pbkdf2.c; the defaults are those of cryptsetup 2.6.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from ..keystore.errors import ConfigError, UnsupportedError
from ..keystore.keys import ProtectedKey
from .engine.client import Engine
from .engine.messages import DigestSpec, Kdf, KdfType
from .units import UINT32_MAX

#: Of keyslots and digests, of LUKS1 and of LUKS2.
SALT_SIZE: Final = 32
#: Bytes: no digest and no key of a keyslot's area is longer, though a secure key is.
_DERIVED_MAX: Final = 64
_LANES_MAX: Final = 4  # cryptsetup does not ask for more, whatever it is told
_DIGEST_MILLISECONDS: Final = 125
_DIGEST_ITERATIONS_MIN: Final = 1000
KDF_TYPES: Final = {
    "pbkdf2": KdfType.PBKDF2,
    "argon2i": KdfType.ARGON2I,
    "argon2id": KdfType.ARGON2ID,
}
#: The hashes that a new volume may name, with the bytes of their digests.
HASH_SIZES: Final = {
    "sha1": 20,
    "sha224": 28,
    "sha256": 32,
    "sha384": 48,
    "sha512": 64,
    "sha3-224": 28,
    "sha3-256": 32,
    "sha3-384": 48,
    "sha3-512": 64,
    "ripemd160": 20,
    "whirlpool": 64,
    "sm3": 32,
    "blake2b-160": 20,
    "blake2b-256": 32,
    "blake2b-384": 48,
    "blake2b-512": 64,
    "blake2s-160": 20,
    "blake2s-224": 28,
    "blake2s-256": 32,
}


@dataclass(frozen=True, slots=True)
class PbkdfParams:
    """What a new keyslot costs. Checked as cryptsetup does (lib/utils_pbkdf.c)."""

    type: str = "argon2id"
    hash_name: str = "sha256"  # of PBKDF2, the AF split and the digest
    milliseconds: int = 2000  # to aim at
    iterations: int | None = None  # forced: nothing is measured
    memory_kib: int | None = (
        None  # Argon2: the most to take; exactly this when iterations are forced
    )
    parallel: int | None = None  # Argon2: lanes; 0 as None, more than 4 as 4

    def __post_init__(self) -> None:
        """Raises ConfigError, UnsupportedError: what cryptsetup refuses."""
        if self.type not in KDF_TYPES:
            raise UnsupportedError(
                f"pbkdf {self.type}: not supported, wanted {', '.join(KDF_TYPES)}"
            )
        if self.hash_name not in HASH_SIZES:
            raise UnsupportedError(
                f"hash {self.hash_name}: not supported, wanted one of {', '.join(HASH_SIZES)}"
            )
        if not 0 < self.milliseconds <= UINT32_MAX:
            raise ConfigError(f"iteration time {self.milliseconds} ms: wanted 1 to {UINT32_MAX}")
        least = 1000 if self.type == "pbkdf2" else 4
        if self.iterations is not None and not least <= self.iterations <= UINT32_MAX:
            raise ConfigError(
                f"forced iterations {self.iterations}: {self.type} takes {least} to {UINT32_MAX}"
            )
        if self.type == "pbkdf2":
            if self.memory_kib is not None or self.parallel is not None:
                raise ConfigError("pbkdf2 takes neither memory nor parallel threads")
            return
        if not 32 <= self.memory <= 4 * 1024 * 1024:
            raise ConfigError(f"pbkdf memory {self.memory} KiB: wanted 32 to 4194304")
        if self.memory < 8 * self.lanes:
            raise ConfigError(
                f"pbkdf memory {self.memory} KiB: {self.lanes} threads need {8 * self.lanes}"
            )

    @property
    def memory(self) -> int:
        """KiB that Argon2 may take."""
        return 1024 * 1024 if self.memory_kib is None else self.memory_kib

    @property
    def lanes(self) -> int:
        """Argon2's lanes: at most 4, and without a number as many as there are processors."""
        return min(_LANES_MAX, self.parallel or os.cpu_count() or 1)


def make_kdf(engine: Engine, pbkdf: PbkdfParams, key_size: int) -> Kdf:
    """A KDF with a new salt, whose costs are forced or measured here.

    Raises:
        UnsupportedError: the engine has no such hash.
    """
    kind = KDF_TYPES[pbkdf.type]
    salt = os.urandom(SALT_SIZE)
    if kind is KdfType.PBKDF2:
        kdf = Kdf(kind, salt, pbkdf.iterations or 0, hash_name=pbkdf.hash_name)
    else:
        kdf = Kdf(kind, salt, pbkdf.iterations or 0, pbkdf.memory, pbkdf.lanes)
    if pbkdf.iterations is not None:
        return kdf
    size = min(key_size, _DERIVED_MAX)
    return engine.benchmark_kdf(kdf, key_size=size, milliseconds=pbkdf.milliseconds)


def make_digest(
    engine: Engine,
    pbkdf: PbkdfParams,
    key: ProtectedKey,
    key_size: int,
    *,
    length: int | None = None,
) -> DigestSpec:
    """The digest of a new volume's key, of ``length`` bytes (None: as many as the hash gives).

    Raises:
        UnsupportedError: the engine has no such hash.
    """
    name = pbkdf.hash_name
    salt = os.urandom(SALT_SIZE)
    iterations = _DIGEST_ITERATIONS_MIN
    if pbkdf.iterations is None:
        iterations = engine.benchmark_kdf(
            Kdf(KdfType.PBKDF2, salt, 0, hash_name=name),
            key_size=min(key_size, _DERIVED_MAX),
            milliseconds=_DIGEST_MILLISECONDS,
        ).iterations
    blank = DigestSpec(name, iterations, salt, b"", length or HASH_SIZES[name])
    return DigestSpec(name, iterations, salt, engine.make_digest(key, blank), blank.digest_length)
