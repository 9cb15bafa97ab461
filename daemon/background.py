"""Going to the background: the caller waits until the start is over and hears how it went."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn, cast

from ..keystore.errors import MapperError
from .exitcodes import ExitCode, parse_exit_code
from .logs import is_journal

_STDERR: Final = 2

#: Tells the caller the messages and the exit code of the start; only the first call counts.
Report = Callable[[Sequence[str], ExitCode], None]


def open_standard_descriptors() -> None:
    """Open descriptors 0 to 2, so that no other file gets their numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(fd)


def go_background(log_file: Path, program: str = "fusecryptd") -> Report:
    """Return in a child process that has left the terminal; the caller's process waits and exits.

    To be called before there are threads. Standard error becomes ``log_file`` (0600), unless it is
    the journal.
    """
    readable, writable = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(writable)
        _wait_for_report(child, readable, log_file, program)
    os.close(readable)
    os.setsid()
    os.chdir("/")
    _redirect(log_file)

    pipe = os.fdopen(writable, "wb")

    def report(messages: Sequence[str], status: ExitCode) -> None:
        if pipe.closed:
            return  # the caller has gone its way
        data = json.dumps({"messages": list(messages), "status": int(status)}).encode()
        # The caller may have been killed meanwhile.
        with contextlib.suppress(BrokenPipeError), pipe:
            pipe.write(data)

    return report


def _redirect(log_file: Path) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    if is_journal(_STDERR):
        os.dup2(2, 1)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        log = os.open(log_file, flags, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    os.close(null)


def _wait_for_report(child: int, readable: int, log_file: Path, program: str) -> NoReturn:
    def stop(_number: int, _frame: object) -> None:
        os.kill(child, signal.SIGTERM)

    # The child is not in the terminal's foreground: what is typed reaches it through us.
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    with os.fdopen(readable, "rb") as pipe:
        data = pipe.read()
    if not data:
        _say(program, f"ended during its start; see {log_file}")
        os._exit(ExitCode.WRONG_PARAMETERS)
    content = cast("dict[str, object]", json.loads(data))
    for message in cast("list[str]", content["messages"]):
        _say(program, message)
    # Not sys.exit: what is to be cleaned up belongs to the child.
    os._exit(parse_exit_code(cast("int", content["status"])))


def _say(program: str, message: str) -> None:
    # Not by sys.stderr, which is None when descriptor 2 was closed at the start.
    os.write(_STDERR, f"{program}: {message}\n".encode(errors="backslashreplace"))


def open_terminal() -> int | None:
    """The terminal of this process, if it is in the foreground there; the caller closes it."""
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None
    try:
        if os.tcgetpgrp(fd) == os.getpgrp():
            return fd
    except OSError:
        pass
    # In the background a question would only stop us (SIGTTIN).
    os.close(fd)
    return None


def report_nowhere(_messages: Sequence[str], _status: ExitCode) -> None:
    """In the foreground each message has been logged already."""


def describe_error(error: BaseException) -> str:
    """One line for the caller; what nobody expected is in the log at length."""
    text = str(error)
    return text if isinstance(error, MapperError) else f"{type(error).__name__}: {text}"
