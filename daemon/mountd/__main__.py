"""fusecrypt-mountd: started by systemd when the daemon connects to its socket."""

from __future__ import annotations

import argparse
import functools
import os
import pwd
import sys
from collections.abc import Sequence
from typing import Final

from ...keystore.errors import ConfigError
from ..config import load_settings
from ..exitcodes import ExitCode
from ..hardening import forbid_dumps
from ..logs import start_logging
from ..notify import notify
from ..passed_socket import find_passed_listener
from ..program import make_parser, run_logged
from .opening import Opener
from .server import Client, Server

_PROGRAM: Final = "fusecrypt-mountd"
#: Seconds without a connection after which it ends; systemd starts it again.
_IDLE: Final = 60.0


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(_PROGRAM, "Mount for fusecryptd, and open what root's crypttab names.")
    parser.add_argument("--user", default="fusecrypt", help="whom the daemon runs as")
    return parser.parse_args(arguments)


def _run(user: str) -> ExitCode:
    listener = find_passed_listener()
    if listener is None:
        raise ConfigError("no socket was passed; wanted: a start by fusecrypt-mountd.socket")
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f"user {user}: there is none; systemd-sysusers makes it") from None
    mount_point = load_settings().device_dir
    with listener:
        server = Server(Client(account.pw_uid, account.pw_gid), mount_point, Opener(mount_point))
        notify("READY=1", f"STATUS=serving user {user}")
        server.serve(listener, idle=_IDLE)
    return ExitCode.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the socket that systemd passed; exit code of the table in `exitcodes`."""
    given = _parse_arguments(arguments)
    start_logging(is_debug=False, has_times=False, program=_PROGRAM)
    # What a peer has asked for is not to be had out of this process by another of its user.
    forbid_dumps()
    os.umask(0o077)
    return run_logged(functools.partial(_run, given.user))


if __name__ == "__main__":
    sys.exit(main())
