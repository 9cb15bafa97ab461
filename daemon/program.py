"""What the server programs have in common: their first option, and how an error ends them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable

from ..keystore.errors import MapperError
from .exitcodes import get_exit_code
from .version import VERSION

log = logging.getLogger(__name__)


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """A parser for the words of the program ``name``, which knows --version."""
    parser = argparse.ArgumentParser(prog=name, description=description, allow_abbrev=False)
    parser.add_argument(
        "-V",
        "--version",
        action="version",
        version=f"{name} {VERSION}",
        help="print the version",
    )
    return parser


def run_logged(work: Callable[[], int]) -> int:
    """What ``work`` returns, or the exit code of what it fails with; errors of ours are logged."""
    try:
        return work()
    except MapperError as error:
        log.error("%s", error)  # noqa: TRY400 (no bug of ours)
        return get_exit_code(error)
    except KeyboardInterrupt as error:
        return get_exit_code(error)
