"""What an action is: its words, its options, and where it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .options import COMMON
from .output import Output

Action = Callable[[Arguments, Settings, Output], ExitCode]


@dataclass(frozen=True, slots=True)
class Command:
    """One action."""

    usage: str
    help: str
    load: Callable[[], Action]
    options: frozenset[str] = frozenset()
    minimum: int = 0
    maximum: int = 0
    common: frozenset[str] = COMMON  # options that every action of its tool takes

    @property
    def all_options(self) -> frozenset[str]:
        """What it takes."""
        return self.options | self.common
