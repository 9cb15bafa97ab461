"""Clear keys and passphrases in this process: read from a descriptor, wiped afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Generator
from typing import Final

from ...keystore.errors import AccessError, ConfigError

#: Seconds in which the one who passed the descriptor has to have written.
_TIMEOUT: Final = 5.0


@contextlib.contextmanager
def read_secret(fd: int, what: str, *, limit: int) -> Generator[bytearray, None, None]:
    """All that a descriptor yields, at most ``limit`` bytes; overwritten at the end. Blocks.

    Raises:
        ConfigError: nothing, or more.
        AccessError: it cannot be read, or not in time.
    """
    room = bytearray(limit + 1)  # never resized: a resize would leave a copy behind
    secret = bytearray()
    try:
        length = _read(fd, what, room)
        if not 0 < length <= limit:
            got = "nothing" if length == 0 else f"more than {limit} bytes"
            raise ConfigError(f"{what}: got {got}; wanted: 1 to {limit} bytes")
        secret = bytearray(length)
        with memoryview(room) as view:
            secret[:] = view[:length]
        yield secret
    finally:
        for buffer in (room, secret):
            buffer[:] = bytes(len(buffer))


def _read(fd: int, what: str, room: bytearray) -> int:
    deadline = time.monotonic() + _TIMEOUT
    waiter = select.poll()
    waiter.register(fd, select.POLLIN)
    length = 0
    try:
        with memoryview(room) as view:
            while length < len(view):
                if not waiter.poll(max(deadline - time.monotonic(), 0) * 1000):
                    raise AccessError(f"{what}: not there after {_TIMEOUT:.0f} s")
                count = os.readv(fd, [view[length:]])
                if count == 0:
                    break
                length += count
    except OSError as error:
        raise AccessError(f"{what}: cannot read it: {error.strerror}") from None
    return length
