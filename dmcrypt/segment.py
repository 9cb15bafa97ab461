"""Where the data of a LUKS volume lie, and under which cipher, as its header says."""

from __future__ import annotations

from dataclasses import dataclass

from .units import NO_SECTORS, SECTOR_SIZE, Sector


@dataclass(frozen=True, slots=True)
class DataSegment:
    """The one run of data; it ends where the backing store does."""

    offset: int  # bytes
    cipher: str  # as dm-crypt spells it; not checked
    cipher_field: str  # the place of ``cipher`` in the header, for messages
    iv_offset: Sector = NO_SECTORS
    sector_size: int = SECTOR_SIZE
