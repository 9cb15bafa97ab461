"""fusecryptd: the daemon's command."""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Sequence

from ..keystore.errors import ConfigError
from .background import (
    describe_error,
    go_background,
    open_standard_descriptors,
    open_terminal,
    report_nowhere,
)
from .config import CRYPTTAB_VARIABLE, Settings, load_settings, prepare_runtime_dir
from .crypttab_files import CrypttabFiles, OwnRights
from .exitcodes import ExitCode, get_exit_code
from .hardening import harden
from .logs import start_logging
from .program import make_parser, run_logged

log = logging.getLogger(__name__)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "fusecryptd", "Open the encrypted volumes of a crypttab and serve them over FUSE."
    )
    parser.add_argument(
        "--runtime-dir", metavar="DIR", help="control socket and mount (FUSECRYPT_RUNTIME_DIR)"
    )
    parser.add_argument(
        "--crypttab", metavar="FILE", help="the only crypttab to read (FUSECRYPT_CRYPTTAB)"
    )
    parser.add_argument(
        "--no-crypttab", action="store_true", help="open no entry until it is asked for"
    )
    parser.add_argument(
        "--fork", action="store_true", help="go to the background once the volumes are open"
    )
    parser.add_argument("-v", "--verbose", "--debug", action="store_true", help="log more")
    return parser.parse_args(arguments)


def _run(given: argparse.Namespace) -> ExitCode:
    settings = load_settings(runtime_dir=given.runtime_dir, crypttab=given.crypttab)
    prepare_runtime_dir(settings)
    files = _choose_files(settings)
    crypttab = files.load()
    terminal = open_terminal()
    report = go_background(settings.log_file) if given.fork else report_nowhere
    try:
        start_logging(is_debug=given.verbose, has_times=given.fork)
        harden()
        for problem in crypttab.own_problems:
            log.log(logging.ERROR if problem.is_error else logging.WARNING, "%s", problem)
        # Only now, in the process that stays: trio and pyfuse3 take 20 MB.
        from .prompt import Prompter
        from .supervisor import Plan, run_daemon

        prompter = Prompter(terminal, settings.mountd)
        is_opening = not given.no_crypttab
        plan = Plan(settings, files, crypttab, prompter, report, opens_entries=is_opening)
        return run_daemon(plan)
    except BaseException as error:
        report([describe_error(error)], get_exit_code(error))
        raise


def _choose_files(settings: Settings) -> CrypttabFiles:
    if settings.mountd is None:
        return OwnRights(settings.crypttabs)
    if settings.is_crypttab_named:
        raise ConfigError(
            f"--crypttab and {CRYPTTAB_VARIABLE}: fusecrypt-mountd reads the crypttab;"
            " wanted: crypttab in /etc/fusecrypt/fusecrypt.toml"
        )
    from .mountd.client import MountdFiles

    return MountdFiles(settings.mountd)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; exit code of the table in `exitcodes`."""
    open_standard_descriptors()
    given = _parse_arguments(arguments)
    start_logging(is_debug=given.verbose, has_times=False)
    return run_logged(functools.partial(_run, given))


if __name__ == "__main__":
    sys.exit(main())
