"""The runtime directory: one daemon at a time in it, and nothing left of the one before."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Final

from ..keystore.errors import AccessError, BusyError
from .config import Settings
from .lock_file import open_lock_file, try_lock
from .mount import find_device, unmount

log = logging.getLogger(__name__)

#: Processes whose pid is recorded as NAME.pid; the first to be ended is first.
RECORDED: Final = ("engine", "keeper")

#: Seconds that an orphan has after SIGTERM. An engine has to finish its I/O and sync.
_GRACE: Final = 5.0


@contextlib.contextmanager
def own_runtime_dir(settings: Settings) -> Generator[None, None, None]:
    """Be the one daemon of this runtime directory, which is cleared of leftovers first.

    Raises:
        BusyError: another daemon lives there.
        AccessError: the lock cannot be had, or a leftover cannot be taken away.
    """
    lock = _lock(settings.runtime_dir / "lock")
    try:
        clear_leftovers(settings)
        settings.device_dir.mkdir(mode=0o755, exist_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):
            settings.device_dir.rmdir()
        os.close(lock)


def _lock(path: Path) -> int:
    """A descriptor that holds the lock; the file tells our pid to those who come too late."""
    fd = open_lock_file(path)
    if not try_lock(fd):
        owner = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise BusyError(f"{path.parent}: a daemon already serves here (pid {owner or 'unknown'})")
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def clear_leftovers(settings: Settings) -> None:
    """End what a killed daemon left running, and take away its mounts and its socket."""
    for name in RECORDED:
        _end_orphan(settings.runtime_dir / f"{name}.pid")
    # Mounts may lie on top of each other; each unmount takes the topmost. mountd sees to its own.
    while settings.mountd is None and find_device(settings.device_dir) is not None:
        log.warning("%s: taking away the mount of a daemon that is gone", settings.device_dir)
        unmount(settings.device_dir)
    settings.control_socket.unlink(missing_ok=True)


def record_process(settings: Settings, name: str, pid: int) -> None:
    """Note a child of ours, so that a later start can end it if we are killed.

    Not as a service: of that systemd leaves no process, and it may not even look at the engine.
    """
    if settings.mountd is not None:
        return
    path = settings.runtime_dir / f"{name}.pid"
    path.write_text(f"{pid} {_read_start_time(pid)}\n")


def forget_process(settings: Settings, name: str) -> None:
    """It has ended in good order."""
    (settings.runtime_dir / f"{name}.pid").unlink(missing_ok=True)


def find_left_engine(settings: Settings) -> int | None:
    """Pid of an engine that goes on without its daemon; None where there is none to be seen."""
    try:
        pid, start_time = map(int, (settings.runtime_dir / "engine.pid").read_text().split())
        daemon = int((settings.runtime_dir / "lock").read_text())
        words = _read_stat(pid)
    except (OSError, ValueError):
        return None
    if words[0] in "XZ":  # proc(5), field 3: it has ended, and nobody has reaped it
        return None
    # Field 4: the parent. A daemon that is only starting still has its engine.
    return pid if int(words[19]) == start_time and int(words[1]) != daemon else None


def _read_start_time(pid: int) -> int:
    """Clock ticks since boot (proc(5), field 22): with the pid, one process's name for ever."""
    return int(_read_stat(pid)[19])


def _read_stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _end_orphan(record: Path) -> None:
    try:
        pid, start_time = (int(word) for word in record.read_text().split())
    except FileNotFoundError:
        return
    except ValueError:
        log.warning("%s: not a process record, ignored", record)
        record.unlink()
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        record.unlink()
        return
    try:
        # Read after pidfd_open: the pid cannot change its owner any more.
        if _read_start_time(pid) == start_time:
            log.warning("ending pid %d, left over by a daemon that is gone", pid)
            _end(pidfd)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended by itself
    finally:
        os.close(pidfd)
    record.unlink()


def _end(pidfd: int) -> None:
    gone = select.poll()
    gone.register(pidfd, select.POLLIN)
    for number, timeout in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _GRACE)):
        try:
            signal.pidfd_send_signal(pidfd, number)
        except OSError as error:
            if error.errno == errno.ESRCH:
                return
            raise AccessError(f"cannot end a leftover process: {error.strerror}") from error
        if gone.poll(timeout * 1000):
            return
