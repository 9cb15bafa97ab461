"""``header history``, ``diff``, ``restore``, ``forget``: the old headers that were kept."""

from __future__ import annotations

from ...dmcrypt.luks_change import AnyHeader
from ...dmcrypt.luks_header import read_luks_header
from ...dmcrypt.volume_uuid import parse_uuid
from ...keystore.errors import ConfigError, FormatError
from ..config import Settings
from ..exitcodes import ExitCode
from ..header_history import Backup, HeaderHistory
from .arguments import Arguments
from .header_change import HeaderAction, diff_headers, open_header
from .header_restore import restore_from
from .locating import locating
from .output import Output, format_table
from .source import open_for_reading


def run_history(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """List the old headers of a volume.

    Raises:
        MapperError: the volume cannot be told.
    """
    history = HeaderHistory(settings.state_dir)
    with open_header(args, settings, output, read_only=True) as action:
        uuid = _get_uuid(action)
    backups = history.list_backups(uuid)
    rows = [("N", "REPLACED", "EPOCH", "BY", "FILE")]
    rows += [
        (str(number), _show_time(backup), str(backup.epoch), backup.reason, str(backup.path))
        for number, backup in enumerate(backups, 1)
    ]
    if backups:
        for line in format_table(rows):
            output.line(line)
    else:
        output.note(f"No headers of {uuid} were kept.")
    output.json({"uuid": uuid, "headers": [_to_json(n, b) for n, b in enumerate(backups, 1)]})
    return ExitCode.OK


def run_diff(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Show what differs between an old header and the present one.

    Raises:
        MapperError: one of the two cannot be read.
    """
    with open_header(args, settings, output, read_only=True) as action:
        backup = _get_backup(action, HeaderHistory(settings.state_dir), args)
        with locating(action.file.path):
            present = read_luks_header(action.file.pread, action.file.size)
    lines = diff_headers(_read(backup), present, action.file.path)
    for line in lines:
        output.line(line)
    output.json({"header": str(backup.path), "changes": lines})
    return ExitCode.OK


def run_restore(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Put an old header back.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    with open_header(args, settings, output) as action:
        backup = _get_backup(action, HeaderHistory(settings.state_dir), args)
        with open_for_reading(str(backup.path), "header") as file:
            restore_from(action, file)
    return ExitCode.OK


def run_forget(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Overwrite and remove one old header, or all of them.

    Raises:
        MapperError: why not.
    """
    history = HeaderHistory(settings.state_dir)
    with open_header(args, settings, output, read_only=True) as action:
        if len(args.positionals) > 1:
            backups = [_get_backup(action, history, args)]
        else:
            backups = history.list_backups(_get_uuid(action))
        names = [str(backup.path) for backup in backups]
        if args.has("dry-run"):
            for name in names:
                output.line(f"{name} would be removed.")
            output.json({"dry_run": True, "headers": names})
            return ExitCode.OK
        if names:
            action.confirm(
                f"This removes {len(names)} old headers of {action.file.path} for ever.",
                "nothing was removed",
            )
        for backup in backups:
            history.remove(backup)
            output.note(f"{backup.path} removed.")
        output.json({"removed": names})
    return ExitCode.OK


def _get_uuid(action: HeaderAction) -> str:
    """The UUID that is given, or the header's."""
    given = action.args.text("uuid")
    if given is not None:
        return parse_uuid(given)
    try:
        with locating(action.file.path):
            return read_luks_header(action.file.pread, action.file.size).uuid
    except FormatError as error:
        raise type(error)(f"{error}; --uuid names the volume") from None


def _get_backup(action: HeaderAction, history: HeaderHistory, args: Arguments) -> Backup:
    text = args.positionals[1] if len(args.positionals) > 1 else "1"
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"header {text!r}: wanted: a number, 1 being the newest")
    return history.get_backup(_get_uuid(action), int(text))


def _read(backup: Backup) -> AnyHeader:
    with open_for_reading(str(backup.path), "header") as file, locating(file.path):
        return read_luks_header(file.pread, file.size)


def _show_time(backup: Backup) -> str:
    return backup.time.strftime("%Y-%m-%d %H:%M:%S UTC")


def _to_json(number: int, backup: Backup) -> dict[str, object]:
    return {
        "number": number,
        "replaced": backup.time.isoformat(),
        "epoch": backup.epoch,
        "reason": backup.reason,
        "path": str(backup.path),
    }
