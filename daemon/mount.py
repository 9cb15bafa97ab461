"""The FUSE mount: make it, know it, take it away."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..dmcrypt.passed_fds import get_fds_space, parse_fds
from ..keystore.errors import AccessError, UnsupportedError
from . import keeper

log = logging.getLogger(__name__)

# linux/mount.h, umount2(2)
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MNT_DETACH: Final = 2

#: Kilobytes; the largest request of the kernel and libfuse 3.14 (bench: docs/benchmarks).
READ_AHEAD_KB: Final = 1024

_libc: Final = ctypes.CDLL(None, use_errno=True)


def mount(mountpoint: Path) -> int:
    """Mount a new FUSE connection on ``mountpoint``; its descriptor, which the caller closes.

    Raises:
        AccessError: there is no /dev/fuse, or this user may not mount here.
        UnsupportedError: an ordinary user without fusermount3.
    """
    if os.geteuid() == 0:
        try:
            return _mount_as_root(mountpoint)
        except PermissionError:
            # Root of a container without CAP_SYS_ADMIN: only the setuid helper may help.
            log.debug("%s: mount(2) not permitted, trying fusermount3", mountpoint)
    return _mount_by_helper(mountpoint)


def _mount_as_root(mountpoint: Path) -> int:
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        raise
    except OSError as error:
        raise AccessError(f"/dev/fuse: {error.strerror}; is the fuse module loaded?") from error
    data = (
        f"fd={fd},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},"
        "allow_other,default_permissions"
    )
    result = _libc.mount(
        b"fusecrypt", os.fsencode(mountpoint), b"fuse.fusecrypt", _MS_NOSUID | _MS_NODEV,
        data.encode(),
    )  # fmt: skip
    if result == 0:
        return fd
    code = ctypes.get_errno()
    os.close(fd)
    if code == errno.EPERM:
        raise PermissionError(code, os.strerror(code))
    raise AccessError(f"{mountpoint}: cannot mount: {os.strerror(code)}")


def _mount_by_helper(mountpoint: Path) -> int:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [
            "fusermount3",
            "-o",
            "fsname=fusecrypt,subtype=fusecrypt,default_permissions",
            "--",
            str(mountpoint),
        ]
        try:
            helper = subprocess.run(
                command,
                check=False,
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
        except FileNotFoundError as error:
            raise UnsupportedError(
                "fusermount3 not found: an ordinary user needs the package fuse3 to mount"
            ) from error
        theirs.close()
        _, ancillary, _, _ = ours.recvmsg(1, get_fds_space(1), socket.MSG_CMSG_CLOEXEC)
    fds = parse_fds(ancillary)
    if helper.returncode != 0 or len(fds) != 1:
        words = helper.stderr.decode(errors="replace").strip()
        raise AccessError(
            f"{mountpoint}: cannot mount: {words or f'exit status {helper.returncode}'}"
        )
    return fds[0]


def unmount(mountpoint: Path) -> None:
    """Detach the mount: new callers no longer find it, present ones keep what they opened.

    Raises:
        AccessError: the mount stays.
    """
    if _libc.umount2(os.fsencode(mountpoint), _MNT_DETACH) == 0:
        return
    code = ctypes.get_errno()
    if code == errno.EINVAL:
        return  # not a mount point any more
    try:
        helper = subprocess.run(
            ["fusermount3", "-u", "-z", "--", str(mountpoint)],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
    except FileNotFoundError as error:
        raise AccessError(f"{mountpoint}: cannot unmount: {os.strerror(code)}") from error
    if helper.returncode != 0 and find_device(mountpoint) is not None:
        words = helper.stderr.decode(errors="replace").strip()
        raise AccessError(f"{mountpoint}: cannot unmount: {words or os.strerror(code)}")


def write_back(device: Path) -> None:
    """Have the kernel write what it holds of an open device. Blocks; errors show at fsync.

    Not by syncfs(2), which newer kernels only begin for FUSE (SB_I_NO_DATA_INTEGRITY).
    """
    with contextlib.suppress(OSError):
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def find_device(mountpoint: Path) -> str | None:
    """``MAJOR:MINOR`` of our topmost mount on ``mountpoint``, live or dead, if there is one."""
    mountinfo = Path("/proc/self/mountinfo").read_bytes()
    return keeper.find_mount(mountinfo, str(_resolve(mountpoint)))


def _resolve(mountpoint: Path) -> Path:
    """The path as the kernel shows it. The mount itself, which may be dead, is not looked at."""
    return mountpoint.parent.resolve() / mountpoint.name


def set_read_ahead(device: str) -> int:
    """Have the kernel read ahead as far as a request reaches, if we may; kilobytes in force."""
    path = Path(f"/sys/class/bdi/{device}/read_ahead_kb")
    with contextlib.suppress(OSError):  # not root, or a container's read-only /sys
        path.write_text(f"{READ_AHEAD_KB}\n")
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


@dataclass(slots=True)
class Keeper:
    """The process that unmounts when daemon and engine are gone; see `keeper`."""

    process: subprocess.Popen[bytes]
    lifetime_fd: int  # to be held by the engine, and closed here once the engine has it
    _words: int

    def watch(self, device: str) -> None:
        """Name the mount to be guarded."""
        os.write(self._words, f"mounted {device}\n".encode())

    def hand_over(self) -> None:
        """The engine holds its end now; ours is closed."""
        if self.lifetime_fd >= 0:
            os.close(self.lifetime_fd)
            self.lifetime_fd = -1

    def dismiss(self) -> None:
        """The mount is gone: no keeper is needed. Waits for its end."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._words, b"quit\n")
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def open_keeper(mountpoint: Path) -> Generator[Keeper, None, None]:
    """A keeper for ``mountpoint``, which acts when we go away without having dismissed it."""
    daemon_end, words = os.pipe2(os.O_CLOEXEC)
    engine_end, lifetime = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, str(_resolve(mountpoint))],
            stdin=daemon_end,
            stdout=engine_end,
            start_new_session=True,
        )
    finally:
        os.close(daemon_end)
        os.close(engine_end)
    guard = Keeper(process, lifetime, words)
    try:
        yield guard
    finally:
        guard.hand_over()
        os.close(words)
