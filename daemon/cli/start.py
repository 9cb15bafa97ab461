"""The daemon of a runtime directory: found, or started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from ...keystore.errors import AccessError, NotFoundError
from ..config import Settings, prepare_runtime_dir
from ..control.client import ControlClient, NoDaemonError
from ..exitcodes import ExitCode, ReportedError, parse_exit_code

_PROGRAM = "fusecryptd"


def connect_or_start(settings: Settings, *, crypttab: str | None = None) -> ControlClient:
    """A connection to the daemon, which is started if none runs.

    A daemon started so opens no crypttab entry by itself. Of several callers one starts it.

    Raises:
        MapperError: there is none and it cannot be started.
    """
    with contextlib.suppress(NoDaemonError):
        return ControlClient(settings.control_socket)
    prepare_runtime_dir(settings)
    with _lock(settings.start_lock):
        with contextlib.suppress(NoDaemonError):
            return ControlClient(settings.control_socket)
        _start(settings, crypttab)
        return ControlClient(settings.control_socket)


@contextlib.contextmanager
def _lock(path: Path) -> Generator[None, None, None]:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise AccessError(f"{path}: cannot lock it: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _start(settings: Settings, crypttab: str | None) -> None:
    command = [_find_program(), "--runtime-dir", str(settings.runtime_dir), "--fork"]
    command.append("--no-crypttab")
    if crypttab is not None:
        command += ["--crypttab", os.path.abspath(crypttab)]  # noqa: PTH100 - keeps symlinks
    messages = os.memfd_create(_PROGRAM)
    try:
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stderr=messages)
        said = os.pread(messages, 65536, 0).decode(errors="replace").strip()
    except OSError as error:
        raise NotFoundError(f"{command[0]}: cannot start it: {error.strerror}") from None
    finally:
        os.close(messages)
    if done.returncode == 0:
        return
    code = parse_exit_code(done.returncode) if done.returncode > 0 else ExitCode.WRONG_PARAMETERS
    last = said.rpartition("\n")[2] or f"status {done.returncode}"
    raise ReportedError(f"cannot start a daemon: {last}", code, "DaemonStartError")


def _find_program() -> str:
    """The daemon's program: beside this one, else beside the interpreter, else on the PATH."""
    for directory in (Path(sys.argv[0]).resolve().parent, Path(sys.executable).parent):
        candidate = directory / _PROGRAM
        if os.access(candidate, os.X_OK):
            return str(candidate)
    found = shutil.which(_PROGRAM)
    if found is None:
        raise NotFoundError(f"{_PROGRAM}: not found beside {sys.argv[0]} nor on the PATH")
    return found
