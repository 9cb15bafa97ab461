"""Lock files: held by a flock(2), which ends with its holder however that ends."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from ..keystore.errors import AccessError

if TYPE_CHECKING:
    from pathlib import Path


def open_lock_file(path: Path) -> int:
    """A descriptor of the file (0600), made if it is not there; not locked yet.

    Raises:
        AccessError: it cannot be made or opened.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise AccessError(f"{path}: cannot lock it: {error.strerror}") from None


def try_lock(fd: int) -> bool:
    """Hold the lock as long as the descriptor is open; False: somebody else does."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_lock(fd: int) -> None:
    """Hold the lock as long as the descriptor is open; waits until nobody else does."""
    fcntl.flock(fd, fcntl.LOCK_EX)
