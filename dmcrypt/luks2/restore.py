"""Putting an old LUKS2 header back.

The key material of the old header is written where that of the present one does not lie, and
the old header is made to refer to it there: until the last write the volume opens with the present
header. Only where the keyslots area has no room for both is material overwritten in place.

Source: lib/luks2/luks2_json_metadata.c (LUKS2_hdr_restore), for what must agree between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...keystore.errors import AccessError, BusyError, ConfigError, FormatError
from ..backing import Pread, get_size, locked, pread_from, pwrite, sync
from ..extent import Extent
from ..old_header import Keep
from ..wipe import grow
from . import edit
from .change import Change, changing, check_writable, read_locked
from .recovery import Luks2Header, NotLuksError, read_header
from .update import write_header

_STEP: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class OldFile:
    """A file with an old header: a backup."""

    header: Luks2Header
    pread: Pread

    def read(self, extent: Extent) -> bytes:
        """Bytes of the keyslots area.

        Raises:
            FormatError: the file ends before.
        """
        data = self.pread(extent.offset, extent.length)
        if len(data) != extent.length:
            raise FormatError(f"backup: {extent} lie behind its end")
        return data


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """How an old header comes back."""

    header: Luks2Header  # as it will be
    writes: tuple[tuple[Extent, Extent], ...]  # from where in the backup, to where
    wipes: tuple[Extent, ...]  # present key material that is not referred to any more
    is_in_place: bool  # a cut may leave neither header's keyslots whole


def open_backup(pread: Pread, size: int) -> OldFile:
    """A backup, if it is one that can be restored.

    Raises:
        ConfigError: it is no backup of a LUKS2 header.
        UnsupportedError: a requirement that we do not know forbids to write it.
    """
    try:
        header = read_header(pread, size)
    except FormatError as error:
        raise ConfigError(f"no LUKS2 header that can be put back: {error}") from None
    check_writable(header)
    return OldFile(header, pread)


def find_present(fd: int) -> Luks2Header | None:
    """The header that would be replaced; None where there is none that can be read.

    Raises:
        UnsupportedError: LUKS1, or a requirement that we do not know forbids to write.
        BusyError: another process holds the header's lock.
    """
    try:
        header = read_locked(fd)
    except (NotLuksError, FormatError):
        return None
    check_writable(header)
    return header


def plan_restore(present: Luks2Header, old: OldFile, pread: Pread) -> RestorePlan:
    """How ``old`` would replace ``present``, whose bytes ``pread`` reads.

    Raises:
        ConfigError: data offset or sizes differ.
        FormatError: the backup ends too early.
    """
    _check_fits(present, old.header)
    busy = [slot.area.extent for slot in present.metadata.keyslots]
    places: dict[int, Extent] = {}
    homeless: list[tuple[int, Extent]] = []
    for slot in old.header.metadata.keyslots:
        own = slot.area.extent
        if pread(own.offset, own.length) == old.read(own):
            places[slot.id] = own  # it is still there, or there again
        else:
            homeless.append((slot.id, own))
    writes: list[tuple[Extent, Extent]] = []
    for number, own in homeless:
        taken = list(places.values())
        if any(own.overlaps(other) for other in [*busy, *taken]):
            target = edit.find_free_area(present, own.length, besides=taken)
            if target is None:
                return _plan_in_place(present, old, homeless)
        else:
            target = own
        places[number] = target
        writes.append((own, target))
    header = edit.move_areas(old.header, places)
    return RestorePlan(header, tuple(writes), _find_wipes(busy, header), is_in_place=False)


def restore(
    fd: int, old: OldFile, keep: Keep, present: Luks2Header, *, may_overwrite: bool
) -> Luks2Header:
    """Replace the header, ``present`` when it was looked at, by an old one; as it is now.

    Raises:
        ConfigError: data offset or sizes differ; no room, and it may not be overwritten in place.
        BusyError: the header was changed in the meantime.
        AccessError: the backing store refuses, or the present header cannot be kept.
    """
    with changing(fd, keep) as change:
        if change.header.root != present.root or change.header.binary.uuid != present.binary.uuid:
            raise BusyError("header: was changed in the meantime by somebody else")
        plan = plan_restore(change.header, old, pread_from(fd))
        if plan.is_in_place and not may_overwrite:
            raise ConfigError("no space for both headers' keyslots in the keyslots area")
        _write_material(change, plan, old)
        header = change.write(plan.header)
        for extent in plan.wipes:
            change.wipe(extent)
        return header


def restore_onto_nothing(fd: int, old: OldFile) -> Luks2Header:
    """Write an old header where none can be read; as it is now.

    Raises:
        BusyError: there is a header by now, or another process holds its lock.
        AccessError: the backing store refuses, or is too small.
    """
    with locked(fd, exclusive=True):
        try:
            read_header(pread_from(fd), get_size(fd))
        except (NotLuksError, FormatError):
            pass
        else:
            raise BusyError("header: there is one by now")
        try:
            grow(fd, old.header.area_size)
        except AccessError:
            if get_size(fd) < old.header.area_size:
                raise
        for at in range(2 * old.header.binary.hdr_size, old.header.area_size, _STEP):
            pwrite(fd, old.read(Extent(at, min(_STEP, old.header.area_size - at))), at)
        sync(fd)
        write_header(fd, old.header.binary, old.header.root)
        return read_header(pread_from(fd), get_size(fd))


def _check_fits(present: Luks2Header, old: Luks2Header) -> None:
    one, other = (header.metadata.regular_segments[0].offset for header in (present, old))
    if one != other:
        raise ConfigError(f"the data begin at {one}, in the backup at {other}; wanted: the same")
    sizes = [(h.binary.hdr_size, h.metadata.config.keyslots_size) for h in (present, old)]
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"header and keyslots area have {sizes[0]} bytes, in the backup {sizes[1]}; wanted: "
            "the same"
        )


def _plan_in_place(
    present: Luks2Header, old: OldFile, homeless: list[tuple[int, Extent]]
) -> RestorePlan:
    busy = [slot.area.extent for slot in present.metadata.keyslots]
    writes = tuple((own, own) for _, own in homeless)
    wipes = _find_wipes(busy, old.header)
    return RestorePlan(old.header, writes, wipes, is_in_place=True)


def _find_wipes(busy: list[Extent], header: Luks2Header) -> tuple[Extent, ...]:
    """What is left of present areas without those that the new header refers to."""
    left = busy
    for slot in header.metadata.keyslots:
        left = [rest for extent in left for rest in _without(extent, slot.area.extent)]
    return tuple(left)


def _without(extent: Extent, hole: Extent) -> list[Extent]:
    if not extent.overlaps(hole):
        return [extent]
    parts = [
        Extent(extent.offset, hole.offset - extent.offset),
        Extent(hole.end, extent.end - hole.end),
    ]
    return [part for part in parts if part.length > 0]


def _write_material(change: Change, plan: RestorePlan, old: OldFile) -> None:
    """Durable before any header tells of it."""
    material = [(old.read(source), target) for source, target in plan.writes]
    change.begin()
    for data, target in material:
        pwrite(change.fd, data, target.offset)
    sync(change.fd)
