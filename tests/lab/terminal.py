"""A command at a terminal of its own, with somebody who answers what it asks."""

import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 60.0  # seconds
_MOMENT = 0.05


@dataclass(frozen=True)
class Dialog:
    """How it ended, and all that stood on the screen."""

    code: int
    screen: str

    @property
    def questions(self) -> list[str]:
        """The lines that wait for an answer, up to the colon behind them."""
        lines = self.screen.replace("\r", "").split("\n")
        return [line.partition(":")[0] for line in lines if _is_question(line)]


def _is_question(line: str) -> bool:
    return line.startswith(("Enter ", "Verify ", "Are you sure?"))


def talk(
    words: Sequence[str | Path], answers: Sequence[str], environment: dict[str, str]
) -> Dialog:
    """Run a command; whenever it waits behind a question, it gets the next answer."""
    pid, fd = os.forkpty()
    if pid == 0:
        os.execvpe(str(words[0]), [str(word) for word in words], environment)
    left, screen = list(answers), b""
    limit = time.monotonic() + _PATIENCE
    try:
        while True:
            ready, _, _ = select.select([fd], [], [], _MOMENT)
            if ready:
                try:
                    piece = os.read(fd, 65536)
                except OSError:  # EIO: nobody holds the other end any more
                    break
                if not piece:
                    break
                screen += piece
            last = screen.rpartition(b"\n")[2].decode(errors="replace").lstrip("\r")
            if left and not ready and _is_question(last) and last.rstrip().endswith(":"):
                screen += b"\n"  # of a passphrase nothing is echoed
                os.write(fd, left.pop(0).encode() + b"\n")
            assert time.monotonic() < limit, f"it waits for more answers: {screen!r}"
    finally:
        os.close(fd)
    _, status = os.waitpid(pid, 0)
    assert not left, f"it did not ask for {len(left)} of the answers: {screen!r}"
    return Dialog(os.waitstatus_to_exitcode(status), screen.decode(errors="replace"))
