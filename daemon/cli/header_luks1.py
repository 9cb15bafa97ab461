"""``luksHeaderRestore`` and ``repair`` of LUKS1 headers."""

from __future__ import annotations

from ...dmcrypt.backing import get_size, locked, pread_from
from ...dmcrypt.luks1 import Luks1Header, read_header
from ...dmcrypt.luks1.restore import (
    OldFile,
    mend_header,
    open_backup,
    plan_restore,
    restore,
    restore_onto_nothing,
)
from ...keystore.errors import FormatError, UnsupportedError
from .header_change import HeaderAction, locating
from .source import SourceFile


def restore_from(action: HeaderAction, file: SourceFile) -> None:
    """Put the LUKS1 header that ``file`` holds back, after a question.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    fd, path = action.file.fd, action.file.path
    with locating(file.path):
        old = open_backup(file.pread, file.size)
    with locating(path):
        present = _find_present(fd)
    if present is None:
        _restore_onto_nothing(action, old)
        return
    with locating(path):
        plan = plan_restore(present, old, pread_from(fd))
    warning = f"Device {path} already contains LUKS1 header. Replacing it removes its keyslots."
    if present.uuid != old.header.uuid:
        warning += f"\nIt has UUID {present.uuid}, the backup {old.header.uuid}."
    action.confirm(warning, "the header was not restored")
    if plan.is_in_place:
        action.output.warn(
            f"{path}: there is no room for the old and the new keyslots at once; if this is "
            "interrupted, only backups of the header open the volume"
        )
    if action.is_dry:
        action.show_plan(present, plan.header)
        return
    with locating(path):
        restore(fd, old, action.keep, present, may_overwrite=plan.is_in_place)
    for number, target in plan.added:
        if number != target:
            action.output.note(f"Key slot {number} of the backup is key slot {target} now.")
    action.finish({"uuid": old.header.uuid})


def repair(action: HeaderAction) -> None:
    """Mend the keyslots that are not in use.

    Raises:
        MapperError: what is wrong cannot be mended so.
    """
    path = action.file.path
    with locating(path):
        notes = mend_header(action.file.fd, action.keep, dry_run=True)
    if not notes:
        action.output.note("No known problems detected for LUKS header.")
        action.finish({"problems": ()})
        return
    action.confirm(
        "Really try to repair LUKS device header?\n" + "\n".join(notes), "nothing was repaired"
    )
    if action.is_dry:
        for note in notes:
            action.output.line(note)
        action.output.line("Dry run: nothing was written.")
        action.output.json({"device": path, "dry_run": True, "notes": notes})
        return
    with locating(path):
        notes = mend_header(action.file.fd, action.keep)
    for note in notes:
        action.output.note(f"Mended: {note}")
    action.finish({"problems": notes})


def _find_present(fd: int) -> Luks1Header | None:
    try:
        with locked(fd, exclusive=False):
            return read_header(pread_from(fd), get_size(fd))
    except (FormatError, UnsupportedError):
        return None


def _restore_onto_nothing(action: HeaderAction, old: OldFile) -> None:
    path = action.file.path
    action.confirm(
        f"Device {path} does not contain LUKS1 header. Replacing header can destroy data on that "
        "device.",
        "the header was not restored",
    )
    if action.is_dry:
        size = old.header.area_size
        note = f"{path}: has no LUKS1 header that can be read; {size} bytes would be overwritten."
        action.show_plan(old.header, old.header, note)
        return
    with locating(path):
        restore_onto_nothing(action.file.fd, old)
    action.finish({"uuid": old.header.uuid})
