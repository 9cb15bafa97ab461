"""systemd's password agents: systemd-ask-password(1) has whoever is at the machine asked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

PROGRAM: Final = "systemd-ask-password"


def find_agent() -> str | None:
    """The path of the program, where it can be of use."""
    # Without a running systemd it would wait for an answer that nobody can give.
    if not Path("/run/systemd/system").is_dir():
        return None
    return shutil.which(PROGRAM)


def make_command(program: str, question: str, *, identity: str, time_limit: float) -> list[str]:
    """The command that writes the answer to its standard output.

    ``identity`` is the volume's source, by which agents know the question; ``time_limit`` in
    seconds, 0 for none.
    """
    return [
        program,
        f"--timeout={time_limit:.0f}",
        f"--id=cryptsetup:{identity}",
        "--icon=drive-harddisk",
        make_printable(question),
    ]


def make_printable(text: str) -> str:
    """The text without what a terminal would act upon."""
    return "".join(c if c.isprintable() else "?" for c in text)
