"""Files and devices that the command line names, opened with the caller's own rights."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from ...dmcrypt.backing import Pread, get_size, pread_from
from ...keystore.errors import AccessError, BusyError, ConfigError, NotFoundError
from ..device_spec import resolve_device_spec

#: What helps with what may not be written, of the actions that have the option.
READONLY_HINT: Final = "--readonly opens it for reading"

# linux/fs.h: _IO(0x12, 94), whether a block device is read-only.
_BLKROGET: Final = 0x125E


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An image or device that was opened here."""

    fd: int
    path: str  # absolute
    is_read_only: bool

    @property
    def pread(self) -> Pread:
        """Reads from it."""
        return pread_from(self.fd)

    @property
    def size(self) -> int:
        """Bytes."""
        return get_size(self.fd)


@contextlib.contextmanager
def open_source(
    spec: str, *, read_only: bool, is_exclusive: bool = True, hint: str = ""
) -> Generator[SourceFile, None, None]:
    """Open an image or device; a write-protected block device for reading only, as cryptsetup does.

    ``is_exclusive`` refuses block devices that somebody uses, which does not keep their headers
    from being changed. ``hint`` is said where it may not be written.

    Raises:
        NotFoundError: it does not exist.
        AccessError: it may not be opened, or is no file and no block device.
        BusyError: a block device that is mounted or otherwise in exclusive use.
    """
    path = resolve_device_spec(spec)
    mode = _stat(spec, path)
    exclusive = os.O_EXCL if is_exclusive and stat.S_ISBLK(mode) else 0
    flags = os.O_CLOEXEC | os.O_NOCTTY | exclusive
    try:
        fd = os.open(path, flags | (os.O_RDONLY if read_only else os.O_RDWR))
    except OSError as error:
        if read_only or not (stat.S_ISBLK(mode) and _is_write_protected(path)):
            raise _translate(spec, error, "" if read_only else hint) from None
        try:
            fd, read_only = os.open(path, flags | os.O_RDONLY), True
        except OSError as second:
            raise _translate(spec, second) from None
    try:
        yield SourceFile(fd, _show(path), read_only)
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_for_reading(spec: str, what: str) -> Generator[SourceFile, None, None]:
    """Open a file that is only read: a header, a volume to be looked at.

    Raises:
        NotFoundError, AccessError: as `open_source`.
    """
    path = resolve_device_spec(spec)
    where = f"{what} {spec}"
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 - the caller's string as it is
            raise AccessError(f"{where}: is a directory; wanted: a file")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _translate(where, error) from None
    try:
        yield SourceFile(fd, _show(path), is_read_only=True)
    finally:
        os.close(fd)


@contextlib.contextmanager
def open_parameter(spec: str, what: str) -> Generator[SourceFile, None, None]:
    """Open a key file, a backup, a token: a file that says how, not what is worked on.

    Raises:
        ConfigError: it cannot be opened. cryptsetup ends with 1 then, and with 4 for a device.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open_for_reading(spec, what))
        except (NotFoundError, AccessError) as error:
            raise ConfigError(str(error)) from None
        yield file


def check_length(file: SourceFile, what: str, *, offset: int, size: int) -> None:
    """Refuse a key file that ends too early; one that is no regular file shows that when read.

    Raises:
        ConfigError: fewer than ``size`` bytes, or none at all, after ``offset``.
    """
    status = os.fstat(file.fd)
    if stat.S_ISREG(status.st_mode) and status.st_size < offset + size:
        wanted = (
            f"{size} after byte {offset}" if size else f"more than {offset}, where the key begins"
        )
        raise ConfigError(f"{what} {file.path}: has {status.st_size} bytes; wanted: {wanted}")


@contextlib.contextmanager
def open_volume_file(spec: str) -> Generator[SourceFile, None, None]:
    """Open an image or device for reading, to look at its header.

    Raises:
        NotFoundError, AccessError: as `open_source`.
    """
    _stat(spec, resolve_device_spec(spec))
    with open_for_reading(spec, "device") as file:
        yield file


def _stat(spec: str, path: str) -> int:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - the caller's string as it is
    except OSError as error:
        raise _translate(spec, error) from None
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        if stat.S_ISDIR(mode):
            raise AccessError(f"{spec}: is a directory; wanted: a regular file or a block device")
        raise AccessError(f"{spec}: is neither a regular file nor a block device")
    return mode


def _is_write_protected(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return any(fcntl.ioctl(fd, _BLKROGET, bytes(4)))
    except OSError:
        return False
    finally:
        os.close(fd)


def _translate(where: str, error: OSError, hint: str = "") -> Exception:
    if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV}:
        return NotFoundError(f"{where}: {error.strerror}; wanted: a file or device that exists")
    if error.errno in {errno.EBUSY, errno.ETXTBSY}:
        return BusyError(f"{where}: is in use: {error.strerror}")
    if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
        hint = ""
    return AccessError(f"{where}: cannot open it: {error.strerror}{hint and f'; {hint}'}")


def _show(path: str) -> str:
    absolute = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow symlinks
    return os.fsencode(absolute).decode("utf-8", "backslashreplace")
