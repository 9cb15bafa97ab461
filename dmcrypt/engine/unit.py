"""fusecrypt-engine: an engine that systemd starts for a connection of the daemon.

Descriptor 3 is the connection (sd_listen_fds(3)). Over it come a packet and descriptors (start.py);
the answer is one packet, from whose credentials the daemon has this process's pid, and then, if
the engine cannot start, its last words. Keystored's questions (src/claim.h) come to the socket
`claim` in the unit's runtime directory, where only this unit's user may make one.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Final

from ..passed_fds import get_fds_space, parse_fds
from .run import run_engine
from .start import CLAIM_NAME, FDS_MAX, PACKET_SIZE, UNIT_STARTED, StartOptions, parse_start

_LISTEN_FD: Final = 3
_STANDARD_ERROR: Final = 2
#: Questions that wait for their turn.
_BACKLOG: Final = 16


def main() -> int:
    """Serve; returns only when the engine cannot start: 1, with the reason said to the daemon."""
    directory = os.environ.get("RUNTIME_DIRECTORY", "")
    passed = (os.environ.get("LISTEN_FDS"), os.environ.get("LISTEN_PID"))
    if passed != ("1", str(os.getpid())) or not os.path.isabs(directory):  # noqa: PTH117
        sys.stderr.write("wanted: a start by fusecrypt-engine.socket, with a RuntimeDirectory=\n")
        return 1
    with socket.socket(fileno=_LISTEN_FD) as connection:
        # Last words go to the daemon from here on.
        os.dup2(_LISTEN_FD, _STANDARD_ERROR)
        try:
            claim = _listen(f"{directory}/{CLAIM_NAME}")
            options = _receive(connection, claim.fileno())
            connection.send(UNIT_STARTED)
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return run_engine(options)


def _listen(path: str) -> socket.socket:
    """Keystored is in this user's group; nobody else may ask."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.umask(0o117)
    listener.bind(path)
    os.umask(0o077)
    listener.listen(_BACKLOG)
    return listener


def _receive(connection: socket.socket, claim_fd: int) -> StartOptions:
    """The daemon's packet.

    Raises:
        ValueError: it is none.
    """
    data, ancillary, flags, _ = connection.recvmsg(
        PACKET_SIZE + 1,
        get_fds_space(FDS_MAX),
        socket.MSG_CMSG_CLOEXEC,
    )
    if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        raise ValueError("start packet: too long, or too many descriptors")
    return parse_start(data, parse_fds(ancillary), claim_fd)


if __name__ == "__main__":
    sys.exit(main())
