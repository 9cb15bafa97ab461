"""Changes of a LUKS1 header: a header value in, a header value out. No I/O.

The result is parsed and checked anew, so no function here can make a header that would not be
read back.

Source: LUKS1 On-Disk Format Specification 1.2.3, section 4; how the real tool chooses keyslots and
what it mends: lib/luks1/keymanage.c (LUKS_keyslot_find_empty, _keyslot_repair).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...keystore.errors import ConfigError, FormatError
from ..engine.messages import Kdf
from ..units import SECTOR_SIZE
from ..volume_uuid import parse_uuid
from .header import ENABLED, KEYSLOTS, STRIPES, Keyslot, Luks1Header
from .layout import AREA_ALIGNMENT, place_areas


def check_keyslot_number(number: int) -> None:
    """Refuse a number that no keyslot can have.

    Raises:
        ConfigError: it is too large.
    """
    if not 0 <= number < KEYSLOTS:
        raise ConfigError(f"keyslot {number}: is invalid, wanted 0 to {KEYSLOTS - 1}")


def get_keyslot(header: Luks1Header, number: int) -> Keyslot:
    """A keyslot that is in use.

    Raises:
        ConfigError: it is not.
    """
    check_keyslot_number(number)
    slot = header.keyslots[number]
    if not slot.is_enabled:
        raise ConfigError(f"keyslot {number}: is not active")
    return slot


def is_last_keyslot(header: Luks1Header, number: int) -> bool:
    """Whether no other keyslot holds the volume key."""
    return header.list_keyslots() == (number,)


def find_free_keyslot(header: Luks1Header) -> int | None:
    """The lowest keyslot that is not in use."""
    return next((n for n, slot in enumerate(header.keyslots) if not slot.is_enabled), None)


def choose_keyslot(header: Luks1Header, number: int | None) -> int:
    """``number`` if it is free, or the lowest that is.

    Raises:
        ConfigError: it is in use, cannot be, or all are in use.
    """
    if number is None:
        free = find_free_keyslot(header)
        if free is None:
            raise ConfigError(f"keyslots: all {KEYSLOTS} are in use")
        return free
    check_keyslot_number(number)
    if header.keyslots[number].is_enabled:
        raise ConfigError(f"keyslot {number}: is in use; wanted: another one")
    return number


def add_keyslot(header: Luks1Header, number: int, kdf: Kdf) -> Luks1Header:
    """A header with keyslot ``number`` in use; its key material lies where it always would.

    Raises:
        FormatError: the header has no room there.
    """
    offset = header.keyslots[number].area_offset
    slot = Keyslot(ENABLED, kdf.iterations, kdf.salt, offset, STRIPES)
    return rebuild(header.with_keyslot(number, slot))


def remove_keyslots(header: Luks1Header, numbers: Iterable[int]) -> Luks1Header:
    """A header that has these keyslots free."""
    for number in numbers:
        header = header.with_keyslot(number, header.keyslots[number].disabled())
    return rebuild(header)


def set_uuid(header: Luks1Header, text: str) -> Luks1Header:
    """A header with another UUID.

    Raises:
        ConfigError: not a UUID.
    """
    return rebuild(replace(header, uuid=parse_uuid(text)))


def mend(header: Luks1Header) -> tuple[Luks1Header, tuple[str, ...]]:
    """A header whose free keyslots lie where they should, and what was wrong with them.

    ``header`` may be one that was decoded only. Keyslots in use are left alone: where their key
    material lies, nobody else knows.

    Raises:
        FormatError: something is wrong that cannot be mended so.
    """
    if header.keyslots[0].area_offset < AREA_ALIGNMENT:
        raise FormatError(
            f"keyslot 0: key material offset: {header.keyslots[0].area_offset}; keyslots that are "
            f"not aligned to {AREA_ALIGNMENT} bytes cannot be mended"
        )
    notes: list[str] = []
    areas = place_areas(header.key_size, header.keyslots[0].area_offset)
    for number, (slot, area) in enumerate(zip(header.keyslots, areas, strict=True)):
        if slot.is_enabled:
            continue
        wrong = _list_wrong(slot, area.offset)
        if wrong:
            notes += [f"keyslot {number}: {text}" for text in wrong]
            mended = replace(slot.disabled(), area_offset=area.offset, stripes=STRIPES)
            header = header.with_keyslot(number, mended)
    return rebuild(header), tuple(notes)


def rebuild(header: Luks1Header) -> Luks1Header:
    """The header as it would be read back.

    Raises:
        FormatError, UnsupportedError: it would not.
    """
    return Luks1Header.parse(header.pack())


def _list_wrong(slot: Keyslot, offset: int) -> list[str]:
    wrong: list[str] = []
    if slot.area_offset != offset:
        got, wanted = slot.area_offset // SECTOR_SIZE, offset // SECTOR_SIZE
        wrong.append(f"offset repaired ({got} -> {wanted})")
    if slot.stripes != STRIPES:
        wrong.append(f"stripes repaired ({slot.stripes} -> {STRIPES})")
    if slot.state != slot.disabled().state:
        wrong.append(f"neither enabled nor disabled ({slot.state:#010x})")
    return wrong
