"""The socket to the engine: many calls at once from many threads, each gets its own reply."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ...keystore.errors import EngineError
from ..passed_fds import close_fds, get_fds_space, parse_fds
from .messages import FDS_MAX, HEADER, MESSAGE_MAX, MessageType
from .reports import Event

_GONE: Final = "the engine process is gone"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the engine answered; ``status`` is 0 or a negative errno."""

    status: int
    body: bytes
    fds: tuple[int, ...]


class Channel:
    """Owner of the engine's control socket. `call` may be used from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._pending: dict[int, queue.SimpleQueue[Reply | None]] = {}
        self._next_id = 1
        self._is_closed = False
        self._on_event: Callable[[Event], None] | None = None
        self._early_events: list[Event] = []
        self._reader = threading.Thread(
            target=self._read_replies, name="engine-channel", daemon=True
        )
        self._reader.start()

    def call(self, kind: MessageType, body: bytes = b"", fds: Sequence[int] = ()) -> Reply:
        """Send a request and block until its reply. Descriptors in ``fds`` stay the caller's.

        Raises:
            EngineError: the engine is gone, or the message does not fit.
        """
        if HEADER.size + len(body) > MESSAGE_MAX or len(fds) > FDS_MAX:
            raise EngineError(
                f"message of {len(body)} bytes and {len(fds)} descriptors: "
                f"at most {MESSAGE_MAX - HEADER.size} and {FDS_MAX} are possible"
            )
        answer: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        with self._lock:
            if self._is_closed:
                raise EngineError(_GONE)
            request_id = self._next_id
            # Ids are 32 bits in the message, and 0 is kept for events.
            self._next_id = self._next_id % 0xFFFFFFFF + 1
            self._pending[request_id] = answer
            try:
                socket.send_fds(
                    self._sock, [HEADER.pack(kind, request_id, 0, len(body)), body], list(fds)
                )
            except OSError as error:
                del self._pending[request_id]
                raise EngineError(_GONE) from error
        reply = answer.get()
        if reply is None:
            raise EngineError(_GONE)
        return reply

    def set_event_handler(self, handler: Callable[[Event], None]) -> None:
        """Call ``handler`` for each event, from the channel's own thread; earlier ones at once."""
        with self._lock:
            self._on_event = handler
            early, self._early_events = self._early_events, []
        for event in early:
            handler(event)

    def close(self) -> None:
        """Hang up. Calls under way fail; the engine goes on."""
        with self._lock:
            self._is_closed = True
        with contextlib.suppress(OSError):  # the other side was first
            self._sock.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._sock.close()

    def _read_replies(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    MESSAGE_MAX,
                    get_fds_space(FDS_MAX),
                    socket.MSG_CMSG_CLOEXEC,
                )
            except OSError:
                break
            if len(data) < HEADER.size:
                break
            self._deliver(data, parse_fds(ancillary))
        with self._lock:
            self._is_closed = True
            orphans = list(self._pending.values())
            self._pending.clear()
        for answer in orphans:
            answer.put(None)

    def _deliver(self, data: bytes, fds: list[int]) -> None:
        kind, request_id, status, length = HEADER.unpack_from(data)
        body = data[HEADER.size : HEADER.size + length]
        if kind == MessageType.EVENT:
            event = Event.parse(body)
            with self._lock:
                handler = self._on_event
                if handler is None:
                    self._early_events.append(event)
            if handler is not None:
                handler(event)
            return
        with self._lock:
            answer = self._pending.pop(request_id, None)
        if answer is None:
            close_fds(fds)
            return
        answer.put(Reply(status, body, tuple(fds)))
