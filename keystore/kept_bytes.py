"""A few secret bytes that a process keeps, where neither dumps nor /proc/PID/mem show them."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final

_PAGE: Final = 4096
# asm-generic/unistd.h: memfd_secret(2), on all architectures alike
_MEMFD_SECRET: Final = 447
# linux/mman.h
_MADV_DONTFORK: Final = 10
_MADV_DONTDUMP: Final = 16


class KeptBytes:
    """The bytes, in memory that the kernel itself cannot map, or at least undumped memory."""

    def __init__(self, content: bytearray) -> None:
        """Copies ``content``, which the caller wipes."""
        assert len(content) <= _PAGE
        self._size = len(content)
        self._map = _map_page()
        self._map[: self._size] = memoryview(content)

    def copy(self) -> bytearray:
        """The bytes; the caller wipes them."""
        out = bytearray(self._size)
        with memoryview(self._map) as view:
            out[:] = view[: self._size]
        return out

    def wipe(self) -> None:
        """Forget them."""
        self._map[: self._size] = bytes(self._size)
        self._map.close()


def _map_page() -> mmap.mmap:
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(_MEMFD_SECRET, os.O_CLOEXEC)
    if fd >= 0:
        try:
            os.ftruncate(fd, _PAGE)
            return mmap.mmap(fd, _PAGE)
        except OSError:
            pass  # over RLIMIT_MEMLOCK
        finally:
            os.close(fd)
    page = mmap.mmap(-1, _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in (_MADV_DONTDUMP, _MADV_DONTFORK):
        page.madvise(advice)
    return page
