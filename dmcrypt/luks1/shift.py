"""Moving the key material of all LUKS1 keyslots by a few pages, which overlaps where it lay.

A keyslot in use lies elsewhere meanwhile: in a gap, to which it points while it moves, or as a copy
in a keyslot that is not in use, whose same salt and costs open with the same passphrase. Each write
of the header changes one keyslot. So whatever moment the power goes, every passphrase opens the
volume. Only where there is neither a gap nor a free keyslot the material is overwritten, and while
that of a keyslot moves its passphrase opens nothing.
"""

from __future__ import annotations

from dataclasses import replace

from ...keystore.errors import ConfigError
from ..backing import pread_from, pwrite, sync
from ..extent import Extent
from ..units import round_up
from . import edit
from .change import Change
from .header import KEYSLOTS, Keyslot, Luks1Header, get_area_size
from .layout import AREA_ALIGNMENT


def shift_header(header: Luks1Header, delta: int) -> Luks1Header:
    """The header with all areas ``delta`` bytes further on.

    Raises:
        FormatError: there is no room.
    """
    slots = tuple(replace(slot, area_offset=slot.area_offset + delta) for slot in header.keyslots)
    return edit.rebuild(replace(header, keyslots=slots))


def is_risky(header: Luks1Header, delta: int, end: int) -> bool:
    """Whether keyslots can be moved only by overwriting them."""
    return edit.find_free_keyslot(header) is None and _find_gap(header, delta, end) is None


def shift_areas(change: Change, delta: int, end: int, *, may_risk: bool) -> Luks1Header:
    """Move all key material by ``delta`` bytes; the header as it is then.

    ``end`` is where key material may lie up to: the data, or the end of a detached header.

    Raises:
        ConfigError: it cannot be done without a risk that may not be taken.
        FormatError: there is no room.
        AccessError: the backing store refuses.
    """
    shift_header(change.header, delta)
    if is_risky(change.header, delta, end) and not may_risk:
        raise ConfigError("key material: no keyslot is free, and no gap, to move it safely")
    gap = _find_gap(change.header, delta, end)
    numbers = sorted(range(KEYSLOTS), key=lambda n: change.header.keyslots[n].area_offset)
    for number in reversed(numbers) if delta > 0 else numbers:
        slot = change.header.keyslots[number]
        moved = replace(slot, area_offset=slot.area_offset + delta)
        free = edit.find_free_keyslot(change.header)
        if not slot.is_enabled:
            _write(change, number, moved)
        elif gap is not None:
            _copy(change, number, number, replace(slot, area_offset=gap.offset))
            _copy(change, number, number, moved)
        elif free is not None:
            offset = change.header.keyslots[free].area_offset
            _copy(change, number, free, replace(slot, area_offset=offset))
            _write(change, number, moved.disabled())
            _copy(change, free, number, moved)
            change.write(edit.remove_keyslots(change.header, [free]))
        else:
            _copy(change, number, number, moved)
    return change.header


def _find_gap(header: Luks1Header, delta: int, end: int) -> Extent | None:
    """Room behind all areas, as they are and as they will be."""
    size = get_area_size(header.key_size)
    last = max(slot.area_offset for slot in header.keyslots) + size + max(delta, 0)
    at = round_up(last, AREA_ALIGNMENT)
    return Extent(at, size) if at + size <= end else None


def _write(change: Change, number: int, slot: Keyslot) -> None:
    change.write(edit.rebuild(change.header.with_keyslot(number, slot)))


def _copy(change: Change, source: int, target: int, slot: Keyslot) -> None:
    """Have ``target`` be ``slot``, with the key material of ``source``."""
    area = change.header.get_area(source)
    data = pread_from(change.fd)(area.offset, area.length)
    change.begin()
    pwrite(change.fd, data, slot.area_offset)
    sync(change.fd)
    _write(change, target, slot)
