"""fusecrypt-keystored: the command."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...keystore.errors import AccessError, MapperError
from ..background import (
    describe_error,
    go_background,
    open_standard_descriptors,
    report_nowhere,
)
from ..config import Settings, load_settings, prepare_runtime_dir
from ..exitcodes import ExitCode, get_exit_code
from ..hardening import forbid_privileges, harden, lock_memory
from ..logs import start_logging
from ..passed_socket import find_passed_listener
from ..program import make_parser, run_logged
from .messages import PROGRAM

if TYPE_CHECKING:
    from pathlib import Path

    from ...keystore.coprocessors import Coprocessors
    from ..background import Report

log = logging.getLogger(__name__)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(PROGRAM, "Hold virtual cryptographic adapters and their master keys.")
    parser.add_argument(
        "--runtime-dir", metavar="DIR", help="where its socket is (FUSECRYPT_RUNTIME_DIR)"
    )
    parser.add_argument(
        "--fork",
        action="store_true",
        help="go to the background, and end when it is not needed any more",
    )
    parser.add_argument("-v", "--verbose", "--debug", action="store_true", help="log more")
    return parser.parse_args(arguments)


def _run(given: argparse.Namespace) -> ExitCode:
    settings = load_settings(runtime_dir=given.runtime_dir)
    passed = find_passed_listener()
    if passed is None and settings.named_keystore_socket is None:
        prepare_runtime_dir(settings)
    _check_owner(settings.keystore_dir)
    log_file = settings.keystore_socket.with_name("keystored.log")
    report = go_background(log_file, PROGRAM) if given.fork else report_nowhere
    try:
        start_logging(is_debug=given.verbose, has_times=given.fork, program=PROGRAM)
        harden()
        forbid_privileges()
        _serve(settings, passed, report, is_on_demand=given.fork)
    except BaseException as error:
        report([describe_error(error)], get_exit_code(error))
        raise
    return ExitCode.OK


def _serve(
    settings: Settings, passed: socket.socket | None, report: Report, *, is_on_demand: bool
) -> None:
    # Only now, in the process that stays.
    from pathlib import Path

    import trio

    from ...keystore.audit import AuditLog
    from ...keystore.coprocessors import Coprocessors
    from ...keystore.secure_guest import read_boot_id
    from ..notify import notify
    from .engines import Engines
    from .methods import Methods
    from .place import Place, take_place
    from .server import serve

    credentials = os.environ.get("CREDENTIALS_DIRECTORY")  # systemd.exec(5)
    boot_id = os.environ.get("FUSECRYPT_BOOT_ID")
    coprocessors = Coprocessors(
        settings.keystore_dir,
        host_key=settings.host_key,
        credentials=Path(credentials) if credentials else None,
        read_boot_id=read_boot_id if boot_id is None else lambda: boot_id,
    )
    methods = Methods(
        coprocessors,
        settings.keystore_dir,
        memory="locked" if lock_memory() else "may be swapped",
        audit=AuditLog(settings.keystore_dir),
        engines=None if settings.engines is None else Engines(settings.engines),
    )
    status = _describe(coprocessors)

    async def run(listener: socket.socket, place: Place | None) -> None:
        start = functools.partial(
            serve,
            listener,
            methods,
            is_shared=place is None,
            is_on_demand=is_on_demand and place is not None,
            place=place,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(start)
            notify("READY=1", f"STATUS={status}")
            report([], ExitCode.OK)

    if passed is not None:
        with passed:
            trio.run(run, passed, None)
    else:
        with take_place(settings.keystore_socket) as own:
            trio.run(run, own.listener, own)


def _describe(coprocessors: Coprocessors) -> str:
    """What there is, in a line; what cannot be read is logged."""
    try:
        count = len(coprocessors.list_info())
    except MapperError as error:
        log.error("%s", error)  # noqa: TRY400 (no bug of ours)
        return str(error)
    return f"{count} adapters"


def _check_owner(directory: Path) -> None:
    """Adapters of another user would become unreadable for him.

    Raises:
        AccessError: they are.
    """
    try:
        owner = directory.stat().st_uid
    except OSError:
        return
    if owner != os.geteuid():
        raise AccessError(
            f"{directory}: belongs to user {owner}, who has to run {PROGRAM}; we are user"
            f" {os.geteuid()}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the keystored; exit code of the table in `exitcodes`."""
    open_standard_descriptors()
    given = _parse_arguments(arguments)
    start_logging(is_debug=given.verbose, has_times=False, program=PROGRAM)
    return run_logged(functools.partial(_run, given))


if __name__ == "__main__":
    sys.exit(main())
