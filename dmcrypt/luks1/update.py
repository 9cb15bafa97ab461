"""Writing a LUKS1 header. There is one copy of it, so the order of writes is all its safety.

A header takes 592 bytes, and so two sectors: keyslots 0 to 5 and what all need stand in the first,
the end of keyslot 6 and keyslot 7 in the second. A cut may leave the new second sector with the
old first one: that is why no change may add one keyslot and remove another in one step.
"""

from __future__ import annotations

from typing import Final

from ..backing import pwrite, sync
from ..units import SECTOR_SIZE
from .header import HEADER_SIZE, Luks1Header

_SECTORS: Final = (slice(SECTOR_SIZE, HEADER_SIZE), slice(0, SECTOR_SIZE))


def write_header(fd: int, header: Luks1Header) -> None:
    """Write the second sector, then the first, each made durable. The caller holds the lock.

    Raises:
        AccessError: the backing store refuses.
        FormatError: the header has a name that does not fit its field.
    """
    buf = header.pack()
    for part in _SECTORS:
        pwrite(fd, buf[part], part.start)
        sync(fd)
