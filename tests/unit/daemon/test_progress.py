"""The line that says how far a long action is."""

import io
import sys

import pytest

from fusecrypt.daemon.cli.output import Output
from fusecrypt.daemon.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_time_that_is_left_is_estimated() -> None:
    progress = Progress("staged", 1000, Output())
    assert progress.format(0.0) == "staged: 0 of 1000, 0:00 left"
    for _ in range(250):
        assert progress.step("same") == "same"
    assert progress.format(40.0) == "staged: 250 of 1000, 2:00 left"


@pytest.mark.parametrize(
    ("output", "is_shown"),
    [(Output(), True), (Output("short"), False), (Output(is_quiet=True), False)],
)
def test_only_who_looks_is_told(
    monkeypatch: pytest.MonkeyPatch, output: Output, is_shown: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("fusecrypt.daemon.cli.progress._INTERVAL", 0)
    with Progress("staged", 2, output) as progress:
        progress.step(None)
    assert ("staged: 1 of 2" in terminal.getvalue()) is is_shown
    assert terminal.getvalue().endswith("\r\x1b[K") is is_shown
