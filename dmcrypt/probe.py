"""Whether an image is LUKS, and of which version.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 2.1; LUKS1 specification 1.2.3, figure 1.
"""

from __future__ import annotations

from typing import Literal

from .backing import Pread
from .luks2.binhdr import (
    BINHDR_SIZE,
    MAGIC_PRIMARY,
    MAGIC_SECONDARY,
    SECONDARY_OFFSETS,
    parse_version,
)
from .superblock import find_superblock

__all__ = ["find_superblock", "probe"]


def probe(pread: Pread, size: int) -> Literal["luks1", "luks2"] | None:
    """The version of LUKS that an image's header claims; None when it claims none.

    A wiped primary header of LUKS2 is made up for by the secondary one. Nothing is verified.
    """
    version = parse_version(pread(0, min(size, BINHDR_SIZE)), MAGIC_PRIMARY)
    if version == 1:
        return "luks1"
    if version is not None:
        return "luks2" if version == 2 else None
    for offset in SECONDARY_OFFSETS:
        if parse_version(pread(offset, BINHDR_SIZE), MAGIC_SECONDARY) == 2:
            return "luks2"
    return None
