"""Answers the daemon: one thread a connection, few connections, four kinds of requests.

Nothing in a request but the name of an entry and a number says what is done; all else is in root's
own files and in this process's configuration.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ...dmcrypt.passed_fds import close_fds
from ...keystore.errors import AccessError, ConfigError, MapperError
from .. import password_agent
from ..peer import get_peer
from . import mounting, packets
from .opening import Opened, Opener, get_name

log = logging.getLogger(__name__)

#: The daemon has one connection for the mount, and one for each file it waits for.
_MAX_CONNECTIONS: Final = 64
#: Seconds between attempts to accept a connection when the system is out of descriptors.
_ACCEPT_PAUSE: Final = 0.5
_MAX_CLONES: Final = 16  # what an engine takes


@dataclass(frozen=True, slots=True)
class Client:
    """Whom mountd serves beside root, and to whom it mounts."""

    uid: int
    gid: int


class Server:
    """Serves one listening socket."""

    def __init__(self, client: Client, mount_point: Path, opener: Opener) -> None:
        self._client = client
        self._mount_point = mount_point
        self._opener = opener
        self._slots = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        #: One a connection; each leaves when it is done.
        self.threads: set[threading.Thread] = set()

    def serve(self, listener: socket.socket, *, idle: float | None = None) -> None:
        """Answer until the listener is shut down, or ``idle`` seconds pass without a connection."""
        listener.settimeout(idle)
        while True:
            self._slots.acquire()
            try:
                connection, _ = listener.accept()
            except OSError as error:
                self._slots.release()
                if self._is_end(error):
                    return
                continue
            thread = threading.Thread(target=self._serve_one, args=(connection,), daemon=True)
            self.threads.add(thread)
            thread.start()

    def _is_end(self, error: OSError) -> bool:
        """Whether nothing will be accepted any more; otherwise it may be tried again now."""
        if isinstance(error, TimeoutError):
            return not self.threads
        if error.errno in (errno.EBADF, errno.EINVAL):
            return True  # closed, or shut down
        # No descriptor or memory left: it will be there again when others have finished.
        log.warning("cannot accept: %s", error.strerror)
        time.sleep(_ACCEPT_PAUSE)
        return False

    def _serve_one(self, connection: socket.socket) -> None:
        """One of the places where every error is caught: the others go on being served."""
        session = _Session(self._client, self._mount_point, self._opener, connection)
        try:
            with contextlib.ExitStack() as stack:
                stack.callback(session.wait_for_engine)
                stack.enter_context(connection)  # closed before that
                connection.settimeout(None)
                if self._is_allowed(connection):
                    session.answer_all()
        except (OSError, packets.PacketError) as error:
            log.info("connection closed: %s", error)
        except Exception:
            log.exception("connection failed")
        finally:
            self.threads.discard(threading.current_thread())
            self._slots.release()

    def _is_allowed(self, connection: socket.socket) -> bool:
        peer = get_peer(connection)
        if peer.uid in (0, self._client.uid):
            return True
        log.warning("connection from user %d (pid %d) refused", peer.uid, peer.pid)
        return False


@dataclass(slots=True)
class _Session:
    """One connection, and the mount that was made for it."""

    client: Client
    mount_point: Path
    opener: Opener
    connection: socket.socket
    mount: mounting.Mount | None = None
    engine: int = -1  # read end of a pipe whose other end the engine holds
    _calls: dict[str, Callable[[Mapping[str, object]], Opened]] = field(init=False)

    def __post_init__(self) -> None:
        self._calls = {
            "mount": self._make_mount,
            "mounted": self._note_mounted,
            "unmount": self._unmount,
            "crypttab": lambda _request: self.opener.open_crypttab(),
            "entry": lambda request: self.opener.open_entry(get_name(request)),
            "key": lambda request: self.opener.open_key_file(get_name(request)),
            "ask": self._ask,
        }

    def answer_all(self) -> None:
        """Until the peer hangs up.

        Raises:
            PacketError: what came is no request.
        """
        while True:
            data, _ = packets.receive(self.connection)
            if not data:
                return
            try:
                opened = self._answer(packets.parse(data))
            except packets.PacketError:
                raise
            except MapperError as error:
                log.info("%s", error)
                packets.send(self.connection, packets.pack_error(error))
                continue
            try:
                packets.send(self.connection, packets.pack(opened.content), opened.fds)
            finally:
                close_fds(opened.fds)

    def wait_for_engine(self) -> None:
        """The daemon is gone: the mount goes when the engine is, too."""
        if self.mount is not None:
            poll = select.poll()
            poll.register(self.engine, select.POLLIN)
            poll.poll()
            log.warning("%s: daemon and engine are gone", self.mount_point)
        self._forget()

    def _answer(self, request: Mapping[str, object]) -> Opened:
        call = request.get("call")
        handler = self._calls.get(call) if isinstance(call, str) else None
        if handler is None:
            raise ConfigError("request: no such call")
        try:
            return handler(request)
        except OSError as error:
            raise AccessError(f"{call}: {error}") from None

    def _make_mount(self, request: Mapping[str, object]) -> Opened:
        count = request.get("clones")
        if type(count) is not int or not 0 <= count <= _MAX_CLONES:
            raise ConfigError(f"mount: clones {count!r}; wanted: 0 to {_MAX_CLONES}")
        self._forget()
        engine, engines_end = os.pipe2(os.O_CLOEXEC)
        fds: list[int] = []
        try:
            for _ in range(1 + count):
                fds.append(_open_fuse())  # noqa: PERF401 (what is open is closed on an error)
            self.mount = mounting.mount(self.mount_point, fds[0], self.client.uid, self.client.gid)
        except BaseException:
            close_fds([engine, engines_end, *fds])
            raise
        self.engine = engine
        log.info("%s: mounted for user %d", self.mount_point, self.client.uid)
        connection, *clones = fds
        return Opened({}, (connection, engines_end, *clones))

    def _note_mounted(self, _request: Mapping[str, object]) -> Opened:
        if self.mount is None:
            raise ConfigError("mounted: nothing is")
        return Opened({"read_ahead_kb": self.mount.set_read_ahead()})

    def _unmount(self, _request: Mapping[str, object]) -> Opened:
        self._forget()
        # One that an earlier process of ours made.
        mounting.take_away_all(self.mount_point)
        return Opened({})

    def _forget(self) -> None:
        if self.mount is not None:
            self.mount.take_away()
            self.mount = None
            os.close(self.engine)
            self.engine = -1

    def _ask(self, request: Mapping[str, object]) -> Opened:
        """Ask the console for an entry's passphrase; it comes out of a pipe, unread."""
        entry = self.opener.find_entry(get_name(request))
        command = password_agent.make_command(
            password_agent.PROGRAM,
            entry.question,
            identity=entry.source_path,
            time_limit=entry.options.timeout or 0.0,
        )
        readable, writable = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                asking = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writable)
            except OSError as error:
                raise AccessError(f"{command[0]}: cannot start it: {error.strerror}") from None
            finally:
                os.close(writable)
            return Opened({"status": self._wait(asking)}, (readable,))
        except BaseException:
            os.close(readable)
            raise

    def _wait(self, asking: subprocess.Popen[bytes]) -> int:
        """Its exit status; a question whose asker has hung up is taken back."""
        pidfd = os.pidfd_open(asking.pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self.connection, select.POLLHUP | select.POLLRDHUP)
        try:
            poll.poll()
        finally:
            os.close(pidfd)
            if asking.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    asking.terminate()
        return asking.wait()


def _open_fuse() -> int:
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise AccessError(f"/dev/fuse: {error.strerror}; is the fuse module loaded?") from None
