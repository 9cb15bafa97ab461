"""The files that a crypttab line names. All of it blocks.

Each is looked at by an O_PATH descriptor before it is opened, and then opened through that: nobody
can put another in its place between the two.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..keystore.errors import AccessError, BusyError, NotFoundError
from .activation import OpenFile, Recipe
from .backing import refuse_own
from .crypttab import make_plain

if TYPE_CHECKING:
    from .crypttab import CrypttabEntry


#: An O_PATH descriptor of what a path names.
Find = Callable[[str], int]


def find_path(path: str) -> int:
    """What ``path`` names, looked up with this process's own rights."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def open_entry_files(
    entry: CrypttabEntry, *, own_device: int, find: Find = find_path
) -> tuple[OpenFile, OpenFile | None]:
    """Source and header of an entry, which the caller closes.

    Raises:
        MapperError: as `open_backing`.
    """
    options = entry.options
    path = entry.source_path
    source = open_backing(path, own_device=own_device, is_read_only=options.read_only, find=find)
    if options.header is None:
        return OpenFile(source, path), None
    try:
        header = open_backing(options.header, own_device=own_device, is_read_only=True, find=find)
    except BaseException:
        os.close(source)
        raise
    return OpenFile(source, path), OpenFile(header, options.header)


def make_recipe(entry: CrypttabEntry, source: OpenFile, header: OpenFile | None) -> Recipe:
    """How the entry is opened from its files, which `close_entry_files` closes.

    Raises:
        MapperError: parameters of plain mode that cannot be; the files have been closed.
    """
    options = entry.options
    try:
        plain = (
            make_plain(entry.options, has_key_file=entry.key_file is not None)
            if entry.type == "plain"
            else None
        )
    except BaseException:
        _close(source, header)
        raise
    return Recipe(
        name=entry.name,
        source=source,
        header=header,
        is_read_only=options.read_only,
        key_slot=options.key_slot,
        plain=plain,
        allow_discards=options.discard,
        lease=options.lease,
        idle=options.idle,
    )


def close_entry_files(recipe: Recipe) -> None:
    """What the engine needs of them it has by now."""
    _close(recipe.source, recipe.header)


def open_backing(path: str, *, own_device: int, is_read_only: bool, find: Find = find_path) -> int:
    """A descriptor of a source or header, close-on-exec.

    Raises:
        NotFoundError: there is no such file.
        AccessError: the file may not be opened so.
        BusyError: a block device that is mounted or otherwise in use.
        UnsupportedError: a volume of this very daemon.
    """
    flags = os.O_RDONLY if is_read_only else os.O_RDWR
    try:
        found = find(path)
        try:
            # Before opening: a volume of our own could not be closed again.
            status = os.fstat(found)
            refuse_own(status, path, own_device)
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                raise NotFoundError(f"{path}: is neither a regular file nor a block device")
            if stat.S_ISBLK(status.st_mode) and not is_read_only:
                # open(2): without O_CREAT it fails if the kernel itself uses the device.
                flags |= os.O_EXCL
            return reopen(found, flags)
        finally:
            os.close(found)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path}: no such file or device") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(f"{path}: is in use by the kernel") from None
        wanted = "reading" if is_read_only else "writing"
        raise AccessError(f"{path}: cannot be opened for {wanted}: {error.strerror}") from None


def reopen(found: int, flags: int) -> int:
    """Open what an O_PATH descriptor stands for, close-on-exec, without waiting for anybody."""
    fd = os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    # A FIFO's reader is not to come back empty-handed afterwards.
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK)
    return fd


def _close(*files: OpenFile | None) -> None:
    for file in files:
        for fd in (file.fd, file.lock_fd) if file is not None else ():
            if fd is not None:
                os.close(fd)
