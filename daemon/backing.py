"""The file or device that a volume lies in: which it is, and whether it is ours alone."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..dmcrypt.plain import Placement, get_length
from ..dmcrypt.units import SECTOR_SIZE
from ..keystore.errors import (
    AccessError,
    BusyError,
    ConfigError,
    NotFoundError,
    UnsupportedError,
)

log = logging.getLogger(__name__)

# struct flock of fcntl(2) for 64-bit offsets: type, whence, start, len, pid.
_FLOCK: Final = struct.Struct("hhqqi4x")
#: Seconds in which the lock of one who has just let go may still be seen; and between two looks.
_LOCK_PATIENCE: Final = 0.3
_LOCK_PAUSE: Final = 0.02


@dataclass(frozen=True, slots=True)
class DataArea:
    """The bytes of a backing file that a volume reads and, unless read-only, writes."""

    device: int  # st_dev, or st_rdev of a block device
    inode: int  # 0 for a block device
    start: int  # bytes
    end: int  # bytes; the first that is not in it
    is_read_only: bool
    more: tuple[DataArea, ...] = ()  # of a table that has several

    def conflicts(self, other: DataArea) -> bool:
        """Whether both cannot be open: they overlap, and one of them is written."""
        return any(
            _conflict(one, another)
            for one in (self, *self.more)
            for another in (other, *other.more)
        )


def _conflict(one: DataArea, other: DataArea) -> bool:
    return (
        (one.device, one.inode) == (other.device, other.inode)
        and one.start < other.end
        and other.start < one.end
        and not (one.is_read_only and other.is_read_only)
    )


def refuse_own(status: os.stat_result, path: str, own_device: int) -> None:
    """Refuse a file of the daemon's own mount: engine and daemon would wait for themselves.

    Raises:
        UnsupportedError: it is one.
    """
    if status.st_dev == own_device:
        raise UnsupportedError(
            f"{path}: is a volume of this daemon, which cannot hold another of its own;"
            " a daemon with another --runtime-dir can open it"
        )


def check_descriptor(fd: int, path: str, *, is_read_only: bool) -> int:
    """Size in bytes of the file or block device behind ``fd``, which must suit its use.

    Raises:
        NotFoundError: it is neither a file nor a block device.
        AccessError: it is not open for reading, or for writing where that is needed.
    """
    status = os.fstat(fd)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise NotFoundError(f"{path}: is neither a regular file nor a block device")
    mode = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_PATH)
    if mode & os.O_PATH or mode & os.O_ACCMODE == os.O_WRONLY:
        raise AccessError(f"{path}: not open for reading")
    if not is_read_only and mode != os.O_RDWR:
        raise AccessError(f"{path}: not open for writing; give --readonly to read it")
    return os.lseek(fd, 0, os.SEEK_END) if stat.S_ISBLK(status.st_mode) else status.st_size


def get_data_length(params: Placement, size: int, path: str) -> int:
    """Bytes of a volume without a header on a file of ``size`` bytes.

    Raises:
        AccessError, ConfigError: as `plain.get_length`, naming the file.
    """
    try:
        return get_length(params, size)
    except (AccessError, ConfigError) as error:
        raise type(error)(f"{path}: {error}") from None


def get_data_area(fd: int, start: int, length: int, *, is_read_only: bool) -> DataArea:
    """The area of ``length`` bytes from byte ``start`` of the file behind ``fd``."""
    status = os.fstat(fd)
    end = start + length
    if stat.S_ISBLK(status.st_mode):
        return DataArea(status.st_rdev, 0, start, end, is_read_only)
    return DataArea(status.st_dev, status.st_ino, start, end, is_read_only)


def lock_data_area(fd: int, area: DataArea, path: str) -> None:
    """Keep every other writer out, of this daemon or another, as long as the description is open.

    The lock belongs to the open file description: it goes to the engine with the descriptor. Blocks
    for a moment, because copies of a descriptor that was just closed may still be on their way.

    Raises:
        BusyError: somebody has the area open; readers may share it.
    """
    kind = fcntl.F_RDLCK if area.is_read_only else fcntl.F_WRLCK
    request = _FLOCK.pack(kind, os.SEEK_SET, area.start, area.end - area.start, 0)
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                # NFS without lockd, some FUSE file systems.
                log.warning("%s: cannot be locked against writers: %s", path, error.strerror)
                return
            if time.monotonic() > deadline:
                raise BusyError(
                    f"{path}: is open already, in another process (fusecrypt list shows it if it"
                    " is a volume of yours)"
                ) from None
            time.sleep(_LOCK_PAUSE)
        else:
            return


class BackingFile:
    """Keeps an eye on the file behind a volume, without keeping its locks or contents."""

    def __init__(self, fd: int, path: str) -> None:
        # O_PATH: a description of its own, so that the engine's locks end with the engine's copy.
        self._fd = os.open(f"/proc/self/fd/{fd}", os.O_PATH | os.O_CLOEXEC)
        self._path = path
        self._was_deleted = False

    def is_deleted(self) -> bool:
        """Whether the file has no name any more. Logged once. May block; may come after `close`."""
        try:
            is_deleted = os.fstat(self._fd).st_nlink == 0
        except OSError:
            return False  # closed meanwhile
        if is_deleted and not self._was_deleted:
            log.warning("%s: deleted or replaced while open: its contents end with it", self._path)
        self._was_deleted = is_deleted
        return is_deleted

    def get_size(self) -> int:
        """Bytes it has now. May block.

        Raises:
            AccessError: they cannot be had.
        """
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISBLK(status.st_mode):
                return status.st_size
            # sysfs(5): sectors of 512 bytes whatever the device's own are.
            numbers = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
            return int(Path(f"/sys/dev/block/{numbers}/size").read_text()) * SECTOR_SIZE
        except OSError as error:
            raise AccessError(f"{self._path}: size: {error.strerror}") from None

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)
        self._fd = -1
