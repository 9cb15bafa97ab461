"""``fusecrypt``: everything that a person types."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from ...keystore.errors import MapperError
from ..exitcodes import ExitCode
from .arguments import parse_arguments
from .output import Output, make_output


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    words = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    if "--debug" not in words:
        sys.excepthook = _hide_traceback
    output = Output()
    try:
        args = parse_arguments(words)
        output = make_output(args)
        from .commands import run

        code = run(args, output)
    except BrokenPipeError:  # the reader of standard output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.WRONG_PARAMETERS
    except (MapperError, OSError, MemoryError, KeyboardInterrupt) as error:
        if "--debug" in words:
            raise
        code = output.error(error)
    output.finish(code)
    return code


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _hide_traceback(kind: type[BaseException], value: BaseException, _trace: object) -> None:
    name = kind.__name__
    sys.stderr.write(f"fusecrypt: internal error: {name}: {value} (--debug shows where)\n")
