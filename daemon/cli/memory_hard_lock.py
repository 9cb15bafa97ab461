"""``--serialize-memory-hard-pbkdf``: one key derivation by Argon2 at a time on this machine.

Source: lib/utils_device_locking.c and lib/luks2/luks2_keyslot.c of cryptsetup, for the lock file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Final

from ...keystore.errors import AccessError
from ..config import Settings, prepare_runtime_dir
from ..lock_file import open_lock_file, wait_lock
from .arguments import Arguments

#: Shared with cryptsetup, by whoever may.
_DIRECTORY: Final = Path("/run/cryptsetup")
_NAME: Final = "LN_memory-hard-access"


@contextlib.contextmanager
def serialize_memory_hard(args: Arguments, settings: Settings) -> Generator[None, None, None]:
    """If it was asked for, wait until no other such command derives a key.

    Raises:
        MapperError: there is no place for the lock file.
    """
    if not args.has("serialize-memory-hard-pbkdf"):
        yield
        return
    fd = _open_locked(settings)
    try:
        yield
    finally:
        os.close(fd)


def _open_locked(settings: Settings) -> int:
    while True:
        fd = _open(settings)
        wait_lock(fd)
        if os.fstat(fd).st_nlink:
            return fd
        # cryptsetup removes the file when it is done with it; who comes next makes another.
        os.close(fd)


def _open(settings: Settings) -> int:
    """The lock file of cryptsetup, or for who may not open that, one of his runtime directory."""
    try:
        _DIRECTORY.mkdir(mode=0o700, exist_ok=True)
        return open_lock_file(_DIRECTORY / _NAME)
    except (OSError, AccessError):
        prepare_runtime_dir(settings)
        return open_lock_file(settings.runtime_dir / "memory-hard.lock")
