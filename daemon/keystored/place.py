"""Where a keystored listens: one at a time, and free for the next as soon as it may be."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path

from ...keystore.errors import AccessError, BusyError
from ..control.server import MAX_CONNECTIONS
from ..lock_file import open_lock_file, try_lock


class Place:
    """A socket (0600) at a path, and the lock beside it."""

    def __init__(self, path: Path, listener: socket.socket, lock: int) -> None:
        self.listener = listener
        self._path = path
        self._lock = lock

    def leave(self) -> None:
        """Let another one serve here. Who has connected already can still be accepted."""
        if self._lock >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


@contextlib.contextmanager
def take_place(path: Path) -> Generator[Place, None, None]:
    """Listen at ``path`` as the only one; a dead one's socket is taken away.

    Raises:
        BusyError: another serves there.
        AccessError: the socket cannot be made.
    """
    lock = open_lock_file(path.with_name(f"{path.name}.lock"))
    if not try_lock(lock):
        os.close(lock)
        raise BusyError(f"{path.parent}: a keystored already serves here")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        place = Place(path, listener, lock)
        try:
            _listen(listener, path)
            yield place
        finally:
            place.leave()


def _listen(listener: socket.socket, path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        # The umask is 077: nobody else can connect between bind and chmod.
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        raise AccessError(f"{path}: cannot listen: {error.strerror or error}") from None
