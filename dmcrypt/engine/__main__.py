"""The engine process, started by process.py as a child of its own."""

from __future__ import annotations

import argparse
import sys

from .run import run_engine
from .start import CLONES_MAX, StartOptions


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
    return run_engine(
        StartOptions(
            control_fd=given.control_fd,
            kdf_memory_kib=given.kdf_memory,
            threads=given.threads,
            fuse_fd=given.fuse_fd,
            session_fd=given.session_fd,
            lifetime_fd=given.lifetime_fd,
            clone_fds=tuple(given.clone_fd[:CLONES_MAX]),
            is_mlock_forced=given.force_mlock,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
