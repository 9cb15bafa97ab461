"""The parts of a NEW master key of a PKCS#11 token that are loaded so far, sealed with its PIN.

A token takes a whole master key only. Until the last part comes, what the others make by exclusive
or is kept here: a byte that says so, and 32 bytes.
"""

from __future__ import annotations

from typing import Final

from .adapter import MASTER_KEYS_SIZE, MasterKeys
from .cca import MASTER_KEY_SIZE
from .clear_bytes import wipe
from .errors import UnsupportedError

#: Where they are, unless the PIN, which is before them, reaches so far.
PARTS_AT: Final = MASTER_KEYS_SIZE - MASTER_KEY_SIZE - 1
_THERE: Final = 1


def has_parts(keys: MasterKeys) -> bool:
    """Some parts are loaded, the last one is not."""
    return _have_room(keys) and keys.content[PARTS_AT] == _THERE


def copy_parts(keys: MasterKeys) -> bytearray:
    """What the parts make so far, zeros without any; the caller wipes it."""
    return keys.content[PARTS_AT + 1 :] if has_parts(keys) else bytearray(MASTER_KEY_SIZE)


def put_parts(keys: MasterKeys, parts: bytearray, where: str) -> None:
    """Keep what the parts make so far.

    Raises:
        UnsupportedError: the PIN leaves no room.
    """
    if not _have_room(keys):
        raise UnsupportedError(
            f"{where}: a PIN of {keys.content[0]} bytes: key parts are loaded with one of at most "
            f"{PARTS_AT - 1}"
        )
    keys.content[PARTS_AT] = _THERE
    keys.content[PARTS_AT + 1 :] = parts


def forget_parts(keys: MasterKeys) -> None:
    """Keep none."""
    if has_parts(keys):
        with memoryview(keys.content) as view:
            wipe(view[PARTS_AT:])


def _have_room(keys: MasterKeys) -> bool:
    return keys.content[0] < PARTS_AT
