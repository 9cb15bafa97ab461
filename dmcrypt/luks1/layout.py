"""Where the parts of a new LUKS1 volume lie.

Source: LUKS1 On-Disk Format Specification 1.2.3, section 4.1; lib/luks1/keymanage.c
(LUKS_generate_phdr), lib/setup.c (_crypt_format_luks1). All in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...keystore.errors import AccessError, ConfigError
from ..extent import Extent
from ..luks2.layout import TOO_SMALL
from ..units import SECTOR_SIZE, round_up
from .header import KEYSLOTS, get_area_size

#: Of key material; what is before the first area is the header's.
AREA_ALIGNMENT: Final = 4096
#: Of the data.
DATA_ALIGNMENT: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Layout:
    """The parts of a new volume."""

    areas: tuple[Extent, ...]  # of the keyslots' key material
    end: int  # of header and key material
    payload_offset: int
    notes: tuple[str, ...] = ()


def make_layout(
    *,
    key_size: int,
    header_size: int,
    header_can_grow: bool,
    data_size: int,
    is_detached: bool,
    data_offset: int | None = None,
    alignment: int | None = None,
) -> Layout:
    """A layout as cryptsetup would choose it; what is None is chosen.

    ``header_size`` and ``data_size`` are those of the files or devices (the same one unless the
    header is detached); ``alignment`` is that of the data, of a detached header where they begin.

    Raises:
        ConfigError: an offset that cannot be.
        AccessError: the device cannot hold the header.
    """
    areas = place_areas(key_size)
    end = round_up(areas[-1].end, AREA_ALIGNMENT)
    if header_size < end and not header_can_grow:
        raise AccessError(
            f"header: the device is too small, {header_size} bytes, need at least {end}"
        )
    if is_detached:
        data_offset = data_offset or alignment
    if data_offset is not None:
        _check_data_offset(data_offset, end)
    else:
        data_offset = 0 if is_detached else round_up(end, alignment or DATA_ALIGNMENT)
    notes = (TOO_SMALL,) if data_size <= data_offset else ()
    return Layout(areas, end, data_offset, notes)


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
