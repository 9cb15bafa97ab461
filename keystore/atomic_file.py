"""Files that are replaced whole: a crash leaves the old content or the new one."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .errors import AccessError

LOCK_NAME = ".lock"


@contextmanager
def locked(
    directory: Path, *, mode: int = 0o600, group: int | None = None
) -> Generator[None, None, None]:
    """Hold the directory's lock file for the length of a block; waits while another holds it.

    Raises:
        AccessError: the lock file cannot be made or opened.
    """
    path = directory / LOCK_NAME
    fd = -1
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.fstat(fd).st_uid == os.geteuid():
            _set_access(fd, mode, group)
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise AccessError(f"lock file {path}: {error.strerror}") from error
    try:
        yield
    finally:
        os.close(fd)


def replace_file(
    path: Path, content: bytes | bytearray, *, mode: int = 0o600, group: int | None = None
) -> None:
    """Give the file this content, made or replaced, on disk when this returns.

    Raises:
        AccessError: the file system refuses; the old content is still there.
    """
    _write(path, content, mode, group, is_new=False)


def make_file(
    path: Path, content: bytes | bytearray, *, mode: int = 0o600, group: int | None = None
) -> None:
    """The same for a file that must not exist yet.

    Raises:
        FileExistsError: it does.
        AccessError: the file system refuses.
    """
    _write(path, content, mode, group, is_new=True)


def remove_file(path: Path) -> None:
    """Remove the file, for good when this returns.

    Raises:
        FileNotFoundError: it is not there.
        AccessError: the file system refuses.
    """
    try:
        path.unlink()
        sync_directory(path.parent)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AccessError(f"removing {path}: {error.strerror}") from error


def move_file(path: Path, to: Path) -> None:
    """Put one file in the place of another in the same directory, in one step, for good.

    Raises:
        AccessError: the file system refuses; both are as they were.
    """
    try:
        os.rename(path, to)  # noqa: PTH104
        sync_directory(to.parent)
    except OSError as error:
        raise AccessError(f"moving {path}: {error.strerror}") from error


def link_file(path: Path, to: Path) -> None:
    """A second name in the same directory, which must be free, for good.

    Raises:
        FileExistsError: it is not.
        AccessError: the file system refuses.
    """
    try:
        os.link(path, to)
        sync_directory(to.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise AccessError(f"linking {path}: {error.strerror}") from error


def read_file(path: Path, most: int) -> bytes:
    """The whole file, cut after ``most`` bytes.

    Raises:
        FileNotFoundError: it is not there.
        AccessError: the file system refuses.
    """
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AccessError(f"reading {path}: {error.strerror}") from error


def _write(
    path: Path, content: bytes | bytearray, mode: int, group: int | None, *, is_new: bool
) -> None:
    beside: str | None = None
    try:
        fd, beside = tempfile.mkstemp(".new", f".{path.name}.", path.parent)
        try:
            _set_access(fd, mode, group)
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if is_new:
            os.link(beside, path)  # unlike a rename, never over another's file
        else:
            os.rename(beside, path)  # noqa: PTH104
            beside = None
        sync_directory(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        raise AccessError(f"writing {path}: {error.strerror}") from error
    finally:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)


def _set_access(fd: int, mode: int, group: int | None) -> None:
    if group is not None and os.fstat(fd).st_gid != group:
        os.fchown(fd, -1, group)
    os.fchmod(fd, mode)


def sync_directory(directory: Path) -> None:
    """Make names that were made, changed or removed there last.

    Raises:
        OSError: the file system refuses.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
