"""The mount of the service: made, known, taken away, with root's rights.

By the kernel's mount interface of descriptors (fsopen(2) and its kind): between looking at the
mount point and mounting on it nobody can put another in its place.
"""

from __future__ import annotations

import ctypes
import logging
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...keystore.errors import AccessError, PolicyError
from .. import keeper
from ..mount import set_read_ahead

log = logging.getLogger(__name__)

# asm-generic/unistd.h: the same numbers on all machines.
_SYS_MOVE_MOUNT: Final = 429
_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
# linux/mount.h
_CLOEXEC: Final = 1  # of fsopen and fsmount
_SET_FLAG: Final = 0
_SET_STRING: Final = 1
_CREATE: Final = 6
_NOSUID_NODEV: Final = 2 | 4
_EMPTY_PATHS: Final = 0x04 | 0x40  # of both ends of move_mount
# umount2(2)
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(slots=True)
class Mount:
    """A mount of ours, by a descriptor of its root, which is no descriptor of the connection."""

    root_fd: int
    device: str  # MAJOR:MINOR

    def set_read_ahead(self) -> int:
        """Read ahead as far as a request reaches; kilobytes in force. Once the mount answers."""
        return set_read_ahead(self.device)

    def take_away(self) -> None:
        """Detach it, busy or not, wherever it is."""
        if self.root_fd < 0:
            return
        if _libc.umount2(f"/proc/self/fd/{self.root_fd}".encode(), _MNT_DETACH) == 0:
            log.info("unmounted (device %s)", self.device)
        os.close(self.root_fd)
        self.root_fd = -1


def mount(mount_point: Path, connection: int, uid: int, gid: int) -> Mount:
    """Mount the FUSE ``connection``, an open /dev/fuse, for the user who will serve it.

    Raises:
        PolicyError: the mount point is not that user's, or not one at all.
        AccessError: it cannot be mounted.
    """
    take_away_all(mount_point)
    with _open_mount_point(mount_point, uid) as directory:
        try:
            return _mount_on(directory, connection, uid, gid)
        except OSError as error:
            raise AccessError(f"{mount_point}: cannot mount: {error.strerror}") from None


def take_away_all(mount_point: Path) -> None:
    """Detach every mount of fusecrypt there, alive or dead.

    Raises:
        AccessError: one stays.
    """
    while find_device(mount_point) is not None:
        result = _libc.umount2(os.fsencode(mount_point), _MNT_DETACH | _UMOUNT_NOFOLLOW)
        if result != 0:
            reason = os.strerror(ctypes.get_errno())
            raise AccessError(f"{mount_point}: cannot unmount: {reason}")
        log.info("%s: unmounted what was left there", mount_point)


def find_device(mount_point: Path) -> str | None:
    """``MAJOR:MINOR`` of the topmost mount of fusecrypt there."""
    return keeper.find_mount(Path("/proc/self/mountinfo").read_bytes(), str(mount_point))


@contextmanager
def _open_mount_point(path: Path, uid: int) -> Generator[int, None, None]:
    flags = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
    try:
        parent = os.open(path.parent, flags)
        try:
            directory = os.open(path.name, flags, dir_fd=parent)
        finally:
            above = os.fstat(parent)
            os.close(parent)
    except OSError as error:
        raise PolicyError(f"mount point {path}: {error.strerror}; wanted: a directory") from None
    try:
        status = os.fstat(directory)
        if status.st_uid not in (0, uid) or above.st_uid not in (0, uid):
            raise PolicyError(
                f"mount point {path}: belongs to user {status.st_uid} in a directory of user"
                f" {above.st_uid}; wanted: user {uid} or root"
            )
        if (status.st_mode | above.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise PolicyError(f"mount point {path}: others may write there; wanted: mode 0755")
        if status.st_dev != above.st_dev:
            raise PolicyError(f"mount point {path}: something is mounted there")
        yield directory
    finally:
        os.close(directory)


def _mount_on(directory: int, connection: int, uid: int, gid: int) -> Mount:
    context = _call(_SYS_FSOPEN, b"fuse", _CLOEXEC)
    try:
        for key, value in (
            ("source", "fusecrypt"),
            ("subtype", "fusecrypt"),
            ("fd", str(connection)),
            ("rootmode", "40000"),
            ("user_id", str(uid)),
            ("group_id", str(gid)),
        ):
            _call(_SYS_FSCONFIG, context, _SET_STRING, key.encode(), value.encode(), 0)
        for flag in (b"allow_other", b"default_permissions"):
            _call(_SYS_FSCONFIG, context, _SET_FLAG, flag, None, 0)
        _call(_SYS_FSCONFIG, context, _CREATE, None, None, 0)
        root = _call(_SYS_FSMOUNT, context, _CLOEXEC, _NOSUID_NODEV)
    finally:
        os.close(context)
    try:
        _call(_SYS_MOVE_MOUNT, root, b"", directory, b"", _EMPTY_PATHS)
        return Mount(root, _read_device(root))
    except BaseException:
        os.close(root)
        raise


def _read_device(root: int) -> str:
    """The device number of a mount, without asking the file system, which does not answer yet."""
    fields = dict(
        line.split(":", 1)
        for line in Path(f"/proc/self/fdinfo/{root}").read_text().splitlines()
        if ":" in line
    )
    wanted = fields["mnt_id"].strip()
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        number, _, device, *_ = line.split(" ")
        if number == wanted:
            return device
    raise OSError(0, "the new mount is not to be seen")


def _call(number: int, *arguments: int | bytes | None) -> int:
    # Variadic: every integer must be as wide as a register.
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *wide)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
