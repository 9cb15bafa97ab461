"""Putting an old LUKS1 header back, and mending one.

Where both headers have the same volume key, and keyslots enough are free, the old keyslots are
added to the present header one by one before its own are removed: at every moment the volume opens
with the one or the other. Otherwise key material is overwritten in place.

Source: lib/luks1/keymanage.c (LUKS_hdr_restore), for what must agree between the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...keystore.errors import BusyError, ConfigError, FormatError, UnsupportedError
from ..backing import Pread, get_size, locked, pread_from, pwrite, sync
from ..old_header import Keep
from ..wipe import grow
from . import edit
from .change import Change, changing, get_backup_size
from .header import HEADER_SIZE, Luks1Header, read_header
from .update import write_header


@dataclass(frozen=True, slots=True)
class OldFile:
    """A file with an old header: a backup."""

    header: Luks1Header
    pread: Pread

    def read_area(self, number: int) -> bytes:
        """The key material of a keyslot."""
        area = self.header.get_area(number)
        return self.pread(area.offset, area.length)


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """How an old header comes back."""

    header: Luks1Header  # as it will be
    added: tuple[tuple[int, int], ...]  # keyslots: of the backup, where they come to
    removed: tuple[int, ...]  # keyslots of the present header
    is_in_place: bool  # a cut may leave neither header's keyslots whole


def open_backup(pread: Pread, size: int) -> OldFile:
    """A backup, if it is one that can be restored.

    Raises:
        ConfigError: it is no backup of a LUKS1 header.
    """
    try:
        return OldFile(read_header(pread, size), pread)
    except (FormatError, UnsupportedError) as error:
        raise ConfigError(f"no LUKS1 header that can be put back: {error}") from None


def plan_restore(present: Luks1Header, old: OldFile, pread: Pread) -> RestorePlan:
    """How ``old`` would replace ``present``, whose bytes ``pread`` reads.

    Raises:
        ConfigError: data offset or key size differ.
    """
    one, other = ((h.payload_offset, h.key_size) for h in (present, old.header))
    if one != other:
        raise ConfigError(
            f"data offset and key size are {one[0]} and {one[1]} bytes, in the backup {other[0]} "
            f"and {other[1]}; wanted: the same"
        )
    in_place = RestorePlan(old.header, (), present.list_keyslots(), is_in_place=True)
    names = ("cipher_name", "cipher_mode", "hash_name", "digest", "digest_salt")
    if any(getattr(present, name) != getattr(old.header, name) for name in names):
        return in_place
    header, added, kept = present, list[tuple[int, int]](), set[int]()
    for number in old.header.list_keyslots():
        slot = old.header.keyslots[number]
        area = present.get_area(number)
        is_same = present.keyslots[number] == slot
        if is_same and pread(area.offset, area.length) == old.read_area(number):
            kept.add(number)
            continue
        free = number if not header.keyslots[number].is_enabled else edit.find_free_keyslot(header)
        if free is None:
            return in_place
        header = _move_in(header, free, old.header, number)
        added.append((number, free))
    removed = tuple(number for number in present.list_keyslots() if number not in kept)
    header = replace(edit.remove_keyslots(header, removed), uuid=old.header.uuid)
    return RestorePlan(header, tuple(added), removed, is_in_place=False)


def restore(
    fd: int, old: OldFile, keep: Keep, present: Luks1Header, *, may_overwrite: bool
) -> Luks1Header:
    """Replace the header, ``present`` when it was looked at, by an old one; as it is now.

    Raises:
        ConfigError: data offset or key size differ; it may not be overwritten in place, but must.
        BusyError: the header was changed in the meantime.
        AccessError: the backing store refuses, or the present header cannot be kept.
    """
    with changing(fd, keep) as change:
        if change.header != present:
            raise BusyError("header: was changed in the meantime by somebody else")
        plan = plan_restore(present, old, pread_from(fd))
        if plan.is_in_place:
            if not may_overwrite:
                raise ConfigError("no keyslots are free for those of the backup")
            return _restore_in_place(change, old)
        for number, target in plan.added:
            edited = _move_in(change.header, target, old.header, number)
            change.begin()
            pwrite(fd, old.read_area(number), edited.get_area(target).offset)
            sync(fd)
            change.write(edited)
        for number in plan.removed:
            area = change.header.get_area(number)
            change.write(edit.remove_keyslots(change.header, [number]))
            change.wipe(area)
        if change.header != plan.header:
            change.write(plan.header)
        return change.header


def restore_onto_nothing(fd: int, old: OldFile) -> Luks1Header:
    """Write an old header where none can be read; as it is now.

    Raises:
        BusyError: there is a header by now, or another process holds its lock.
        AccessError: the backing store refuses, or is too small.
    """
    with locked(fd, exclusive=True):
        try:
            read_header(pread_from(fd), get_size(fd))
        except (FormatError, UnsupportedError):
            pass
        else:
            raise BusyError("header: there is one by now")
        if get_size(fd) < old.header.area_size:
            grow(fd, get_backup_size(old.header))
        _write_areas(fd, old)
        write_header(fd, old.header)
        return read_header(pread_from(fd), get_size(fd))


def mend_header(fd: int, keep: Keep, *, dry_run: bool = False) -> tuple[str, ...]:
    """Write what `edit.mend` makes of a header; what was wrong with it.

    Raises:
        FormatError, UnsupportedError: no header, or not to be mended so.
        BusyError: another process holds the header's lock.
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    with locked(fd, exclusive=not dry_run):
        header = Luks1Header.decode(pread_from(fd)(0, HEADER_SIZE))
        try:
            if header == Luks1Header.parse(header.pack()) and not header.notes:
                return ()
        except FormatError:
            pass
        mended, notes = edit.mend(header)
        if notes and not dry_run:
            # What is kept are the mended header and the key material of the keyslots in use, which
            # mending does not touch: the damaged one would open nothing.
            Change(fd, mended, keep).write(mended)
        return notes


def _move_in(header: Luks1Header, target: int, old: Luks1Header, number: int) -> Luks1Header:
    slot = replace(old.keyslots[number], area_offset=header.keyslots[target].area_offset)
    return edit.rebuild(header.with_keyslot(target, slot))


def _restore_in_place(change: Change, old: OldFile) -> Luks1Header:
    change.begin()
    gone = [change.header.get_area(number) for number in change.header.list_keyslots()]
    _write_areas(change.fd, old)
    header = change.write(old.header)
    used = [header.get_area(number) for number in header.list_keyslots()]
    for area in gone:
        if not any(area.overlaps(other) for other in used):
            change.wipe(area)
    return header


def _write_areas(fd: int, old: OldFile) -> None:
    for number in old.header.list_keyslots():
        pwrite(fd, old.read_area(number), old.header.get_area(number).offset)
    sync(fd)
