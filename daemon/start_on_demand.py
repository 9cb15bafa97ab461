"""A server of a runtime directory: found, or started in the background."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from ..keystore.errors import AccessError, NotFoundError
from .config import Settings, prepare_runtime_dir
from .control.client import NoDaemonError
from .exitcodes import ExitCode, ReportedError, parse_exit_code
from .lock_file import open_lock_file, wait_lock

Connection = TypeVar("Connection")

#: Seconds between the start of a program and its report, on a loaded machine.
_START_TIMEOUT: Final = 60.0

#: What the service manager tells one process only: else READY=1 of a keystored would be its
#: daemon's, too.
_OF_CALLER: Final = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
    }
)


def connect_or_start(
    settings: Settings,
    connect: Callable[[], Connection],
    lock: Path,
    program: str,
    arguments: Sequence[str],
) -> Connection:
    """What ``connect`` returns. If nobody listens, ``program`` is started first.

    Of several callers one starts it, under a flock on the file ``lock``.

    Raises:
        MapperError: there is none and it cannot be started.
    """
    with contextlib.suppress(NoDaemonError):
        return connect()
    prepare_runtime_dir(settings)
    with _locked(lock):
        with contextlib.suppress(NoDaemonError):
            return connect()
        command = [_find_program(program), "--runtime-dir", str(settings.runtime_dir), "--fork"]
        _start([*command, *arguments])
        return connect()


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    fd = open_lock_file(path)
    try:
        wait_lock(fd)
        yield
    finally:
        os.close(fd)


def _start(command: Sequence[str]) -> None:
    """Run a command that goes to the background by itself and says how its start went."""
    name = Path(command[0]).name
    messages = os.memfd_create(name)
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stderr=messages,
            env={name: value for name, value in os.environ.items() if name not in _OF_CALLER},
            timeout=_START_TIMEOUT,
        )
        said = os.pread(messages, 65536, 0).decode(errors="replace").strip()
    except OSError as error:
        raise NotFoundError(f"{command[0]}: cannot start it: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise AccessError(f"{name}: not started after {_START_TIMEOUT:.0f} s") from None
    finally:
        os.close(messages)
    if done.returncode == 0:
        return
    code = parse_exit_code(done.returncode) if done.returncode > 0 else ExitCode.WRONG_PARAMETERS
    last = said.rpartition("\n")[2] or f"status {done.returncode}"
    raise ReportedError(f"cannot start {name}: {last}", code, "DaemonStartError")


def _find_program(name: str) -> str:
    """A program of ours: beside this one, else beside the interpreter, else on the PATH."""
    for directory in (Path(sys.argv[0]).resolve().parent, Path(sys.executable).parent):
        candidate = directory / name
        if os.access(candidate, os.X_OK):
            return str(candidate)
    found = shutil.which(name)
    if found is None:
        raise NotFoundError(f"{name}: not found beside {sys.argv[0]} nor on the PATH")
    return found
