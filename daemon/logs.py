"""Where log lines go and how they look there."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

_STDERR: Final = 2
# sd-daemon(3): priorities of syslog(3) in front of a line.
_PRIORITIES: Final = (
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
    (logging.DEBUG, 7),
)


class _JournalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = next((p for level, p in _PRIORITIES if record.levelno >= level), 7)
        # Each line is an entry of its own there.
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def is_journal(fd: int) -> bool:
    """Whether a descriptor leads to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    status = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def start_logging(*, is_debug: bool, has_times: bool, program: str = "fusecryptd") -> None:
    """Log to standard error, from INFO or DEBUG up; ``has_times``: it is a file."""
    # Python has none when it was started with descriptor 2 closed.
    stream = sys.stderr or os.fdopen(_STDERR, "w", closefd=False)
    handler = logging.StreamHandler(stream)
    if is_journal(_STDERR):
        handler.setFormatter(_JournalFormatter("%(message)s"))
    elif has_times:
        text = f"%(asctime)s {program}[%(process)d] %(levelname)s: %(message)s"
        handler.setFormatter(logging.Formatter(text))
    else:
        handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if is_debug else logging.INFO)
    # It would write several lines for each request.
    logging.getLogger("pyfuse3").setLevel(logging.WARNING)
