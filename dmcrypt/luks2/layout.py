"""Where the parts of a new LUKS2 volume lie.

Source: lib/luks2/luks2_json_format.c (LUKS2_generate_hdr); the defaults are those of cryptsetup
2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...keystore.errors import ConfigError
from ..extent import Extent
from ..format_room import Room
from ..units import ENCRYPTION_SECTOR_SIZES, SECTOR_SIZE
from .binhdr import HDR_SIZES
from .keyslot import get_area_size
from .validate import AREA_ALIGNMENT, KEYSLOTS_SIZE_MAX

#: Both header copies and the keyslots area, so also where data begin.
DEFAULT_SIZE: Final = 16 * 1024 * 1024
_KEYSLOTS_SIZE_LOW: Final = 4 * 1024 * 1024 - 2 * 16 * 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a new volume, all in bytes."""

    hdr_size: int  # of one header copy
    keyslots_size: int
    data_offset: int
    sector_size: int
    notes: tuple[str, ...] = ()

    @property
    def keyslots(self) -> Extent:
        """The keyslots area."""
        return Extent(2 * self.hdr_size, self.keyslots_size)


def make_layout(
    room: Room,
    key_size: int,
    *,
    hdr_size: int | None = None,
    keyslots_size: int | None = None,
    sector_size: int | None = None,
) -> Layout:
    """A layout as cryptsetup would choose it, for a key of ``key_size`` bytes; None is chosen.

    Raises:
        ConfigError: sizes that cannot be, or do not fit each other.
        AccessError: the device cannot hold the header.
    """
    hdr_size = _check_hdr_size(hdr_size)
    _check_data_offset(room.data_offset, hdr_size, is_detached=room.is_detached)
    size = _choose_keyslots_size(room, hdr_size, keyslots_size)
    if size < get_area_size(key_size):
        raise ConfigError(
            f"keyslots area: {size} bytes, one keyslot for a key of {key_size} bytes needs "
            f"{get_area_size(key_size)}"
        )
    end = 2 * hdr_size + size
    room.check_header(end)
    data_offset = room.choose_data_offset(end)
    chosen = _choose_sector_size(sector_size, room.data_size - data_offset)
    notes = _note_small_area(size) + room.list_notes(data_offset)
    return Layout(hdr_size, size, data_offset, chosen, notes)


def _note_small_area(size: int) -> tuple[str, ...]:
    if size >= _KEYSLOTS_SIZE_LOW:
        return ()
    count = "available LUKS2 keyslot count is very limited"
    return (f"keyslots area ({size} bytes) is very small, {count}",)


def _check_hdr_size(hdr_size: int | None) -> int:
    if hdr_size is None:
        return HDR_SIZES[0]
    if hdr_size not in HDR_SIZES:
        raise ConfigError(
            f"metadata size {hdr_size}: wanted a power of two from {HDR_SIZES[0]} to "
            f"{HDR_SIZES[-1]}"
        )
    return hdr_size


def _check_data_offset(data_offset: int | None, hdr_size: int, *, is_detached: bool) -> None:
    if data_offset is None:
        return
    # crypt_set_data_offset: a multiple of the largest encryption sector.
    if data_offset % ENCRYPTION_SECTOR_SIZES[-1]:
        raise ConfigError(
            f"data offset {data_offset // SECTOR_SIZE} [512-byte sectors]: not a multiple of "
            f"{ENCRYPTION_SECTOR_SIZES[-1] // SECTOR_SIZE}"
        )
    if not is_detached and data_offset < 2 * hdr_size:
        raise ConfigError(
            f"data offset {data_offset // SECTOR_SIZE} [512-byte sectors]: too small, the two "
            "headers alone "
            f"take {2 * hdr_size // SECTOR_SIZE}"
        )


def _choose_keyslots_size(room: Room, hdr_size: int, wanted: int | None) -> int:
    if wanted is not None:
        if wanted % AREA_ALIGNMENT or not 0 < wanted <= KEYSLOTS_SIZE_MAX:
            raise ConfigError(
                f"keyslots size {wanted}: wanted a multiple of {AREA_ALIGNMENT} up to "
                f"{KEYSLOTS_SIZE_MAX}"
            )
        size = wanted
    elif room.data_offset:
        size = room.data_offset - 2 * hdr_size
    else:
        size = DEFAULT_SIZE - 2 * hdr_size
        if room.header_size < DEFAULT_SIZE and not room.header_can_grow:
            size = room.header_size - 2 * hdr_size
    if room.data_offset:
        size = min(size, room.data_offset - 2 * hdr_size)
    return max(0, min(size, KEYSLOTS_SIZE_MAX)) // AREA_ALIGNMENT * AREA_ALIGNMENT


def _choose_sector_size(wanted: int | None, rest: int) -> int:
    """As cryptsetup: 4096 where the data are whole sectors of it, unless told otherwise."""
    if wanted is None:
        largest = ENCRYPTION_SECTOR_SIZES[-1]
        return largest if rest % largest == 0 else SECTOR_SIZE
    if wanted not in ENCRYPTION_SECTOR_SIZES:
        raise ConfigError(f"sector size {wanted}: wanted 512, 1024, 2048 or 4096")
    if rest % wanted:
        raise ConfigError(
            f"device size: {rest} bytes of data are not a multiple of the sector size {wanted}"
        )
    return wanted
