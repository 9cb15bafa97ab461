"""The room for a new volume of either LUKS: sizes of its files or devices, and what was asked for.

Source: lib/setup.c (_crypt_format_luks1, _crypt_format_luks2). All in bytes but where it says so.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

from ..keystore.errors import AccessError
from .backing import get_size
from .units import SECTOR_SIZE, round_up

_DATA_ALIGNMENT: Final = 1024 * 1024
TOO_SMALL: Final = "the device is too small for activation, there is no remaining space for data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where header and data may lie; the sizes are of the same file unless the header is apart."""

    header_size: int
    header_can_grow: bool
    data_size: int
    is_detached: bool
    data_offset: int | None = None  # asked for
    alignment: int | None = None  # of the data, asked for

    def check_header(self, end: int) -> None:
        """Refuse a header that reaches to ``end``, if it cannot.

        Raises:
            AccessError: the device ends before.
        """
        if self.header_size < end and not self.header_can_grow:
            raise AccessError(
                f"header: the device is too small, {self.header_size} bytes, need at least {end}"
            )

    def choose_data_offset(self, end: int) -> int:
        """Where the data begin that lie behind a header that reaches to ``end``."""
        if self.data_offset is not None:
            return self.data_offset
        return 0 if self.is_detached else round_up(end, self.alignment or _DATA_ALIGNMENT)

    def list_notes(self, data_offset: int) -> tuple[str, ...]:
        """What a user should know of data that begin there."""
        return (TOO_SMALL,) if self.data_size <= data_offset else ()


def measure_room(
    fd: int, header_fd: int | None, *, offset: int | None, alignment: int | None
) -> Room:
    """The room in ``fd``, with the header in ``header_fd`` if that is given.

    ``offset`` and ``alignment`` are 512-byte sectors, of the data; None or 0 leaves the choice to
    cryptsetup's rules. With a detached header the alignment is where the data begin.

    Raises:
        AccessError: no file or device.
    """
    is_detached = header_fd is not None
    target = fd if header_fd is None else header_fd
    sectors = offset or (alignment if is_detached else None)
    return Room(
        header_size=get_size(target),
        header_can_grow=stat.S_ISREG(os.fstat(target).st_mode),
        data_size=get_size(fd),
        is_detached=is_detached,
        data_offset=sectors * SECTOR_SIZE if sectors else None,
        alignment=alignment * SECTOR_SIZE if alignment else None,
    )
