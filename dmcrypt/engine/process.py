"""Start an engine process, or have systemd start one, and connect to it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...keystore.errors import EngineError
from .client import Engine
from .start import UNIT_STARTED, StartOptions

_MODULE: Final = f"{__package__}"
#: Seconds in which systemd has to have started one; at boot there is much to be done.
_UNIT_TIMEOUT: Final = 60.0
_UCRED: Final = struct.Struct("3i")
_LAST_WORDS: Final = 4096


@dataclass(slots=True)
class EngineProcess:
    """An engine and the connection to it. The one who spawned it ends it, or systemd does."""

    pid: int
    pidfd: int
    engine: Engine
    _child: subprocess.Popen[bytes] | None  # None: a unit's process, of another user

    @property
    def is_unit(self) -> bool:
        """Whether systemd started it, and alone can end it."""
        return self._child is None

    def wait(self, timeout: float | None = None) -> int | None:
        """Exit status once the process has ended; negative: the signal. None: only systemd knows.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        if self._child is not None:
            return self._child.wait(timeout)
        ended = select.poll()
        ended.register(self.pidfd, select.POLLIN)
        if not ended.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired("fusecrypt-engine", timeout or 0)
        return None

    def terminate(self) -> None:
        """Ask it to flush everything and end: by SIGTERM, or a unit's process by message."""
        if self._child is not None:
            self._child.terminate()
        else:
            # The answer may take as long as its I/O.
            threading.Thread(target=self._ask_to_end, daemon=True).start()

    def kill(self) -> None:
        """End it at once (SIGKILL), if it is not a unit's."""
        if self._child is not None:
            self._child.kill()

    def _ask_to_end(self) -> None:
        with contextlib.suppress(EngineError):  # it has ended
            self.engine.shutdown()

    def close(self) -> None:
        """Hang up; the process goes on serving until it is ended."""
        self.engine.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def spawn_engine(options: StartOptions | None = None) -> EngineProcess:
    """An engine that has passed its self-test and closed its sandbox.

    It gets a control socket of its own. The caller closes its copies of the other descriptors
    afterwards.

    Raises:
        EngineError: it did not start; its own last words are the reason.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    options = (options or StartOptions())._replace(control_fd=theirs.fileno())
    arguments, keep = options.make_arguments()
    # A pipe for the last words of an engine that refuses to start; a running one writes nothing.
    said, says = os.pipe2(os.O_CLOEXEC)
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", _MODULE, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=says,
            pass_fds=keep,
            # Bound late, a call saves the vector registers, keys in them, on the stack.
            env={**os.environ, "LD_BIND_NOW": "1"},
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        os.close(said)
        raise EngineError(f"engine: cannot start {sys.executable}: {error.strerror}") from error
    finally:
        theirs.close()
        os.close(says)
    pidfd = os.pidfd_open(child.pid)
    try:
        engine = Engine(ours)
    except EngineError as error:
        _reap(child)
        os.close(pidfd)
        words = os.read(said, 4096).decode(errors="replace").strip()
        raise EngineError(f"engine did not start: {words or error}") from error
    finally:
        os.close(said)
    return EngineProcess(child.pid, pidfd, engine, child)


def connect_engine(path: Path, options: StartOptions | None = None) -> EngineProcess:
    """As `spawn_engine`, by the socket at ``path`` for whose connections systemd starts engines.

    Raises:
        EngineError: none started; its own last words are the reason.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection, theirs:
        options = (options or StartOptions())._replace(control_fd=theirs.fileno())
        try:
            pid = _start_unit(connection, path, options)
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            ours.close()
            reason = error.strerror or "does not start"
            raise EngineError(f"engine at {path}: {reason}{_last_words(connection)}") from error
        theirs.close()
        try:
            engine = Engine(ours)
        except EngineError as error:
            os.close(pidfd)
            words = _last_words(connection)
            raise EngineError(f"engine did not start{words or f': {error}'}") from error
    return EngineProcess(pid, pidfd, engine, None)


def _start_unit(connection: socket.socket, path: Path, options: StartOptions) -> int:
    """The pid of the process that got the options.

    Raises:
        OSError: there is none.
    """
    connection.settimeout(_UNIT_TIMEOUT)
    connection.connect(str(path))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    data, fds = options.pack()
    socket.send_fds(connection, [data], fds)
    answer, ancillary, _, _ = connection.recvmsg(
        _LAST_WORDS, socket.CMSG_SPACE(_UCRED.size), socket.MSG_CMSG_CLOEXEC | socket.MSG_PEEK
    )
    if answer != UNIT_STARTED:
        raise OSError(0, "did not start")
    connection.recv(_LAST_WORDS)
    pid = next(
        _UCRED.unpack(payload)[0]
        for level, kind, payload in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    )
    assert isinstance(pid, int)
    return pid


def _last_words(connection: socket.socket) -> str:
    """What an engine's unit said before it ended, behind a colon; nothing if it said nothing."""
    connection.settimeout(1)
    words = b""
    with contextlib.suppress(OSError):
        while data := connection.recv(_LAST_WORDS):
            words += data
    text = words.decode(errors="replace").strip()
    return f": {text}" if text else ""


def _reap(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
