"""Changing a LUKS2 header on disk: lock, keep the old one, mend what is damaged, write.

Whatever moment the power goes, the volume opens with the header of before or of after: new key
material is durable before a header tells of it (that is its writer's part, see key_change.py), and
of the two copies one is whole and durable at every moment. A copy found damaged is mended first,
since otherwise the first write would void the only good one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from ...keystore.errors import FormatError
from ..backing import Pread, get_size, locked, pread_from
from ..header_change import HeaderChange
from ..old_header import Keep, OldHeader, read_piece
from ..units import UINT64_MAX
from .recovery import Luks2Header, read_header
from .requirement import check_requirements
from .update import mend_copy, pack_copies, write_header

_STEP: Final = 1 << 20


class Change(HeaderChange[Luks2Header]):
    """A header under the exclusive lock, that may be replaced by another."""

    def write(self, header: Luks2Header) -> Luks2Header:
        """Replace the header; the new one as it is on disk.

        Raises:
            FormatError: the sequence number is at its end.
            AccessError: the backing store refuses.
        """
        self.begin()
        last = max(self.header.binary.seqid, header.binary.seqid)
        if last >= UINT64_MAX:
            raise FormatError("seqid at byte 16: is the largest there is, so nothing can follow it")
        write_header(self.fd, replace(header.binary, seqid=last + 1), header.root)
        self.header = read_header(pread_from(self.fd), get_size(self.fd))
        return self.header

    def _read_old(self) -> OldHeader:
        return read_old(self.fd, self.header)

    def _mend(self) -> None:
        if self.header.is_damaged:
            mend_copy(self.fd, self.header)


@contextmanager
def changing(fd: int, keep: Keep) -> Generator[Change, None, None]:
    """The header that ``fd`` holds, under the exclusive lock.

    Raises:
        NotLuksError, FormatError: as `read_header`.
        UnsupportedError: LUKS1, or a requirement that we do not know forbids to write.
        BusyError: another process holds the header's lock.
    """
    with locked(fd, exclusive=True):
        header = read_header(pread_from(fd), get_size(fd))
        check_writable(header)
        yield Change(fd, header, keep)


def check_writable(header: Luks2Header) -> None:
    """Refuse to write a header of which something would be lost.

    Raises:
        UnsupportedError: a requirement that we do not know forbids it.
        FormatError: a key stands there more than once, of which one value would go.
    """
    check_requirements(header.metadata.config, read_only=False)
    if header.duplicates:
        raise FormatError(
            f"{header.duplicates[0]}: stands there more than once; such a header is opened, and "
            "not changed"
        )


def read_locked(fd: int) -> Luks2Header:
    """The header as it is, read under the shared lock.

    Raises:
        NotLuksError, FormatError, UnsupportedError: as `read_header`.
        BusyError: another process holds the header's lock.
    """
    with locked(fd, exclusive=False):
        return read_header(pread_from(fd), get_size(fd))


def edit_header(
    fd: int, edit: Callable[[Luks2Header], Luks2Header], keep: Keep, *, dry_run: bool = False
) -> tuple[Luks2Header, Luks2Header]:
    """Replace a header by what ``edit`` makes of it; the one before and the one after.

    With ``dry_run`` nothing is written, and the one after is what would have been.

    Raises:
        MapperError: what ``edit`` raises; as `changing` and `Change.write`.
    """
    if dry_run:
        before = read_locked(fd)
        check_writable(before)
        return before, edit(before)
    with changing(fd, keep) as change:
        before = change.header
        return before, change.write(edit(before))


def read_old(fd: int, header: Luks2Header) -> OldHeader:
    """What must be kept of a header to put it back: both copies whole, and all key material.

    Raises:
        AccessError: the backing store cannot be read, or ends within the header.
    """
    pread = pread_from(fd)
    areas = [read_piece(pread, slot.id, slot.area.extent) for slot in header.metadata.keyslots]
    pieces = ((0, _read_copies(pread, header)), *areas)
    return OldHeader("luks2", header.uuid, header.binary.seqid, header.area_size, pieces)


def read_whole(fd: int) -> tuple[Luks2Header, Generator[bytes, None, None]]:
    """A header and, piece by piece, all the bytes of a backup of it, both copies whole.

    To be read to the end under the lock that the caller holds (see `read_locked`).

    Raises:
        NotLuksError, FormatError, UnsupportedError: as `read_header`.
    """
    pread = pread_from(fd)
    header = read_header(pread, get_size(fd))

    def pieces() -> Generator[bytes, None, None]:
        copies = _read_copies(pread, header)
        yield copies
        for at in range(len(copies), header.area_size, _STEP):
            yield pread(at, min(_STEP, header.area_size - at))

    return header, pieces()


def _read_copies(pread: Pread, header: Luks2Header) -> bytes:
    """Both copies as they are; where one is damaged, as they were before."""
    return pack_copies(header) if header.is_damaged else pread(0, 2 * header.binary.hdr_size)
