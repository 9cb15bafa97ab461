"""Something about a header or a volume that its owner should know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"  # data or keys are lost, open to others, or cannot be had as it is
    WARNING = "warning"  # one more mishap, or a better attacker, and it is an error
    NOTE = "note"  # nothing is wrong, but it is good to know


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; ``id`` is for programs and does not change with the words."""

    severity: Severity
    id: str
    message: str
    where: str  # in the file or the header
    command: str = ""  # what mends it, where anything does
