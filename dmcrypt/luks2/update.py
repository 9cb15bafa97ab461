"""Writing LUKS2 headers: both copies, in an order that leaves one of them whole at every moment.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 2.4;
lib/luks2/luks2_disk_metadata.c (hdr_write_disk).
"""

from __future__ import annotations

import os
from dataclasses import replace

from ..backing import get_size, locked, pread_from, pwrite, sync
from ..units import SECTOR_SIZE
from .binhdr import BINHDR_SIZE, SALT_SIZE, BinaryHeader
from .json_area import JsonObject, pack_json_area
from .recovery import PRIMARY, Luks2Header, read_header
from .requirement import check_requirements


def write_header(fd: int, binary: BinaryHeader, root: JsonObject) -> None:
    """Write the primary copy, then the secondary, each made durable before the next byte.

    The caller holds the exclusive lock and has chosen ``binary.seqid``: one more than on disk.
    Each copy gets a new salt.

    Raises:
        FormatError: the JSON object does not fit its area.
        AccessError: the backing store refuses.
    """
    area = pack_json_area(root, binary.json_size)
    for is_secondary in (False, True):
        _write_copy(fd, binary, area, is_secondary=is_secondary)


def write_over_foreign(fd: int, binary: BinaryHeader, root: JsonObject) -> None:
    """Write both copies where another kind of header lies in the first sector, which is in force.

    The secondary copy comes first, then the primary one but for its binary header, then that one's
    first sector, which names it LUKS2 and is not valid yet, so that the secondary counts; then the
    rest. The caller holds the exclusive lock.

    Raises:
        FormatError: the JSON object does not fit its area.
        AccessError: the backing store refuses.
    """
    area = pack_json_area(root, binary.json_size)
    _write_copy(fd, binary, area, is_secondary=True)
    pwrite(fd, area, BINHDR_SIZE)
    sync(fd)
    signed = _prepare_copy(binary, is_secondary=False).pack_signed(area)
    for part in (slice(0, SECTOR_SIZE), slice(SECTOR_SIZE, BINHDR_SIZE)):
        pwrite(fd, signed[part], part.start)
        sync(fd)


def mend_copy(fd: int, header: Luks2Header) -> None:
    """Write the good copy over the damaged or outdated one. The caller holds the exclusive lock.

    Before any other change: a change begins by voiding the primary copy.
    """
    area = pack_json_area(header.root, header.binary.json_size)
    _write_copy(fd, header.binary, area, is_secondary=header.used == PRIMARY)


def pack_copies(header: Luks2Header) -> bytes:
    """Both copies as they would be written, one behind the other."""
    area = pack_json_area(header.root, header.binary.json_size)
    return b"".join(
        _prepare_copy(header.binary, is_secondary=is_secondary).pack_signed(area) + area
        for is_secondary in (False, True)
    )


def repair_header(fd: int) -> Luks2Header:
    """Write the good copy of a header over a damaged or outdated one; the header as it is now.

    Changes nothing when both are well. Takes the exclusive lock.

    Raises:
        FormatError: no copy is whole.
        UnsupportedError: a requirement that we do not know forbids to write.
        AccessError: the backing store refuses.
        BusyError: another process holds the header's lock.
    """
    with locked(fd, exclusive=True):
        header = read_header(pread_from(fd), get_size(fd))
        if not header.is_damaged:
            return header
        check_requirements(header.metadata.config, read_only=False)
        mend_copy(fd, header)
        return read_header(pread_from(fd), get_size(fd))


def _prepare_copy(binary: BinaryHeader, *, is_secondary: bool) -> BinaryHeader:
    return replace(
        binary,
        is_secondary=is_secondary,
        hdr_offset=binary.hdr_size if is_secondary else 0,
        salt=os.urandom(SALT_SIZE),
        checksum=b"",
    )


def _write_copy(fd: int, binary: BinaryHeader, area: bytes, *, is_secondary: bool) -> None:
    copy = _prepare_copy(binary, is_secondary=is_secondary)
    # Without its checksum the copy is void while its JSON area is between old and new.
    pwrite(fd, copy.pack(), copy.hdr_offset)
    pwrite(fd, area, copy.hdr_offset + BINHDR_SIZE)
    pwrite(fd, copy.pack_signed(area), copy.hdr_offset)
    sync(fd)
