"""Changing a LUKS1 header on disk: lock, keep the old one, write.

There is one copy of the header, in two sectors. Each `Change.write` may therefore add one keyslot,
or remove some, or change what stands in the first sector, but never two of these: whichever of the
two sectors a power cut leaves old, what remains is a header that reads and opens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

from ..backing import get_size, locked, pread_from
from ..header_change import HeaderChange
from ..old_header import Keep, OldHeader, read_piece
from ..units import round_up
from .header import HEADER_SIZE, Luks1Header, read_header
from .layout import AREA_ALIGNMENT
from .update import write_header

_STEP: Final = 1 << 20


class Change(HeaderChange[Luks1Header]):
    """A header under the exclusive lock, that may be replaced by another."""

    def write(self, header: Luks1Header) -> Luks1Header:
        """Replace the header; the new one as it is on disk.

        Raises:
            FormatError: it has a name that does not fit its field.
            AccessError: the backing store refuses.
        """
        self.begin()
        write_header(self.fd, header)
        self.header = read_header(pread_from(self.fd), get_size(self.fd))
        return self.header

    def _read_old(self) -> OldHeader:
        return read_old(self.fd, self.header)


@contextmanager
def changing(fd: int, keep: Keep) -> Generator[Change, None, None]:
    """The header that ``fd`` holds, under the exclusive lock.

    Raises:
        FormatError, UnsupportedError: as `read_header`.
        BusyError: another process holds the header's lock.
    """
    with locked(fd, exclusive=True):
        yield Change(fd, read_header(pread_from(fd), get_size(fd)), keep)


def read_locked(fd: int) -> Luks1Header:
    """The header as it is, read under the shared lock.

    Raises:
        FormatError, UnsupportedError: as `read_header`.
        BusyError: another process holds the header's lock.
    """
    with locked(fd, exclusive=False):
        return read_header(pread_from(fd), get_size(fd))


def edit_header(
    fd: int, edit: Callable[[Luks1Header], Luks1Header], keep: Keep, *, dry_run: bool = False
) -> tuple[Luks1Header, Luks1Header]:
    """Replace a header by what ``edit`` makes of it; the one before and the one after.

    With ``dry_run`` nothing is written, and the one after is what would have been.

    Raises:
        MapperError: what ``edit`` raises; as `changing` and `Change.write`.
    """
    if dry_run:
        before = read_locked(fd)
        return before, edit(before)
    with changing(fd, keep) as change:
        before = change.header
        return before, change.write(edit(before))


def read_old(fd: int, header: Luks1Header) -> OldHeader:
    """What must be kept of a header to put it back: itself, and all key material.

    Raises:
        AccessError: the backing store cannot be read, or ends within the header.
    """
    pread = pread_from(fd)
    areas = [
        read_piece(pread, number, header.get_area(number)) for number in header.list_keyslots()
    ]
    pieces = ((0, header.pack()), *areas)
    return OldHeader("luks1", header.uuid, 0, get_backup_size(header), pieces)


def get_backup_size(header: Luks1Header) -> int:
    """Bytes of a backup: whole pages, as with the real tool."""
    return round_up(header.area_size, AREA_ALIGNMENT)


def read_whole(fd: int) -> tuple[Luks1Header, Generator[bytes, None, None]]:
    """A header and, piece by piece, all the bytes of a backup of it.

    To be read to the end under the lock that the caller holds (see `read_locked`).

    Raises:
        FormatError, UnsupportedError: as `read_header`.
    """
    pread = pread_from(fd)
    header = read_header(pread, get_size(fd))

    def pieces() -> Generator[bytes, None, None]:
        # lib/luks1/keymanage.c (LUKS_hdr_backup): signatures of before behind the header are left
        # out, and so is what fills up the last page.
        first = min(slot.area_offset for slot in header.keyslots)
        at = first if first == AREA_ALIGNMENT else HEADER_SIZE
        yield pread(0, HEADER_SIZE).ljust(at, b"\0")
        while at < header.area_size:
            piece = pread(at, min(_STEP, header.area_size - at))
            yield piece
            at += len(piece)
        yield bytes(get_backup_size(header) - at)

    return header, pieces()
