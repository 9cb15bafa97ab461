"""Bytes that must not stay in memory: fresh random ones, and wiping."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_RANDOM: Final = Path("/dev/urandom")


def make_random(size: int) -> bytearray:
    """Random bytes of the kernel, never held by an immutable object; the caller wipes them."""
    os.getrandom(1)  # waits at boot until the kernel's generator is seeded; /dev/urandom does not
    buffer = bytearray(size)
    with _RANDOM.open("rb", buffering=0) as file:
        if file.readinto(buffer) != size:
            raise OSError(f"{_RANDOM}: fewer than {size} bytes")
    return buffer


def wipe(buffer: bytearray | memoryview) -> None:
    """Overwrite the bytes with zeros, in place."""
    buffer[:] = bytes(len(buffer))


@contextmanager
def wiped(buffer: bytearray) -> Generator[bytearray, None, None]:
    """The buffer for the length of a block, at whose end it is zeros."""
    try:
        yield buffer
    finally:
        wipe(buffer)
