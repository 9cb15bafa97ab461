"""A LUKS1 header made a LUKS2 header.

Where LUKS2 has its header copies, LUKS1 has key material. That is moved first, all of it by as much
(see luks1/shift.py), while the header stays LUKS1; then LUKS2's second copy is written, then the
first sector of the first one, which makes it LUKS2 in one write, then the rest. So whatever moment
the power goes, the volume opens, as the one or as the other.

Source: lib/luks2/luks2_luks1_convert.c (LUKS2_luks1_to_luks2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...keystore.errors import ConfigError
from ..backing import get_size, pread_from, sync
from ..engine.messages import DigestSpec, Kdf, KdfType, KeyslotSpec
from ..luks1 import edit as luks1
from ..luks1.change import changing
from ..luks1.header import STRIPES, Luks1Header
from ..luks1.shift import is_risky, shift_areas, shift_header
from ..luks2 import Luks2Header, read_header
from ..luks2.binhdr import BINHDR_SIZE, HDR_SIZES, BinaryHeader
from ..luks2.json_area import JsonObject
from ..luks2.json_objects import make_root
from ..luks2.keyslot import get_area_size
from ..luks2.metadata import parse_metadata
from ..luks2.update import write_over_foreign
from ..luks2.validate import AREA_ALIGNMENT, KEYSLOTS_SIZE_MAX, validate
from ..old_header import Keep
from ..units import SECTOR_SIZE
from ..wipe import grow, wipe_unused

_HDR_SIZE: Final = HDR_SIZES[0]
#: Where LUKS2's keyslots area begins.
BEGIN: Final = 2 * _HDR_SIZE


@dataclass(frozen=True, slots=True)
class Plan:
    """How a header is converted."""

    root: JsonObject  # the JSON object
    keyslots_size: int
    shift: int  # bytes that the key material is moved by
    end: int  # where key material may lie up to
    is_risky: bool  # a cut may cost a keyslot, of which there is a backup then


def plan_luks2(header: Luks1Header) -> Plan:
    """How, and to what, a LUKS1 header would be converted.

    Raises:
        ConfigError: there is no room for it.
        UnsupportedError, FormatError: the header would be none.
    """
    offsets = [slot.area_offset for slot in header.keyslots]
    if any(offset % AREA_ALIGNMENT for offset in offsets):
        raise ConfigError(f"cannot be LUKS2: keyslots are not aligned to {AREA_ALIGNMENT} bytes")
    shift = max(BEGIN - min(offsets), 0)
    size = get_area_size(header.key_size)
    last = max(offsets) + shift + size
    end = header.payload_offset
    if not end:
        # A detached header may grow; a gap at its end, too, if no keyslot is free.
        end = last + (0 if luks1.find_free_keyslot(header) is not None else size)
    if last > end:
        raise ConfigError(
            f"cannot be LUKS2: its header takes {BEGIN} bytes, for which the key material cannot "
            f"make room before the data at byte {end}"
        )
    shifted = shift_header(header, shift)
    keyslots_size = min((end - BEGIN) // AREA_ALIGNMENT * AREA_ALIGNMENT, KEYSLOTS_SIZE_MAX)
    root = _make_root(shifted, keyslots_size)
    validate(parse_metadata(root), _HDR_SIZE - BINHDR_SIZE)
    return Plan(root, keyslots_size, shift, end, shift > 0 and is_risky(header, shift, end))


def convert_to_luks2(fd: int, keep: Keep, *, may_risk: bool) -> Luks2Header:
    """Convert; the header as it is then.

    Raises:
        ConfigError: there is no room, or it takes a risk that may not be taken.
        BusyError: another process holds the header's lock.
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    with changing(fd, keep) as change:
        plan = plan_luks2(change.header)
        change.begin()
        if not change.header.payload_offset and get_size(fd) < BEGIN + plan.keyslots_size:
            grow(fd, BEGIN + plan.keyslots_size)
        if plan.shift:
            shift_areas(change, plan.shift, plan.end, may_risk=may_risk)
        binary = BinaryHeader.make_first(_HDR_SIZE, change.header.uuid)
        write_over_foreign(fd, binary, plan.root)
        header = read_header(pread_from(fd), get_size(fd))
        _wipe_rest(fd, header)
        return header


def _wipe_rest(fd: int, header: Luks2Header) -> None:
    """Random bytes wherever in the keyslots area no keyslot lies: key material was there."""
    end = min(BEGIN + header.metadata.config.keyslots_size, get_size(fd))
    wipe_unused(fd, BEGIN, end, (slot.area.extent for slot in header.metadata.keyslots))
    sync(fd)


def _make_root(header: Luks1Header, keyslots_size: int) -> JsonObject:
    return make_root(
        keyslots={number: _make_keyslot(header, number) for number in header.list_keyslots()},
        digest=DigestSpec(
            header.hash_name,
            header.digest_iterations,
            header.digest_salt,
            header.digest,
            len(header.digest),
        ),
        encryption=header.cipher,
        data_offset=header.payload_offset,
        sector_size=SECTOR_SIZE,
        json_size=_HDR_SIZE - BINHDR_SIZE,
        keyslots_size=keyslots_size,
    )


def _make_keyslot(header: Luks1Header, number: int) -> KeyslotSpec:
    """A keyslot as it stands, even one whose costs we would not pay to open it."""
    slot = header.keyslots[number]
    return KeyslotSpec(
        key_size=header.key_size,
        stripes=STRIPES,
        af_hash=header.hash_name,
        area_offset=slot.area_offset,
        area_length=get_area_size(header.key_size),
        area_cipher=header.cipher,
        area_key_size=header.key_size,
        kdf=Kdf(KdfType.PBKDF2, slot.salt, slot.iterations, hash_name=header.hash_name),
    )
