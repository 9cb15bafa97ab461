"""A header as it was before a change, of either LUKS; enough to put it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ..keystore.errors import AccessError
from .backing import Pread
from .extent import Extent


@dataclass(frozen=True, slots=True)
class OldHeader:
    """The bytes of a header and its key material."""

    type: Literal["luks1", "luks2"]
    uuid: str
    epoch: int  # LUKS2's sequence number; 0 for LUKS1, which has none
    size: int  # bytes of header and keyslots
    pieces: tuple[tuple[int, bytes], ...] = field(repr=False)  # offset, bytes; the rest is free


def read_piece(pread: Pread, number: int, area: Extent) -> tuple[int, bytes]:
    """The key material of keyslot ``number``, as one of an old header's pieces.

    Raises:
        AccessError: the backing store cannot be read, or ends within the area.
    """
    data = pread(area.offset, area.length)
    if len(data) != area.length:
        raise AccessError(f"keyslot {number}: ends behind the end of the file")
    return area.offset, data


#: Makes an old header durable somewhere else. Called once, before the first byte is written.
Keep = Callable[[OldHeader], None]
