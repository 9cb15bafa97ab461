"""Where the parts of a new LUKS2 volume lie.

Source: lib/luks2/luks2_json_format.c (LUKS2_generate_hdr); the defaults are those of cryptsetup
2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...keystore.errors import AccessError, ConfigError
from ..extent import Extent
from ..units import ENCRYPTION_SECTOR_SIZES, SECTOR_SIZE, round_up
from .binhdr import HDR_SIZES
from .keyslot import get_area_size
from .validate import AREA_ALIGNMENT, KEYSLOTS_SIZE_MAX

#: Both header copies and the keyslots area, so also where data begin.
DEFAULT_SIZE: Final = 16 * 1024 * 1024
_DATA_ALIGNMENT: Final = 1024 * 1024
_KEYSLOTS_SIZE_LOW: Final = 4 * 1024 * 1024 - 2 * 16 * 1024
TOO_SMALL: Final = "the device is too small for activation, there is no remaining space for data"


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
    *,
    key_size: int,
    header_size: int,
    header_can_grow: bool,
    data_size: int,
    is_detached: bool,
    data_offset: int | None = None,
    alignment: int | None = None,
    hdr_size: int | None = None,
    keyslots_size: int | None = None,
    sector_size: int | None = None,
) -> Layout:
    """A layout as cryptsetup would choose it; what is None is chosen.

    ``header_size`` and ``data_size`` are those of the files or devices (the same one unless the
    header is detached); ``alignment`` is that of the data, of a detached header where they begin.

    Raises:
        ConfigError: sizes that cannot be, or do not fit each other.
        AccessError: the device cannot hold the header.
    """
    hdr_size = _check_hdr_size(hdr_size)
    if is_detached:
        data_offset = data_offset or alignment
    _check_data_offset(data_offset, hdr_size, is_detached=is_detached)
    size = _choose_keyslots_size(
        hdr_size, data_offset, keyslots_size, header_size, can_grow=header_can_grow
    )
    if size < get_area_size(key_size):
        raise ConfigError(
            f"keyslots area: {size} bytes, one keyslot for a key of {key_size} bytes needs "
            f"{get_area_size(key_size)}"
        )
    end = 2 * hdr_size + size
    if header_size < end and not header_can_grow:
        raise AccessError(
            f"header: the device is too small, {header_size} bytes, need at least {end}"
        )
    if data_offset is None:
        data_offset = 0 if is_detached else round_up(end, alignment or _DATA_ALIGNMENT)
    notes: list[str] = []
    if size < _KEYSLOTS_SIZE_LOW:
        notes.append(
            f"keyslots area ({size} bytes) is very small, available LUKS2 keyslot count is "
            "very limited"
        )
    rest = data_size - data_offset
    if rest <= 0:
        notes.append(TOO_SMALL)
    chosen = _choose_sector_size(sector_size, rest)
    return Layout(hdr_size, size, data_offset, chosen, tuple(notes))


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


def _choose_keyslots_size(
    hdr_size: int, data_offset: int | None, wanted: int | None, header_size: int, *, can_grow: bool
) -> int:
    if wanted is not None:
        if wanted % AREA_ALIGNMENT or not 0 < wanted <= KEYSLOTS_SIZE_MAX:
            raise ConfigError(
                f"keyslots size {wanted}: wanted a multiple of {AREA_ALIGNMENT} up to "
                f"{KEYSLOTS_SIZE_MAX}"
            )
        size = wanted
    elif data_offset:
        size = data_offset - 2 * hdr_size
    else:
        size = DEFAULT_SIZE - 2 * hdr_size
        if header_size < DEFAULT_SIZE and not can_grow:
            size = header_size - 2 * hdr_size
    if data_offset:
        size = min(size, data_offset - 2 * hdr_size)
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
