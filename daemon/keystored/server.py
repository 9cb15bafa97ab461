"""The life of a keystored: its socket, its clients, and when it ends."""

from __future__ import annotations

import contextlib
import functools
import logging
import signal
import socket
from collections.abc import Generator, Mapping
from typing import Final

import trio

from ..control.protocol import Request
from ..control.server import (
    MAX_CONNECTIONS,
    Method,
    accept,
    serve_connection,
)
from ..peer import Peer
from ..service import feed_watchdog
from .messages import INTERFACE
from .methods import Methods
from .place import Place

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
    place: Place | None = None,
    task_status: trio.TaskStatus[Life] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer calls until a signal, or until the process is not needed any more.

    Args:
        listener: a listening socket.
        methods: what can be called.
        is_shared: others than this process's user may call, as far as the socket lets them in.
        is_on_demand: it may be started again at any time.
        place: where it listens; free for another before those who wait are served.
        task_status: told when calls are answered; what it gets ends the service.
    """
    life = Life(is_on_demand=is_on_demand)
    slots = trio.Semaphore(MAX_CONNECTIONS)
    open_session = functools.partial(_open_session, life, methods, is_shared)

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
        if place is not None:
            place.leave()
            # Nobody can connect any more. Who has, while we made up our mind, is served.
            for connection in _accept_waiting(listener):
                connections.start_soon(serve_one, trio.socket.from_stdlib_socket(connection))
        connections.cancel_scope.deadline = trio.current_time() + life.drain_timeout


@contextlib.contextmanager
def _open_session(
    life: Life,
    methods: Methods,
    is_shared: bool,  # noqa: FBT001 (for a partial)
    peer: Peer,
) -> Generator[Mapping[str, Method] | None, None, None]:
    """What a peer may call while it is connected, and so a client; None: nothing at all."""
    if not is_shared and not peer.is_owner:
        yield None
        return
    with life.client() as client:

        async def attach(_call: Request) -> Mapping[str, object]:
            await trio.lowlevel.checkpoint()
            life.attach(client)
            return {}

        yield {**methods.get_table(peer), f"{INTERFACE}.Attach": attach}


def _accept_waiting(listener: socket.socket) -> Generator[socket.socket, None, None]:
    """Those who have connected already; does not wait for more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield listener.accept()[0]


async def _watch_signals(life: Life) -> None:
    with trio.open_signal_receiver(*_SIGNALS) as numbers:
        async for number in numbers:
            life.drain_timeout = _SIGNAL_DRAIN_TIMEOUT
            life.end(signal.Signals(number).name)
