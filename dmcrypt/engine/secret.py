"""A passphrase or key file that the engine holds."""

from __future__ import annotations

import contextlib
from typing import Self

from ...keystore.errors import EngineError
from . import messages
from .channel import Channel
from .messages import MessageType as Type


class Secret:
    """A passphrase or key file that the engine holds. Leaving the context wipes it there."""

    def __init__(self, channel: Channel, handle: int, length: int) -> None:
        self._channel = channel
        self.handle = handle
        self.length = length  # bytes
        self._is_dropped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def drop(self) -> None:
        """Wipe it in the engine; of a dead engine nothing is left to wipe."""
        if self._is_dropped:
            return
        self._is_dropped = True
        with contextlib.suppress(EngineError):
            self._channel.call(Type.DROP_SECRET, messages.SECRET.pack(self.handle, 0))
