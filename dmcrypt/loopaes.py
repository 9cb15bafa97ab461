"""loop-AES volumes: no header, and one, 64 or 65 keys from a key file.

Source: cryptsetup(8) of 2.6, "loopaes extension"; cryptsetup lib/loopaes/loopaes.c and
src/cryptsetup.c (action_open_loopaes). The engine reads the key file (engine/src/loopaes_key.c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..keystore.errors import ConfigError
from .cipher_spec import CipherSpec
from .engine.client import Engine, Secret
from .engine.messages import TargetKind
from .open_volume import OpenedVolume
from .plain import get_length
from .table import Segment, Table
from .units import SECTOR_SIZE, UINT64_MAX, Sector

DEFAULT_CIPHER: Final = "aes"
DEFAULT_KEY_BITS: Final = 256

_KEY_SIZES_WITH_HASH: Final = (16, 24, 32)


@dataclass(frozen=True, slots=True)
class LoopaesParams:
    """What the user says of a loop-AES volume."""

    cipher: str = DEFAULT_CIPHER  # without a mode
    key_bits: int = DEFAULT_KEY_BITS  # of one key
    hash_name: str = ""  # empty: SHA-256, SHA-384 or SHA-512, by the key's size
    offset: int = 0  # 512-byte sectors before the data
    skip: int = 0  # IV of the first sector

    def __post_init__(self) -> None:
        """Raises ConfigError, UnsupportedError: what no key file could open."""
        if "-" in self.cipher or ":" in self.cipher:
            raise ConfigError(
                f"cipher {self.cipher}: wanted one without mode and IV, as in --cipher aes; "
                "the key file decides about those"
            )
        if self.key_bits % 8:
            raise ConfigError(f"key size {self.key_bits}: not a multiple of 8 bits")
        if not self.hash_name and self.key_size not in _KEY_SIZES_WITH_HASH:
            raise ConfigError(f"key size {self.key_bits}: wanted 128, 192 or 256, or a --hash")
        for keys in (1, 64):
            spec = self.get_spec(keys)
            spec.check_key_size(self.key_size * spec.keys)
        for what, value in (("offset", self.offset), ("skip", self.skip)):
            if not 0 <= value <= UINT64_MAX // (1 if what == "skip" else SECTOR_SIZE):
                raise ConfigError(
                    f"{what} {value} [512-byte sectors]: does not fit 64 bits of bytes"
                )

    @property
    def key_size(self) -> int:
        """Bytes of one key."""
        return self.key_bits // 8

    @property
    def size(self) -> int | None:
        """All of the device behind the offset."""
        return None

    @property
    def sector_size(self) -> int:
        """Bytes; loop-AES has no others."""
        return SECTOR_SIZE

    def get_spec(self, keys: int) -> CipherSpec:
        """The cipher of a volume with so many keys."""
        name = f"{self.cipher}-cbc-plain64" if keys == 1 else f"{self.cipher}:64-cbc-lmk"
        return CipherSpec.parse(name)


def open_loopaes(
    engine: Engine, params: LoopaesParams, secret: Secret, *, data_size: int, read_only: bool
) -> OpenedVolume:
    """Open a loop-AES volume with the contents of its key file.

    No wrong key file can be told from the right one here.

    Raises:
        UnlockError: not a key file of loop-AES.
        AccessError: the device is too small.
        UnsupportedError: a hash that the engine does not have.
    """
    length = get_length(params, data_size)
    key, count = engine.loopaes_key(secret, key_size=params.key_size, hash_name=params.hash_name)
    spec = params.get_spec(count)
    segment = Segment(
        start=0,
        length=length,
        target=TargetKind.CRYPT,
        backing_offset=params.offset * SECTOR_SIZE,
        cipher=spec,
        iv_offset=Sector(params.skip),
        key=key,
    )
    return OpenedVolume(
        table=Table((segment,), SECTOR_SIZE, length, read_only),
        type="loopaes",
        cipher=spec.dm_name,
        key_bits=params.key_bits * count,
        sector_size=SECTOR_SIZE,
        offset=params.offset * SECTOR_SIZE,
        iv_offset=Sector(params.skip),
    )
