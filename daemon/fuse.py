"""The FUSE name space: pyfuse3's handlers over the tree.

READ, WRITE, FSYNC, FALLOCATE and LSEEK of devices never come here: the engine answers them. Node
ids are never reused and names have no time-outs, so lookup counts need no book: a node is known as
long as its volume is open, and every handle is counted.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar, cast

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from ..keystore.errors import MapperError
from .pkey import TokenKind, TokenMaker
from .tree import Device, Directory, Node, Symlink, TokenFile, Tree

log = logging.getLogger(__name__)

_SECTOR_SIZE_XATTR: Final = b"user.sector_size"
_BLOCK: Final = 4096
_STAT_BLOCK: Final = 512  # of st_blocks, stat(2)

_Handler = TypeVar("_Handler", bound=Callable[..., Coroutine[object, object, object]])


def _answered(handler: _Handler) -> _Handler:
    """A handler that replies always: a bug is EIO for one caller, not the end of the mount."""

    @functools.wraps(handler)
    async def answer(*args: object, **named: object) -> object:
        try:
            return await handler(*args, **named)
        except FUSEError:
            raise
        except Exception:
            log.exception("FUSE %s failed", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return cast("_Handler", answer)


@dataclass(slots=True)
class _TokenHandle:
    """One open file of dev/pkey. Its token is made by the first read."""

    kind: TokenKind
    token: bytes = b""


class Operations(pyfuse3.Operations):
    """Answers what the engine forwards.

    ``on_idle`` hears of a device whose last handle is gone; ``make_token`` blocks, and is called in
    a thread.
    """

    def __init__(
        self, tree: Tree, on_idle: Callable[[Device], None], make_token: TokenMaker
    ) -> None:
        super().__init__()
        self._tree = tree
        self._on_idle = on_idle
        self._make_token = make_token
        self._handles: dict[int, Device | _TokenHandle] = {}
        self._handle_numbers = itertools.count(1)

    @_answered
    async def lookup(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        ctx: RequestContext,  # noqa: ARG002
    ) -> EntryAttributes:
        node = self._tree.find_child(parent_inode, name)
        if node is None:
            raise FUSEError(errno.ENOENT)
        return _attributes(node)

    @_answered
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:  # noqa: ARG002
        return _attributes(self._get(inode))

    @_answered
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,  # noqa: ARG002
    ) -> EntryAttributes:
        device = self._get(inode)
        if not isinstance(device, Device):
            raise FUSEError(errno.EPERM)
        if fields.update_size:
            _check_truncation(device, attr.st_size, fh)
        if fields.update_mode:
            device.mode = stat.S_IFREG | stat.S_IMODE(attr.st_mode)
        if fields.update_uid:
            device.uid = attr.st_uid
        if fields.update_gid:
            device.gid = attr.st_gid
        if fields.update_atime:
            device.times.atime_ns = attr.st_atime_ns
        if fields.update_mtime:
            device.times.mtime_ns = attr.st_mtime_ns
        if fields.update_ctime:
            device.times.ctime_ns = attr.st_ctime_ns
        return _attributes(device)

    @_answered
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:  # noqa: ARG002
        link = self._get(inode)
        if not isinstance(link, Symlink):
            raise FUSEError(errno.EINVAL)
        return FileNameT(link.target)

    # Directories. A handle is the directory's own number: cookies alone say where reading goes on.

    @_answered
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:  # noqa: ARG002
        self._get_directory(inode)
        return FileHandleT(inode)

    @_answered
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        for entry in self._tree.list_entries(self._get_directory(fh), start_id):
            name = FileNameT(entry.name)
            if not pyfuse3.readdir_reply(token, name, _attributes(entry.node), entry.cookie):
                break

    async def releasedir(self, fh: FileHandleT) -> None:
        pass

    # Handles of devices.

    @_answered
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:  # noqa: ARG002
        node = self._get(inode)
        if isinstance(node, TokenFile):
            return self._open_token(node, flags)
        if not isinstance(node, Device):
            raise FUSEError(errno.EISDIR)
        return self._open_device(node, flags)

    @_answered
    async def release(self, fh: FileHandleT) -> None:
        handle = self._handles.pop(fh)
        if isinstance(handle, _TokenHandle):
            return
        handle.opens -= 1
        if handle.opens == 0:
            self._on_idle(handle)

    def _open_device(self, device: Device, flags: int) -> FileInfo:
        if device.is_closing:
            raise FUSEError(errno.ENXIO)
        if device.is_read_only and flags & os.O_ACCMODE != os.O_RDONLY:
            raise FUSEError(errno.EROFS)
        number = next(self._handle_numbers)
        self._handles[number] = device
        device.opens += 1
        return FileInfo(fh=FileHandleT(number), direct_io=False, keep_cache=True)

    def _open_token(self, file: TokenFile, flags: int) -> FileInfo:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise FUSEError(errno.EACCES)
        number = next(self._handle_numbers)
        self._handles[number] = _TokenHandle(file.kind)
        # Past the page cache: another opener gets another key.
        return FileInfo(fh=FileHandleT(number), direct_io=True, keep_cache=False)

    # What the engine does not know any more (the device is closed) fails, and ENOSYS, the default,
    # would turn a request off for the whole mount.

    @_answered
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        handle = self._handles.get(fh)
        if not isinstance(handle, _TokenHandle):
            raise FUSEError(errno.EIO)
        if not handle.token:
            make = functools.partial(self._make_token, handle.kind)
            try:
                token = await trio.to_thread.run_sync(make, abandon_on_cancel=True)
            except MapperError as error:
                log.warning("dev/pkey/%s/%s: %s", handle.kind.group, handle.kind.name, error)
                # What the pkey driver says when no card serves.
                raise FUSEError(errno.ENODEV) from None
            # Two reads at once: the first token counts for both.
            handle.token = handle.token or token
        return handle.token[off : off + size]

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:  # noqa: ARG002
        raise FUSEError(errno.EIO)

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:  # noqa: ARG002, FBT001
        raise FUSEError(errno.EIO)

    @_answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:  # noqa: ARG002
        devices = self._tree.list_devices()
        answer = StatvfsData()
        answer.f_bsize = answer.f_frsize = _BLOCK
        answer.f_blocks = sum(device.size for device in devices) // _BLOCK
        answer.f_files = len(devices)
        answer.f_namemax = 255
        return answer

    # Extended attributes.

    @_answered
    async def getxattr(
        self,
        inode: InodeT,
        name: XAttrNameT,
        ctx: RequestContext,  # noqa: ARG002
    ) -> bytes:
        node = self._get(inode)
        if isinstance(node, Device) and name == _SECTOR_SIZE_XATTR:
            return b"%d" % node.sector_size
        raise FUSEError(pyfuse3.ENOATTR)

    @_answered
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:  # noqa: ARG002
        is_device = isinstance(self._get(inode), Device)
        return [XAttrNameT(_SECTOR_SIZE_XATTR)] if is_device else []

    # The tree changes by opening and closing volumes only.

    async def setxattr(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    async def removexattr(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    async def create(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    async def mknod(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    async def mkdir(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    async def unlink(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    async def rmdir(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    async def symlink(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    async def rename(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    async def link(self, *_values: object, **_named: object) -> NoReturn:
        raise FUSEError(errno.EPERM)

    def _get(self, number: int) -> Node:
        node = self._tree.find(number)
        if node is None:
            # The volume is closed. ESTALE makes the kernel look the path up again.
            raise FUSEError(errno.ESTALE)
        return node

    def _get_directory(self, number: int) -> Directory:
        node = self._get(number)
        if not isinstance(node, Directory):
            raise FUSEError(errno.ENOTDIR)
        return node


def _check_truncation(device: Device, size: int, fh: FileHandleT | None) -> None:
    """Let open(2) with O_TRUNC succeed, as on a block device, and refuse to change a size.

    Without ATOMIC_O_TRUNC the kernel sends O_TRUNC as SETATTR of size 0 without a handle
    (fs/fuse/dir.c: fuse_do_setattr); truncate(2) to 0 looks the same, ftruncate(2) brings a handle.
    """
    if device.is_read_only:
        raise FUSEError(errno.EROFS)
    if size != 0 or fh is not None:
        raise FUSEError(errno.EINVAL)


def _attributes(node: Node) -> EntryAttributes:
    """What the kernel may know, for this one request: it keeps neither names nor attributes."""
    attr = EntryAttributes()
    attr.st_ino = InodeT(node.number)
    attr.generation = 0
    attr.entry_timeout = 0
    attr.attr_timeout = 0
    attr.st_mode = node.mode
    attr.st_nlink = node.links
    attr.st_uid = node.uid
    attr.st_gid = node.gid
    attr.st_rdev = 0
    attr.st_size = node.size
    attr.st_blksize = _BLOCK
    attr.st_blocks = 0
    if isinstance(node, Device):
        attr.st_blksize = max(_BLOCK, node.sector_size)
        attr.st_blocks = node.size // _STAT_BLOCK
    attr.st_atime_ns = node.times.atime_ns
    attr.st_mtime_ns = node.times.mtime_ns
    attr.st_ctime_ns = node.times.ctime_ns
    return attr
