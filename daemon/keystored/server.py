"""The life of a keystored: its socket, its clients, and when it ends."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Final

import trio

from ...keystore.errors import AccessError, BusyError
from ..control.protocol import Request
from ..control.server import (
    MAX_CONNECTIONS,
    Method,
    Peer,
    accept,
    listen,
    serve_connection,
)
from ..service import feed_watchdog
from .messages import INTERFACE
from .methods import Methods

log = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: Seconds that a keystored started on demand stays after its last client.
IDLE_TIMEOUT: Final = 60.0
#: Seconds that calls in flight have at the end. SIGTERM ends the process within one.
_DRAIN_TIMEOUT: Final = 5.0
_SIGNAL_DRAIN_TIMEOUT: Final = 0.4


class Life:
    """When this process ends: for `end`, or on demand with its daemons, or for lack of clients."""

    def __init__(self, *, is_on_demand: bool) -> None:
        self.scope = trio.CancelScope()  # of everything that accepts clients
        self.drain_timeout = _DRAIN_TIMEOUT
        self._is_on_demand = is_on_demand
        self._clients = 0
        self._attached = 0
        self._end_after(IDLE_TIMEOUT)

    def end(self, reason: str) -> None:
        """Take no more clients; what runs has a moment to finish."""
        log.info("ending: %s", reason)
        self.scope.cancel()

    @contextlib.contextmanager
    def client(self) -> Generator[Client, None, None]:
        """Count a client as long as it is connected."""
        client = Client()
        self._clients += 1
        self.scope.deadline = float("inf")
        try:
            yield client
        finally:
            self._clients -= 1
            if client.is_attached:
                self._attached -= 1
                if self._attached == 0 and self._is_on_demand:
                    self.end("the daemon hung up")
            if self._clients == 0:
                self._end_after(IDLE_TIMEOUT)

    def attach(self, client: Client) -> None:
        """From now on this client keeps the process alive, and takes it along."""
        if not client.is_attached:
            client.is_attached = True
            self._attached += 1

    def _end_after(self, seconds: float) -> None:
        if self._is_on_demand:
            self.scope.deadline = trio.current_time() + seconds


class Client:
    """One connection."""

    def __init__(self) -> None:
        self.is_attached = False


async def serve(
    listener: socket.socket,
    methods: Methods,
    *,
    is_shared: bool,
    is_on_demand: bool,
    close: Callable[[], None] | None = None,
    task_status: trio.TaskStatus[Life] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer calls until a signal, or until the process is not needed any more.

    Args:
        listener: a listening socket.
        methods: what can be called.
        is_shared: others than this process's user may call, as far as the socket lets them in.
        is_on_demand: it may be started again at any time.
        close: takes the socket's name away, before those who wait are served for the last time.
        task_status: told when calls are answered; what it gets ends the service.
    """
    life = Life(is_on_demand=is_on_demand)
    slots = trio.Semaphore(MAX_CONNECTIONS)

    @contextlib.contextmanager
    def open_session(peer: Peer) -> Generator[Mapping[str, Method] | None, None, None]:
        if not is_shared and not peer.is_owner:
            yield None
            return
        with life.client() as client:

            async def attach(_call: Request) -> Mapping[str, object]:
                await trio.lowlevel.checkpoint()
                life.attach(client)
                return {}

            yield {**methods.get_table(peer), f"{INTERFACE}.Attach": attach}

    async def serve_one(connection: trio.socket.SocketType) -> None:
        try:
            await serve_connection(connection, open_session)
        finally:
            slots.release()

    async with trio.open_nursery() as connections:
        with life.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch_signals, life)
                nursery.start_soon(feed_watchdog, methods.check)
                task_status.started(life)
                acceptor = trio.socket.from_stdlib_socket(listener)
                while True:
                    await slots.acquire()
                    connections.start_soon(serve_one, await accept(acceptor))
        if close is not None:
            close()
            # Nobody can connect any more. Who has, while we made up our mind, is served.
            with contextlib.suppress(BlockingIOError):
                while True:
                    connection, _ = listener.accept()
                    connections.start_soon(serve_one, trio.socket.from_stdlib_socket(connection))
        connections.cancel_scope.deadline = trio.current_time() + life.drain_timeout


@contextlib.contextmanager
def open_listener(path: Path) -> Generator[socket.socket, None, None]:
    """The socket of the one keystored that serves at ``path``; a dead one's is taken away.

    Raises:
        BusyError: another serves there.
        AccessError: the socket cannot be made.
    """
    lock = _lock(path.with_name(f"{path.name}.lock"))
    try:
        path.unlink(missing_ok=True)
        with listen(path) as listener:
            yield listener
    except OSError as error:
        raise AccessError(f"{path}: cannot listen: {error.strerror}") from None
    finally:
        os.close(lock)


def _lock(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise AccessError(f"{path}: cannot lock: {error.strerror}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise BusyError(f"{path.parent}: a keystored already serves here") from None
    return fd


async def _watch_signals(life: Life) -> None:
    with trio.open_signal_receiver(*_SIGNALS) as numbers:
        async for number in numbers:
            life.drain_timeout = _SIGNAL_DRAIN_TIMEOUT
            life.end(signal.Signals(number).name)
