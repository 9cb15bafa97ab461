"""``luksHeaderBackup``, ``luksHeaderRestore``, ``repair``."""

from __future__ import annotations

from ...dmcrypt.backing import locked, pread_from
from ...dmcrypt.luks1.change import read_whole as read_luks1
from ...dmcrypt.luks2.change import changing, read_locked, read_whole
from ...dmcrypt.luks2.restore import (
    OldFile,
    find_present,
    open_backup,
    plan_restore,
    restore,
    restore_onto_nothing,
)
from ...dmcrypt.probe import probe
from ...keystore.errors import BusyError, ConfigError
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .header_change import HeaderAction, NotConfirmedError, locating, open_header
from .header_luks1 import repair as repair_luks1
from .header_luks1 import restore_from as restore_luks1
from .new_file import write_new_file
from .output import Output
from .source import SourceFile, open_parameter


def run_backup(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Write header and keyslots to a new file.

    Raises:
        ConfigError: the file is there already.
        MapperError: the header cannot be read, or the file not be written.
    """
    path = _get_backup_path(args)
    with open_header(args, settings, output, read_only=True) as action:
        fd = action.file.fd
        with locating(action.file.path), locked(fd, exclusive=False):
            is_luks1 = probe(action.file.pread, action.file.size) == "luks1"
            header, pieces = read_luks1(fd) if is_luks1 else read_whole(fd)
            try:
                write_new_file(path, pieces, "header backup file", mode=0o400)
            except BusyError as error:
                raise ConfigError(str(error)) from None
        also = "" if is_luks1 else "; the backup has two good copies"
        for note in header.notes:
            output.warn(f"{action.file.path}: {note}{also}")
        output.json({"device": action.file.path, "header_backup": path})
    return ExitCode.OK


def run_restore(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Put the header of a backup back.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    with (
        open_parameter(_get_backup_path(args), "header backup file") as file,
        open_header(args, settings, output) as action,
    ):
        try:
            restore_from(action, file)
        except NotConfirmedError as error:  # cryptsetup ends with 1 here, and elsewhere with 2
            raise ConfigError(str(error)) from None
    return ExitCode.OK


def restore_from(action: HeaderAction, file: SourceFile) -> None:
    """Put the header that ``file`` holds back, after a question.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    fd, path = action.file.fd, action.file.path
    kinds = [probe(each.pread, each.size) for each in (file, action.file)]
    if None not in kinds and kinds[0] != kinds[1]:
        raise ConfigError(f"{path}: is {kinds[1]}, the backup {kinds[0]}; wanted: the same type")
    if "luks1" in kinds:
        restore_luks1(action, file)
        return
    with locating(file.path):
        old = open_backup(file.pread, file.size)
    with locating(path):
        present = find_present(fd)
    if present is None:
        _restore_onto_nothing(action, old)
        return
    with locating(path):
        plan = plan_restore(present, old, pread_from(fd))
    warning = f"Device {path} already contains LUKS2 header. Replacing it removes its keyslots."
    if present.uuid != old.header.uuid:
        warning += f"\nIt has UUID {present.uuid}, the backup {old.header.uuid}."
    action.confirm(warning, "the header was not restored")
    if plan.is_in_place:
        action.output.warn(
            f"{path}: the keyslots area has no room for the old and the new keyslots at once; if "
            "this is interrupted, only backups of the header open the volume"
        )
    if action.is_dry:
        action.show_plan(present, plan.header)
        return
    with locating(path):
        restore(fd, old, action.keep, present, may_overwrite=plan.is_in_place)
    action.finish({"uuid": old.header.uuid})


def _restore_onto_nothing(action: HeaderAction, old: OldFile) -> None:
    path = action.file.path
    action.confirm(
        f"Device {path} does not contain LUKS2 header. Replacing header can destroy data on that "
        "device.",
        "the header was not restored",
    )
    if action.is_dry:
        size = old.header.area_size
        note = f"{path}: has no LUKS2 header that can be read; {size} bytes would be overwritten."
        action.show_plan(old.header, old.header, note)
        return
    with locating(path):
        restore_onto_nothing(action.file.fd, old)
    action.finish({"uuid": old.header.uuid})


def run_repair(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Write the good copy of a header over one that is damaged or outdated.

    Raises:
        MapperError: no copy is good; it cannot be written.
    """
    with open_header(args, settings, output) as action:
        fd, path = action.file.fd, action.file.path
        if probe(action.file.pread, action.file.size) == "luks1":
            repair_luks1(action)
            return ExitCode.OK
        with locating(path):
            header = read_locked(fd)
        if not header.is_damaged:
            output.note("No known problems detected for LUKS header.")
            action.finish({"problems": ()})
            return ExitCode.OK
        if action.is_dry:
            action.show_plan(header, header, *header.notes)
            return ExitCode.OK
        with locating(path), changing(fd, action.keep) as change:
            notes = change.header.notes
            change.begin()
        for note in notes:
            output.note(f"Mended: {note}")
        action.finish({"problems": notes})
    return ExitCode.OK


def _get_backup_path(args: Arguments) -> str:
    path = args.text("header-backup-file")
    if path is None:
        raise ConfigError(f"{args.verb}: wanted: --header-backup-file")
    return path
