"""fusecrypt-mountd: started by systemd when the daemon connects to its socket."""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import pwd
import sys
from collections.abc import Sequence
from typing import Final

from ...keystore.errors import ConfigError, MapperError
from ..config import load_settings
from ..exitcodes import ExitCode, get_exit_code
from ..keystored.passed_socket import find_passed_listener
from ..logs import start_logging
from ..notify import notify
from ..version import VERSION
from .opening import Opener
from .server import Client, Server

log = logging.getLogger(__name__)

#: Seconds without a connection after which it ends; systemd starts it again.
_IDLE: Final = 60.0
_PR_SET_DUMPABLE: Final = 4


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fusecrypt-mountd",
        description="Mount for fusecryptd, and open what root's crypttab names.",
        allow_abbrev=False,
    )
    parser.add_argument("--user", default="fusecrypt", help="whom the daemon runs as")
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    return parser.parse_args(arguments)


def _run(user: str) -> None:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the socket that systemd passed; exit code of the table in `exitcodes`."""
    given = _parse_arguments(arguments)
    if given.version:
        sys.stdout.write(f"fusecrypt-mountd {VERSION}\n")
        return ExitCode.OK
    start_logging(is_debug=False, has_times=False, program="fusecrypt-mountd")
    # What a peer has asked for is not to be had out of this process by another of its user.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o077)
    try:
        _run(given.user)
    except MapperError as error:
        log.error("%s", error)  # noqa: TRY400 (no bug of ours)
        return get_exit_code(error)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
