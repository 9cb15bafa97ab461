"""What serves the volumes: the mount, and an engine for it, begun and ended together."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..dmcrypt.engine.process import EngineProcess, connect_engine, spawn_engine
from ..dmcrypt.engine.start import StartOptions
from .device_mount import DeviceMount, open_device_mount
from .runtime_dir import forget_process, record_process

if TYPE_CHECKING:
    from .config import Settings

log = logging.getLogger(__name__)

#: Seconds that an engine has for each step of its end.
_DRAIN_TIMEOUT: Final = 1.0
#: Bytes; what the smallest net.core.wmem_max allows. Forwarded messages are far smaller.
_SESSION_BUFFER: Final = 212992


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves the volumes: an engine, our end of its session, and its mount."""

    process: EngineProcess
    session: socket.socket
    mount: DeviceMount


@contextlib.contextmanager
def open_engine(settings: Settings) -> Generator[Serving, None, None]:
    """The mount and the engine that serves it, with our end of its session.

    Raises:
        MapperError: one of them does not come about.
    """
    with open_device_mount(settings) as made:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SESSION_BUFFER)
        with ours:
            with theirs:
                process = _start(settings, made, theirs.fileno())
            made.hand_over()
            record_process(settings, "engine", process.pid)
            try:
                yield Serving(process, ours, made)
            finally:
                _end(process)
                forget_process(settings, "engine")


def _start(settings: Settings, made: DeviceMount, session_fd: int) -> EngineProcess:
    """A child, or a process of its own unit and user."""
    options = StartOptions(
        threads=settings.engine_threads or 0,
        fuse_fd=made.fuse_fd,
        session_fd=session_fd,
        lifetime_fd=made.lifetime_fd,
        clone_fds=tuple(made.clone_fds),
    )
    if settings.engine is not None:
        return connect_engine(settings.engine, options)
    return spawn_engine(options)


def _end(process: EngineProcess) -> None:
    """It has shut down by now, unless its I/O hangs or something went wrong here."""
    if process.is_unit:
        _end_unit(process)
        return
    for ask in (process.close, process.terminate):
        ask()
        try:
            process.wait(_DRAIN_TIMEOUT)
        except subprocess.TimeoutExpired:
            continue
        return
    log.warning("the engine (pid %d) does not end, killed", process.pid)
    process.kill()
    process.wait()


def _end_unit(process: EngineProcess) -> None:
    """It is another user's: it can be asked, and systemd ends it together with our own unit."""
    process.terminate()
    try:
        process.wait(2 * _DRAIN_TIMEOUT)
    except subprocess.TimeoutExpired:
        log.warning("the engine (pid %d) does not end, left to systemd", process.pid)
    process.close()
