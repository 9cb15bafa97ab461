"""How much of a device is to be used: --size in sectors, or --device-size with a unit."""

from __future__ import annotations

from ...dmcrypt.units import SECTOR_SIZE
from ...keystore.errors import ConfigError
from .arguments import Arguments


def parse_data_size(args: Arguments) -> int | None:
    """Bytes, in whole sectors; None when nothing is said, or 0: all there is, as with cryptsetup.

    Raises:
        ConfigError: both are given, or no whole sectors.
    """
    args.refuse_both("size", "device-size")
    size = args.size("device-size")
    if size is not None and size % SECTOR_SIZE:
        raise ConfigError(f"--device-size: {size} bytes; wanted: a multiple of {SECTOR_SIZE}")
    return size or (args.number("size") or 0) * SECTOR_SIZE or None
