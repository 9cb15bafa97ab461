"""``fusecrypt``: everything that a person types."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from ...keystore.errors import MapperError
from ..exitcodes import ExitCode
from .arguments import parse_arguments
from .output import make_early_output, make_output


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    words = sys.argv[1:] if argv is None else argv
    is_debug = not {"--debug", "--debug-json"}.isdisjoint(words)
    if not is_debug:
        sys.excepthook = _hide_traceback
    _open_standard_descriptors()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup(1) ignores SIGHUP
            signal.signal(number, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None, where it was closed
            stream.reconfigure(errors="backslashreplace")
    output = make_early_output(words)
    try:
        args = parse_arguments(words)
        output = make_output(args)
        from .commands import run

        code = run(args, output)
        output.finish(code)
    except BrokenPipeError:  # the reader of standard output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.WRONG_PARAMETERS
    except (MapperError, OSError, MemoryError, KeyboardInterrupt) as error:
        if is_debug:
            import traceback

            traceback.print_exc()
        code = output.error(error)
        output.finish(code)
    return code


def _open_standard_descriptors() -> None:
    """Make sure that 0 to 2 are open, so that no image or key file gets such a number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)  # noqa: FBT003
    os.close(fd)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _hide_traceback(kind: type[BaseException], value: BaseException, _trace: object) -> None:
    name = kind.__name__
    sys.stderr.write(f"fusecrypt: internal error: {name}: {value} (--debug shows where)\n")
