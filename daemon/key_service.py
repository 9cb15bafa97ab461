"""The daemon's keystored: connected to when a secure key is met, and held from then on."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from .keystored.client import Keystore

if TYPE_CHECKING:
    from ..keystore.coprocessor import Transport
    from ..keystore.keys import SecureKey
    from ..keystore.tokens import KeyType
    from .config import Settings


class KeyService:
    """A keystored that lives as long as this daemon needs it. Any thread may call; calls block."""

    def __init__(self, settings: Settings) -> None:
        """Starts nothing: most daemons have no secure keys."""
        self._keystore = Keystore(settings)
        self._attached: socket.socket | None = None
        self._lock = threading.Lock()

    def make_transport(self, key: SecureKey, public_key: bytes) -> Transport:
        """The effective key of a secure key, wrapped for the engine with this public key.

        Raises:
            CoprocessorError: no keystored, no adapter, or none with the right master key.
        """
        self._attach()
        return self._keystore.make_transport(key, public_key)

    def generate(self, key_type: KeyType, *, key_bits: int, xts: bool) -> SecureKey:
        """A random secure key; ``key_bits`` counts one half of an XTS key.

        Raises:
            CoprocessorError: as `make_transport`.
        """
        self._attach()
        return self._keystore.generate(key_type, key_bits=key_bits, xts=xts)

    def close(self) -> None:
        """Let it go: a keystored that was started on demand ends. Does not block."""
        # Whoever has the lock may start a keystored just now; the end of this process ends that.
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._hang_up()
        finally:
            self._lock.release()

    def _attach(self) -> None:
        with self._lock:
            if self._attached is not None and not _is_closed(self._attached):
                return
            self._hang_up()
            self._attached = self._keystore.attach()

    def _hang_up(self) -> None:
        if self._attached is not None:
            self._attached.close()
            self._attached = None


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other end is gone; it never says anything on such a connection."""
    with contextlib.suppress(BlockingIOError):
        try:
            return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except ConnectionError:
            return True
    return False
