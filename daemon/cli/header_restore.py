"""Putting an old header back, of LUKS1 or LUKS2: the plan, the question, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...dmcrypt.backing import get_size, locked, pread_from
from ...dmcrypt.luks1 import Luks1Header, read_header
from ...dmcrypt.luks1 import restore as luks1
from ...dmcrypt.luks2 import restore as luks2
from ...dmcrypt.luks_change import AnyHeader
from ...dmcrypt.probe import probe
from ...keystore.errors import ConfigError, FormatError, UnsupportedError
from .header_change import HeaderAction
from .locating import locating
from .source import SourceFile


@dataclass(frozen=True, slots=True)
class _Replacement:
    """An old header that is to come to where a volume has its header."""

    kind: str  # LUKS1 or LUKS2
    old: AnyHeader
    present: AnyHeader | None  # None: none that can be read
    after: AnyHeader  # as it will be
    is_in_place: bool  # a cut may leave neither header's keyslots whole
    notes: tuple[str, ...]
    write: Callable[[], object]


def restore_from(action: HeaderAction, file: SourceFile) -> None:
    """Put the header that ``file`` holds back, after a question.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    path = action.file.path
    kinds = [probe(each.pread, each.size) for each in (file, action.file)]
    if None not in kinds and kinds[0] != kinds[1]:
        raise ConfigError(f"{path}: is {kinds[1]}, the backup {kinds[0]}; wanted: the same type")
    plan = _plan_luks1 if "luks1" in kinds else _plan_luks2
    replacement = plan(action, file)
    _ask(action, replacement)
    if action.is_dry:
        _show_plan(action, replacement)
        return
    with locating(path):
        replacement.write()
    for note in replacement.notes:
        action.output.note(note)
    action.finish({"uuid": replacement.old.uuid})


def _plan_luks1(action: HeaderAction, file: SourceFile) -> _Replacement:
    fd, path = action.file.fd, action.file.path
    with locating(file.path):
        old = luks1.open_backup(file.pread, file.size)
    with locating(path):
        present = _find_luks1(fd)
        if present is None:
            return _onto_nothing("LUKS1", old.header, lambda: luks1.restore_onto_nothing(fd, old))
        plan = luks1.plan_restore(present, old, pread_from(fd))
    return _Replacement(
        "LUKS1",
        old.header,
        present,
        plan.header,
        plan.is_in_place,
        tuple(
            f"Key slot {number} of the backup is key slot {target} now."
            for number, target in plan.added
            if number != target
        ),
        lambda: luks1.restore(fd, old, action.keep, present, may_overwrite=plan.is_in_place),
    )


def _plan_luks2(action: HeaderAction, file: SourceFile) -> _Replacement:
    fd, path = action.file.fd, action.file.path
    with locating(file.path):
        old = luks2.open_backup(file.pread, file.size)
    with locating(path):
        present = luks2.find_present(fd)
        if present is None:
            return _onto_nothing("LUKS2", old.header, lambda: luks2.restore_onto_nothing(fd, old))
        plan = luks2.plan_restore(present, old, pread_from(fd))
    return _Replacement(
        "LUKS2",
        old.header,
        present,
        plan.header,
        plan.is_in_place,
        (),
        lambda: luks2.restore(fd, old, action.keep, present, may_overwrite=plan.is_in_place),
    )


def _onto_nothing(kind: str, old: AnyHeader, write: Callable[[], object]) -> _Replacement:
    return _Replacement(kind, old, None, old, is_in_place=False, notes=(), write=write)


def _find_luks1(fd: int) -> Luks1Header | None:
    try:
        with locked(fd, exclusive=False):
            return read_header(pread_from(fd), get_size(fd))
    except (FormatError, UnsupportedError):
        return None


def _ask(action: HeaderAction, replacement: _Replacement) -> None:
    """Have it confirmed, and warn of what a cut may do."""
    path, kind, old = action.file.path, replacement.kind, replacement.old
    if replacement.present is None:
        warning = (
            f"Device {path} does not contain {kind} header. Replacing header can destroy data on "
            "that device."
        )
    else:
        warning = (
            f"Device {path} already contains {kind} header. Replacing it removes its keyslots."
        )
        if replacement.present.uuid != old.uuid:
            warning += f"\nIt has UUID {replacement.present.uuid}, the backup {old.uuid}."
    action.confirm(warning, "the header was not restored")
    if replacement.is_in_place:
        action.output.warn(
            f"{path}: there is no room for the old and the new keyslots at once; if this is "
            "interrupted, only backups of the header open the volume"
        )


def _show_plan(action: HeaderAction, replacement: _Replacement) -> None:
    if replacement.present is not None:
        action.show_plan(replacement.present, replacement.after)
        return
    old = replacement.old
    action.show_plan(
        old,
        old,
        f"{action.file.path}: has no {replacement.kind} header that can be read; {old.area_size} "
        "bytes would be overwritten.",
    )
