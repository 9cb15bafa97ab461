"""How far a long action is: one line at a terminal, with the time that is left."""

from __future__ import annotations

import sys
import threading
import time
from typing import Final, Self, TypeVar

from .output import Output

Value = TypeVar("Value")

_INTERVAL: Final = 0.2  # seconds between two updates


class Progress:
    """Counts steps; writes to standard error if that is a terminal. Any thread may step."""

    def __init__(self, what: str, total: int, output: Output) -> None:
        self._what = what
        self._total = total
        self._is_shown = (
            output.json_mode == "off" and not output.is_quiet and sys.stderr.isatty() and total > 1
        )
        self._lock = threading.Lock()
        self._done = 0
        self._start = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def step(self, value: Value) -> Value:
        """One more is done; gives back ``value``."""
        with self._lock:
            self._done += 1
            now = time.monotonic()
            if self._is_shown and now - self._last >= _INTERVAL:
                self._last = now
                sys.stderr.write(f"\r\x1b[K{self.format(now - self._start)}")
                sys.stderr.flush()
        return value

    def format(self, elapsed: float) -> str:
        """The line, after so many seconds."""
        left = elapsed / self._done * (self._total - self._done) if self._done else 0.0
        minutes, seconds = divmod(round(left), 60)
        return f"{self._what}: {self._done} of {self._total}, {minutes:d}:{seconds:02d} left"
