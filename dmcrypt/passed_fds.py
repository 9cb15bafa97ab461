"""Descriptors that go with a message over a Unix socket (unix(7), SCM_RIGHTS)."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterable, Sequence


def pack_fds(fds: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    """The ancillary data that carries descriptors, which stay the caller's."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []


def get_fds_space(count: int) -> int:
    """Bytes of ancillary data that ``count`` descriptors take."""
    return socket.CMSG_SPACE(count * array.array("i").itemsize)


def parse_fds(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a message, which are the caller's now."""
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return list(fds)


def close_fds(fds: Iterable[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)
