"""Units of lengths and places, and how users write them."""

from __future__ import annotations

import re
from typing import Final, NewType

from ..keystore.errors import ConfigError

#: A count or a place in units of 512 bytes, whatever the volume's sector size is.
Sector = NewType("Sector", int)

SECTOR_SIZE: Final = 512
NO_SECTORS: Final = Sector(0)
#: The sizes of one encrypted unit that dm-crypt has.
ENCRYPTION_SECTOR_SIZES: Final = (512, 1024, 2048, 4096)
UINT32_MAX: Final = (1 << 32) - 1
UINT64_MAX: Final = (1 << 64) - 1

_SIZE: Final = re.compile(r"([0-9]+)(?:([sS])|([kKmMgGtT])(iB|B)?)?")


def parse_size(text: str) -> int:
    """The bytes in cryptsetup's notation: ``S`` for sectors, ``K KiB`` base 1024, ``KB`` base 1000.

    Raises:
        ConfigError: not in this notation, or beyond 64 bits.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"size {text!r}: wanted a number, with S, K, M, G, T, KiB… or KB… behind it"
        )
    digits, sectors, prefix, base = match.groups()
    factor = 1
    if sectors:
        factor = SECTOR_SIZE
    elif prefix:
        factor = (1000 if base == "B" else 1024) ** ("kmgt".index(prefix.lower()) + 1)
    if len(digits) > 20 or int(digits) * factor > UINT64_MAX:
        raise ConfigError(f"size {text!r}: does not fit 64 bits")
    return int(digits) * factor


def round_up(value: int, step: int) -> int:
    """The least multiple of ``step`` that is not below ``value``."""
    return -(-value // step) * step
