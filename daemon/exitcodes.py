"""The exit codes: cryptsetup's 0 to 5, then ours. Public and stable."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from ..keystore import errors
from ..keystore.errors import (
    AccessError,
    BusyError,
    ConfigError,
    CoprocessorError,
    EngineMemoryError,
    FormatError,
    MapperError,
    NotFoundError,
    PolicyError,
    UnlockError,
    UnsupportedError,
)


class ExitCode(IntEnum):
    """What a command of fusecrypt returns; the name is what `--json` shows."""

    OK = 0
    WRONG_PARAMETERS = 1
    NO_PERMISSION = 2  # also: bad passphrase
    OUT_OF_MEMORY = 3
    WRONG_DEVICE = 4
    BUSY = 5  # exists, or is in use
    COPROCESSOR_UNAVAILABLE = 6
    HEADER_DAMAGED = 7
    REFUSED_BY_POLICY = 8
    UNSUPPORTED = 9
    PARTLY_DONE = 10
    INTERRUPTED = 130  # SIGINT, as shells report it


_CODES: Final[dict[type[BaseException], ExitCode]] = {
    ConfigError: ExitCode.WRONG_PARAMETERS,
    UnlockError: ExitCode.NO_PERMISSION,
    EngineMemoryError: ExitCode.OUT_OF_MEMORY,
    MemoryError: ExitCode.OUT_OF_MEMORY,
    NotFoundError: ExitCode.WRONG_DEVICE,
    AccessError: ExitCode.WRONG_DEVICE,
    OSError: ExitCode.WRONG_DEVICE,
    BusyError: ExitCode.BUSY,
    CoprocessorError: ExitCode.COPROCESSOR_UNAVAILABLE,
    FormatError: ExitCode.HEADER_DAMAGED,
    PolicyError: ExitCode.REFUSED_BY_POLICY,
    UnsupportedError: ExitCode.UNSUPPORTED,
    KeyboardInterrupt: ExitCode.INTERRUPTED,
}


class ReportedError(MapperError):
    """An error that another process met and reported, with the exit code it chose.

    ``kind`` is the class's name over there (``NoKeyError``), for programs that read `--json`.
    """

    def __init__(self, message: str, exit_code: ExitCode, kind: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.kind = kind


def get_exit_code(error: BaseException) -> ExitCode:
    """The exit code for an error: that of the nearest class in the table; 1 for all others."""
    if isinstance(error, ReportedError):
        return error.exit_code
    for cls in type(error).__mro__:
        if cls in _CODES:
            return _CODES[cls]
    return ExitCode.WRONG_PARAMETERS


def get_kind(error: BaseException) -> str:
    """The name that stands for an error in JSON: its class's, also across the control socket."""
    return error.kind if isinstance(error, ReportedError) else type(error).__name__


def find_error_class(kind: str) -> type[MapperError] | None:
    """The class of our errors that has the name ``kind``, as `get_kind` gives it."""
    cls: object = getattr(errors, kind, None)
    return cls if isinstance(cls, type) and issubclass(cls, MapperError) else None


def parse_exit_code(value: int) -> ExitCode:
    """The code for a number that came over a socket; unknown ones count as 1."""
    try:
        return ExitCode(value)
    except ValueError:
        return ExitCode.WRONG_PARAMETERS
