"""What a process gives up before it handles anything of a volume."""

from __future__ import annotations

import ctypes
import logging
import os
import resource
from typing import Final

log = logging.getLogger(__name__)

# linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38
# asm-generic/mman.h
_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4


def harden() -> None:
    """No core dump, no ptrace by this user's others, private files, all descriptors allowed.

    no_new_privs is not set: fusermount3 is setuid.
    """
    os.umask(0o077)
    _limit(resource.RLIMIT_CORE, 0)
    # Three descriptors an open volume; select(2), the reason for the soft limit, is not used.
    _limit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    forbid_dumps()


def forbid_dumps() -> None:
    """No core dump of this process, and no ptrace by another one of its user."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("cannot forbid core dumps: %s", os.strerror(ctypes.get_errno()))


def forbid_privileges() -> None:
    """No program started from here on gains anything (set-user-id, file capabilities)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        log.warning("cannot set no_new_privs: %s", os.strerror(ctypes.get_errno()))


def lock_memory() -> bool:
    """Keep this process's memory out of swap, if it may; whether it may.

    Under a limit nothing is locked: a later allocation beyond it would fail.
    """
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if most != resource.RLIM_INFINITY and os.geteuid() != 0:
        return False
    _limit(resource.RLIMIT_MEMLOCK, most)
    libc = ctypes.CDLL(None, use_errno=True)
    # On fault: what is never touched (stacks, libraries) takes no memory.
    status: int = libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
    return status == 0


def _limit(kind: int, value: int) -> None:
    """Set both limits, unless they are so: a service's filter may forbid the call."""
    if resource.getrlimit(kind) != (value, value):
        resource.setrlimit(kind, (value, value))
