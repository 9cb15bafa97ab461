"""Overwriting what a header or a keyslot area held. Nothing here is synced."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

from ..keystore.errors import AccessError
from .backing import get_size, pwrite
from .extent import Extent

_STEP: Final = 1024 * 1024


def wipe_zeros(fd: int, extent: Extent) -> None:
    """Write zeros.

    Raises:
        AccessError: the backing store refuses.
    """
    _wipe(fd, extent, bytes)


def wipe_random(fd: int, extent: Extent) -> None:
    """Write random bytes, as lie where key material may.

    Raises:
        AccessError: the backing store refuses.
    """
    _wipe(fd, extent, os.urandom)


def wipe_unused(fd: int, begin: int, end: int, used: Iterable[Extent]) -> None:
    """Write random bytes from ``begin`` up to ``end``, wherever nothing of ``used`` lies.

    Raises:
        AccessError: the backing store refuses.
    """
    at = begin
    for extent in [*sorted(used), Extent(end, 0)]:
        if at < extent.offset:
            wipe_random(fd, Extent(at, min(extent.offset, end) - at))
        at = max(at, extent.end)


def grow(fd: int, size: int) -> None:
    """Make a regular file at least ``size`` bytes long, with space that is really there.

    Raises:
        AccessError: there is no such space.
    """
    if get_size(fd) >= size:
        return
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        raise AccessError(f"header: growing the file to {size} bytes: {error.strerror}") from error


def _wipe(fd: int, extent: Extent, make: Callable[[int], bytes]) -> None:
    for at in range(extent.offset, extent.end, _STEP):
        pwrite(fd, make(min(_STEP, extent.end - at)), at)
