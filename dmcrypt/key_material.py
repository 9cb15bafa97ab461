"""Whether the areas of keyslots still look like what was written there. Only reads.

What is in an area is enciphered, so each of its sectors is as good as random: one that is not was
overwritten. Of 512 random bytes 221 values are expected, and fewer than 150 never come up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .backing import Pread
from .extent import Extent
from .units import SECTOR_SIZE

_LEAST_VALUES: Final = 150
_PIECE: Final = 1 << 20


def find_damage(pread: Pread, area: Extent) -> list[tuple[Extent, str]]:
    """The runs of sectors that hold no key material, with what is there instead.

    ``area`` is what is used of it; a file that ends before it is found, too.
    """
    runs: list[tuple[Extent, str]] = []
    for offset, what in _classify(pread, area):
        if not what:
            continue
        if runs and runs[-1][0].end == offset and runs[-1][1] == what:
            runs[-1] = (Extent(runs[-1][0].offset, runs[-1][0].length + SECTOR_SIZE), what)
        else:
            runs.append((Extent(offset, SECTOR_SIZE), what))
    return runs


def _classify(pread: Pread, area: Extent) -> Iterator[tuple[int, str]]:
    for start in range(area.offset, area.end, _PIECE):
        data = pread(start, min(_PIECE, area.end - start))
        for at in range(0, min(_PIECE, area.end - start), SECTOR_SIZE):
            yield start + at, _describe(data[at : at + SECTOR_SIZE])


def _describe(sector: bytes) -> str:
    values = len(set(sector))
    if len(sector) < SECTOR_SIZE:
        return "" if sector and values > len(sector) // 4 else "not in the file"
    if values == 1:
        return f"only bytes of {sector[0]:#04x}"
    return "no random bytes" if values < _LEAST_VALUES else ""
