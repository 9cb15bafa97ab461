"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import trio

_UCRED: Final = struct.Struct("3i")  # of unix(7): pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """A process at the other end of a connection, as it was when the connection was made."""

    pid: int
    uid: int

    @property
    def is_owner(self) -> bool:
        """Whether it is this process's own user, or root."""
        return self.uid in (os.geteuid(), 0)


def get_peer(connection: socket.socket | trio.socket.SocketType) -> Peer:
    """Who connected; or who listens, where we did: for a socket that systemd made, root.

    Raises:
        OSError: the connection is gone.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(credentials)
    return Peer(pid, uid)
