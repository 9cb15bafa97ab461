"""Ask for one passphrase on a terminal and write it to a pipe: a program of its own.

Started by path with ``-I -S``: descriptor 0 is the terminal, descriptor 1 the pipe, the arguments
are the prompt and a time limit in seconds (0: none). The passphrase is in one bytearray, zeroed at
the end, of a process that makes no dump; so the daemon's heap never holds one. Exit status: 0
asked, 1 nothing was typed (end of file); 2 time is up; 3 the terminal failed.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import termios
from types import FrameType
from typing import Final

ASKED: Final = 0
NOTHING: Final = 1
TIMED_OUT: Final = 2
NO_TERMINAL: Final = 3

_TERMINAL: Final = 0
_PIPE: Final = 1
# n_tty.c: a line of the terminal has at most 4096 bytes, its newline included.
_LINE_MAX: Final = 4096
_PR_SET_DUMPABLE: Final = 4
_LFLAG: Final = 3  # index of the local modes in what tcgetattr returns


def ask(prompt: str, timeout: float, woken: int) -> int:
    """Show the prompt, read one line without echo, pass it on. Exit status.

    ``woken`` becomes readable when a signal came, whose handler then runs.
    """
    try:
        before = termios.tcgetattr(_TERMINAL)
    except termios.error:
        return NO_TERMINAL
    silent = [*before]
    silent[_LFLAG] = (before[_LFLAG] & ~termios.ECHO) | termios.ECHONL | termios.ICANON
    line = bytearray(_LINE_MAX)
    try:
        # TCSAFLUSH drops what was typed before the prompt, for another question.
        termios.tcsetattr(_TERMINAL, termios.TCSAFLUSH, silent)
        os.write(_TERMINAL, prompt.encode())
        ready, _, _ = select.select([_TERMINAL, woken], [], [], timeout or None)
        if not ready:
            os.write(_TERMINAL, b"\n")
            return TIMED_OUT
        count = os.readv(_TERMINAL, [line])
        if count == 0:
            return NOTHING
        with memoryview(line) as view:
            os.write(_PIPE, view[:count])
        return ASKED
    finally:
        line[:] = bytes(_LINE_MAX)
        termios.tcsetattr(_TERMINAL, termios.TCSADRAIN, before)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Ask as the arguments say."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # A signal between the prompt and select(2) would else not end the wait.
    woken, wakes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakes)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        return ask(sys.argv[1], float(sys.argv[2]), woken)
    except OSError:
        return NO_TERMINAL


if __name__ == "__main__":
    sys.exit(main())
