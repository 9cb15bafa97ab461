"""Open what root's crypttab names, and not what somebody else has put there instead.

Whoever owns a directory or a symbolic link on the way decides what comes behind it. Root may point
anywhere; another user only at what is his own. So a path goes from what one user other than root
owns only to what the same user owns, as systemd's chase_symlinks(CHASE_SAFE) has it.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from ...keystore.errors import PolicyError

# path_resolution(7)
_MAX_LINKS: Final = 40
_STEP: Final = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW


def find_path(path: str) -> int:
    """An O_PATH descriptor of what the absolute ``path`` names, links followed.

    Raises:
        PolicyError: a user other than root leads the way to what is not his own.
        OSError: as open(2).
    """
    assert path.startswith("/")
    rest = _split(path)
    here = _open_root()
    owner = os.fstat(here).st_uid
    links = 0
    try:
        while rest:
            name = rest.pop()
            there = _step(here, name)
            try:
                status = os.fstat(there)
                _check_owner(path, name, owner, status.st_uid)
                owner = status.st_uid
                if not stat.S_ISLNK(status.st_mode):
                    here, there = there, here
                    continue
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink("", dir_fd=there)
            finally:
                os.close(there)
            rest += _split(target)
            if target.startswith("/"):
                before, here = here, _open_root()
                os.close(before)
    except BaseException:
        os.close(here)
        raise
    return here


def _split(path: str) -> list[str]:
    """The components, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _open_root() -> int:
    return os.open("/", _STEP | os.O_DIRECTORY)


def _step(directory: int, name: str) -> int:
    try:
        # As a directory first: only so is what is mounted on demand mounted.
        return os.open(name, _STEP | os.O_DIRECTORY, dir_fd=directory)
    except NotADirectoryError:
        return os.open(name, _STEP, dir_fd=directory)


def _check_owner(path: str, name: str, before: int, after: int) -> None:
    if before not in (0, after):
        raise PolicyError(
            f"{path}: {name} belongs to user {after}, and user {before}, who owns what leads there,"
            " could have put it in another's place; wanted: both of one user, or the way root's"
        )
