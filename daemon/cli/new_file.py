"""A result that becomes a file which was not there: private, whole, and on the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path

from ...keystore.atomic_file import sync_directory
from ...keystore.errors import AccessError, BusyError


@contextlib.contextmanager
def make_new_file(path: str, what: str, *, mode: int = 0o600) -> Generator[int, None, None]:
    """A descriptor to write a new file; on disk at the end. Works where links do not.

    Raises:
        BusyError: there is a file already.
        AccessError: it cannot be made or written. After any error within there is none.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, mode)
    except FileExistsError:
        raise BusyError(f"{what} {path}: exists, and is not overwritten") from None
    except OSError as error:
        raise AccessError(f"{what} {path}: cannot make it: {error.strerror}") from None
    try:
        yield fd
        os.fsync(fd)
        sync_directory(Path(path).parent)
    except OSError as error:
        Path(path).unlink()
        raise AccessError(f"{what} {path}: cannot write it: {error.strerror}") from None
    except BaseException:
        Path(path).unlink()
        raise
    finally:
        os.close(fd)


def write_new_file(
    path: str, data: bytes | Iterable[bytes], what: str, *, mode: int = 0o600
) -> None:
    """Make a file with ``data``.

    Raises:
        BusyError, AccessError: as `make_new_file`.
    """
    with make_new_file(path, what, mode=mode) as fd:
        for piece in [data] if isinstance(data, bytes) else data:
            write_all(fd, piece)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, to a descriptor of `make_new_file`, which tells of an OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
