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


def harden() -> None:
    """No core dump, no ptrace by this user's others, private files, all descriptors allowed.

    no_new_privs is not set: fusermount3 is setuid.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Three descriptors an open volume; select(2), the reason for the soft limit, is not used.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        log.warning("cannot forbid core dumps: %s", os.strerror(ctypes.get_errno()))
