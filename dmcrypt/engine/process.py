"""Start an engine process and connect to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...keystore.errors import EngineError
from .client import Engine

#: Argon2 memory that a keyslot may ask for, in KiB: cryptsetup's own ceiling (4 GiB).
KDF_MEMORY_LIMIT_KIB: Final = 4 << 20

_MODULE: Final = f"{__package__}"


@dataclass(slots=True)
class EngineProcess:
    """An engine and the connection to it. The one who spawned it ends it."""

    pid: int
    pidfd: int
    engine: Engine
    _child: subprocess.Popen[bytes]

    def wait(self, timeout: float | None = None) -> int:
        """Exit status once the process has ended; negative: the signal.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout`` seconds.
        """
        return self._child.wait(timeout)

    def terminate(self) -> None:
        """Ask it to flush everything and end (SIGTERM)."""
        self._child.terminate()

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self._child.kill()

    def close(self) -> None:
        """Hang up; the process goes on serving until it is ended."""
        self.engine.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def spawn_engine(
    *,
    fuse_fd: int | None = None,
    session_fd: int | None = None,
    clone_fds: Sequence[int] = (),
    lifetime_fd: int | None = None,
    threads: int | None = None,
    kdf_memory_kib: int = KDF_MEMORY_LIMIT_KIB,
) -> EngineProcess:
    """An engine that has passed its self-test and closed its sandbox.

    ``fuse_fd`` is a mounted connection of /dev/fuse and ``session_fd`` the engine's end of the pair
    that stands in for it at pyfuse3; ``clone_fds`` are further open descriptors of /dev/fuse, to be
    made clones where the process may not open it itself. ``lifetime_fd`` is merely kept open while
    the engine lives. The caller closes its own copies afterwards. Without ``fuse_fd`` the engine
    serves keyslot operations only.

    Raises:
        EngineError: it did not start; its own last words are the reason.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arguments = ["--control-fd", str(theirs.fileno()), "--kdf-memory", str(kdf_memory_kib)]
    keep = [theirs.fileno()]
    if fuse_fd is not None and session_fd is not None:
        arguments += ["--fuse-fd", str(fuse_fd), "--session-fd", str(session_fd)]
        keep += [fuse_fd, session_fd]
    for fd in clone_fds:
        arguments += ["--clone-fd", str(fd)]
        keep.append(fd)
    if lifetime_fd is not None:
        arguments += ["--lifetime-fd", str(lifetime_fd)]
        keep.append(lifetime_fd)
    if threads is not None:
        arguments += ["--threads", str(threads)]
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


def _reap(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
        child.wait()
