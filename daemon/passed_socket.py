"""Socket activation without a library: the listener that systemd made (sd_listen_fds(3))."""

from __future__ import annotations

import os
import socket
from typing import Final

from ..keystore.errors import ConfigError

#: The first descriptor that the service manager passes.
_LISTEN_FD: Final = 3


def find_passed_listener() -> socket.socket | None:
    """The socket that the service manager passed (sd_listen_fds(3)), if it passed one.

    Raises:
        ConfigError: it passed something else.
    """
    count = os.environ.pop("LISTEN_FDS", "")
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()) or count in {"", "0"}:
        return None
    if count != "1":
        raise ConfigError(f"LISTEN_FDS={count}: wanted: one socket")
    try:
        listener = socket.socket(fileno=_LISTEN_FD)
        listener.set_inheritable(False)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"descriptor {_LISTEN_FD}: {error.strerror}; wanted: a socket") from None
    if listener.family != socket.AF_UNIX or not is_listening:
        raise ConfigError(f"descriptor {_LISTEN_FD}: wanted: a listening AF_UNIX socket")
    return listener
