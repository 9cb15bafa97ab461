"""A run of bytes in a file or device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """``length`` bytes from ``offset`` on."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + self.length

    def overlaps(self, other: Extent) -> bool:
        """Whether the two share a byte."""
        return self.offset < other.end and other.offset < self.end

    def __str__(self) -> str:
        return f"bytes {self.offset} to {self.end}"
