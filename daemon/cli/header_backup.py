"""``luksHeaderBackup`` and ``luksHeaderRestore``."""

from __future__ import annotations

from ...dmcrypt.backing import locked
from ...dmcrypt.luks1.change import read_whole as read_luks1
from ...dmcrypt.luks2.change import read_whole as read_luks2
from ...dmcrypt.probe import probe
from ...keystore.errors import BusyError, ConfigError
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .header_change import NotConfirmedError, open_header
from .header_restore import restore_from
from .locating import locating
from .new_file import write_new_file
from .output import Output
from .source import open_parameter


def run_backup(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Write header and keyslots to a new file.

    Raises:
        ConfigError: the file is there already.
        MapperError: the header cannot be read, or the file not be written.
    """
    path = args.get_text("header-backup-file")
    with open_header(args, settings, output, read_only=True) as action:
        fd = action.file.fd
        with locating(action.file.path), locked(fd, exclusive=False):
            is_luks1 = probe(action.file.pread, action.file.size) == "luks1"
            header, pieces = read_luks1(fd) if is_luks1 else read_luks2(fd)
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
        open_parameter(args.get_text("header-backup-file"), "header backup file") as file,
        open_header(args, settings, output) as action,
    ):
        try:
            restore_from(action, file)
        except NotConfirmedError as error:  # cryptsetup ends with 1 here, and elsewhere with 2
            raise ConfigError(str(error)) from None
    return ExitCode.OK
