"""Files and block devices that volumes lie in: their size, reads, and cryptsetup's locks."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from ..keystore.errors import AccessError, BusyError
from .units import UINT64_MAX

#: ``pread(offset, length)``: the bytes there, fewer only at the end.
Pread = Callable[[int, int], bytes]

LOCK_TIMEOUT: Final = 10.0  # seconds
_LOCK_POLL: Final = 0.05
#: cryptsetup locks a block device by a file of this directory (lib/utils_device_locking.c).
_LOCK_DIRECTORY: Final = Path("/run/cryptsetup")

_takes_locks: ContextVar[bool] = ContextVar("takes_locks", default=True)


def get_size(fd: int) -> int:
    """Bytes in a regular file or block device.

    Raises:
        AccessError: neither of the two, or the size cannot be had.
    """
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode):
            return os.fstat(fd).st_size
        if stat.S_ISBLK(mode):
            return os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        raise AccessError(f"size of the backing file: {error.strerror}") from error
    raise AccessError("backing file: neither a regular file nor a block device")


def pread_from(fd: int) -> Pread:
    """A `Pread` over a descriptor; the file position is not used.

    The function raises AccessError: the backing store cannot be read.
    """

    def pread(offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        while length:
            try:
                piece = os.pread(fd, length, offset)
            except OSError as error:
                raise AccessError(f"reading byte {offset}: {error.strerror}") from error
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    return pread


def pread_of(data: bytes) -> Pread:
    """A `Pread` over bytes in memory."""
    return lambda offset, length: data[offset : offset + length] if offset <= UINT64_MAX else b""


def pwrite(fd: int, data: bytes, offset: int) -> None:
    """Write all of ``data`` at ``offset``.

    Raises:
        AccessError: the backing store refuses.
    """
    view = memoryview(data)
    while view:
        try:
            written = os.pwrite(fd, view, offset)
        except OSError as error:
            raise AccessError(f"writing byte {offset}: {error.strerror}") from error
        view = view[written:]
        offset += written


def sync(fd: int) -> None:
    """Make what was written last.

    Raises:
        AccessError: the backing store failed to.
    """
    try:
        os.fsync(fd)
    except OSError as error:
        raise AccessError(f"syncing the backing file: {error.strerror}") from error


@contextmanager
def locked(
    fd: int, *, exclusive: bool, timeout: float = LOCK_TIMEOUT, lock_fd: int | None = None
) -> Generator[None, None, None]:
    """Hold cryptsetup's lock of a header: for reading it (shared), or for changing it.

    Held during header operations only: tools that find it taken wait without end. ``lock_fd`` is
    what `open_device_lock` gave somebody who may open it, and stays the caller's. Within
    `without_locks` nothing is held.

    Raises:
        BusyError: another process kept it for ``timeout`` seconds.
        AccessError: no lock can be had on this file.
    """
    if not _takes_locks.get():
        yield
        return
    kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    opened = _open_locked(fd, kind, timeout) if lock_fd is None else None
    if opened is not None:
        try:
            yield
        finally:
            os.close(opened)
        return
    target = fd if lock_fd is None else lock_fd
    _lock(target, kind, timeout)
    try:
        yield
    finally:
        fcntl.flock(target, fcntl.LOCK_UN)


@contextmanager
def without_locks(*, wanted: bool) -> Generator[None, None, None]:
    """If ``wanted``, have this task or thread work at headers without cryptsetup's lock.

    So do the threads that trio starts for it. Nothing keeps two changes apart then: one may be
    lost, or a header be read while it is written.
    """
    token = _takes_locks.set(not wanted and _takes_locks.get())
    try:
        yield
    finally:
        _takes_locks.reset(token)


def open_device_lock(fd: int) -> int | None:
    """The lock file that cryptsetup has for a block device; None for a file, its own lock.

    Raises:
        AccessError: it cannot be opened.
    """
    status = os.fstat(fd)
    if not stat.S_ISBLK(status.st_mode):
        return None
    name = f"L_{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    try:
        _LOCK_DIRECTORY.mkdir(mode=0o700, exist_ok=True)
        return os.open(_LOCK_DIRECTORY / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except PermissionError:
        # Only root can take part in cryptsetup's scheme for devices; the device itself stands in
        # for it.
        return None
    except OSError as error:
        raise AccessError(f"lock file {_LOCK_DIRECTORY / name}: {error.strerror}") from error


def _open_locked(fd: int, kind: int, timeout: float) -> int | None:
    """The lock file of a block device, locked; None for a file."""
    while (opened := open_device_lock(fd)) is not None:
        try:
            _lock(opened, kind, timeout)
            if os.fstat(opened).st_nlink:
                return opened
        except BaseException:
            os.close(opened)
            raise
        # cryptsetup removes the file when it is done with it; who comes next makes another.
        os.close(opened)
    return None


def _lock(fd: int, kind: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                raise AccessError(f"locking the header: {error.strerror}") from error
        else:
            return
        if time.monotonic() >= deadline:
            raise BusyError(
                f"header: locked by another process for {timeout:g} s, wanted a lock to read "
                "or change it"
            )
        time.sleep(_LOCK_POLL)
