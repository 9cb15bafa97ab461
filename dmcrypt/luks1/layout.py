"""Where the parts of a new LUKS1 volume lie.

Source: LUKS1 On-Disk Format Specification 1.2.3, section 4.1; lib/luks1/keymanage.c
(LUKS_generate_phdr), lib/setup.c (_crypt_format_luks1). All in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...keystore.errors import ConfigError
from ..extent import Extent
from ..format_room import Room
from ..units import SECTOR_SIZE, round_up
from .header import KEYSLOTS, get_area_size

#: Of key material; what is before the first area is the header's.
AREA_ALIGNMENT: Final = 4096


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a new volume."""

    areas: tuple[Extent, ...]  # of the keyslots' key material
    end: int  # of header and key material
    payload_offset: int
    notes: tuple[str, ...] = ()


def make_layout(room: Room, key_size: int) -> Layout:
    """A layout as cryptsetup would choose it, for a key of ``key_size`` bytes.

    Raises:
        ConfigError: an offset that cannot be.
        AccessError: the device cannot hold the header.
    """
    areas = place_areas(key_size)
    end = round_up(areas[-1].end, AREA_ALIGNMENT)
    room.check_header(end)
    if room.data_offset is not None:
        _check_data_offset(room.data_offset, end)
    data_offset = room.choose_data_offset(end)
    return Layout(areas, end, data_offset, room.list_notes(data_offset))


def place_areas(key_size: int, first: int = AREA_ALIGNMENT) -> tuple[Extent, ...]:
    """The areas of all keyslots, the first of which is at ``first``."""
    length = get_area_size(key_size)
    step = round_up(length, AREA_ALIGNMENT)
    return tuple(Extent(first + n * step, length) for n in range(KEYSLOTS))


def _check_data_offset(data_offset: int, end: int) -> None:
    sectors = data_offset // SECTOR_SIZE
    if data_offset % AREA_ALIGNMENT:
        raise ConfigError(
            f"data offset {sectors} [512-byte sectors]: not a multiple of "
            f"{AREA_ALIGNMENT // SECTOR_SIZE}"
        )
    if data_offset < end:
        raise ConfigError(
            f"data offset {sectors} [512-byte sectors]: too small, header and key material take "
            f"{end // SECTOR_SIZE}"
        )
