"""The engine process, started by process.py; what follows the arguments is C (src/engine.h)."""

from __future__ import annotations

import argparse
import os
import sys


def main() -> int:
    """Serve; returns only when the engine cannot start: 1, with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="fusecrypt-engine", allow_abbrev=False)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--fuse-fd", type=int, default=-1)
    parser.add_argument("--session-fd", type=int, default=-1)
    parser.add_argument("--lifetime-fd", type=int, default=-1)
    parser.add_argument("--clone-fd", type=int, action="append", default=[])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--kdf-memory", type=int, required=True, metavar="KIB")
    parser.add_argument("--force-mlock", action="store_true")
    given = parser.parse_args()

    from ._engine import ffi, lib

    options = ffi.new("struct engine_options *")
    options.control_fd = given.control_fd
    options.fuse_fd = given.fuse_fd
    options.session_fd = given.session_fd
    options.lifetime_fd = given.lifetime_fd
    options.clone_fds = given.clone_fd[:16]
    options.clone_fd_count = len(given.clone_fd[:16])
    options.readers = given.threads
    options.kdf_memory_limit = given.kdf_memory
    options.force_mlock = given.force_mlock
    failure = ffi.new("const char **")
    error = -lib.engine_run(options, failure)
    step = ffi.string(failure[0]).decode()
    sys.stderr.write(f"{step}: {os.strerror(error)}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
