"""A result that becomes a file which was not there: private, whole, and on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ...keystore.errors import AccessError, BusyError


def write_new_file(
    path: str, data: bytes | Iterable[bytes], what: str, *, mode: int = 0o600
) -> None:
    """Make a file with ``data``; on disk when this returns. Works where links do not.

    Raises:
        BusyError: there is a file already.
        AccessError: it cannot be written; then there is none.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, mode)
    except FileExistsError:
        raise BusyError(f"{what} {path}: exists, and is not overwritten") from None
    except OSError as error:
        raise AccessError(f"{what} {path}: cannot make it: {error.strerror}") from None
    try:
        for piece in [data] if isinstance(data, bytes) else data:
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        os.fsync(fd)
        _sync_directory(os.path.dirname(path) or ".")  # noqa: PTH120 - as the user wrote it
    except OSError as error:
        os.unlink(path)  # noqa: PTH108
        raise AccessError(f"{what} {path}: cannot write it: {error.strerror}") from None
    finally:
        os.close(fd)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
