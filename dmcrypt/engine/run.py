"""Become an engine: what follows is C (src/engine.h)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .start import StartOptions


def run_engine(options: StartOptions) -> int:
    """Serve; returns only when the engine cannot start: 1, with the reason on standard error."""
    from ._engine import ffi, lib

    given = ffi.new("struct engine_options *")
    given.control_fd = options.control_fd
    given.fuse_fd = options.fuse_fd
    given.session_fd = options.session_fd
    given.lifetime_fd = options.lifetime_fd
    given.claim_fd = options.claim_fd
    given.clone_fds = options.clone_fds
    given.clone_fd_count = len(options.clone_fds)
    given.readers = options.threads
    given.kdf_memory_limit = options.kdf_memory_kib
    given.force_mlock = options.is_mlock_forced
    failure = ffi.new("const char **")
    error = -lib.engine_run(given, failure)
    step = ffi.string(failure[0]).decode()
    sys.stderr.write(f"{step}: {os.strerror(error)}\n")
    return 1
