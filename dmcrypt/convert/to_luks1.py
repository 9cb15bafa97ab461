"""A LUKS2 header made a LUKS1 header.

A LUKS1 keyslot may have its key material anywhere before the data, so it stays where it is. The
header's second sector is written first, which voids LUKS2's first copy and leaves the second; then
the first sector, which makes it LUKS1 in one write. What is left of LUKS2 is wiped. So whatever
moment the power goes, the volume opens, as the one or as the other.

Then the key material is moved to where the real tool has it, which else could not convert the
header back (see luks1/shift.py); where that is not possible without a risk, it stays.

Source: lib/luks2/luks2_luks1_convert.c (LUKS2_luks2_to_luks1), for what cannot be converted.
"""

from __future__ import annotations

import base64
import binascii

from ...keystore.errors import ConfigError
from ..backing import get_size, sync
from ..extent import Extent
from ..luks1.change import changing as changing1
from ..luks1.format import split_cipher
from ..luks1.header import (
    DIGEST_SIZE,
    DISABLED,
    ENABLED,
    HASHES,
    HEADER_SIZE,
    KEYSLOTS,
    SALT_SIZE,
    STRIPES,
    Keyslot,
    Luks1Header,
    get_area_size,
)
from ..luks1.layout import AREA_ALIGNMENT
from ..luks1.shift import is_risky, shift_areas
from ..luks1.update import write_header
from ..luks2 import Luks2Header
from ..luks2 import model as luks2
from ..luks2.change import changing
from ..luks2.keyslot import find_bound
from ..old_header import Keep
from ..units import SECTOR_SIZE, UINT32_MAX, round_up
from ..wipe import grow, wipe_random, wipe_unused, wipe_zeros


def plan_luks1(header: Luks2Header) -> Luks1Header:
    """The LUKS1 header of the same volume.

    Raises:
        ConfigError: it has what LUKS1 has not; says what.
    """
    segment = _get_segment(header.metadata)
    digest = _get_digest(header.metadata)
    slots = header.metadata.keyslots
    if not slots:
        raise _refuse("there is no keyslot, so nothing tells the size of the volume key")
    key_size = slots[0].key_size
    for slot in slots:
        _check_keyslot(slot, key_size, segment, digest)
    name, mode = split_cipher(segment.encryption or "")
    areas = _place_areas(header, key_size, segment.offset)
    if areas is None:
        raise _refuse(f"there is no room for {KEYSLOTS} keyslots before the data")
    salt, value = (_decode(text) for text in (digest.salt, digest.digest))
    if len(value) < DIGEST_SIZE or len(salt) != SALT_SIZE:
        raise _refuse("the digest of the volume key has not the size of LUKS1's")
    made = Luks1Header(
        cipher_name=name,
        cipher_mode=mode,
        hash_name=(digest.hash or "").lower(),
        payload_offset=segment.offset,
        key_size=key_size,
        # Of PBKDF2's first block the beginning is what a shorter result would be (RFC 8018, 5.2).
        digest=value[:DIGEST_SIZE],
        digest_salt=salt,
        digest_iterations=digest.iterations or 0,
        uuid=header.binary.uuid,
        keyslots=tuple(
            _make_keyslot(header.metadata.find_keyslot(number), area)
            for number, area in enumerate(areas)
        ),
    )
    return Luks1Header.parse(made.pack())


def convert_to_luks1(fd: int, keep: Keep) -> Luks1Header:
    """Convert; the header as it is then.

    Raises:
        ConfigError: it has what LUKS1 has not.
        BusyError: another process holds the header's lock.
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    with changing(fd, keep) as change:
        old = change.header
        made = plan_luks1(old)
        change.begin()  # mends a damaged copy, too
        grow(fd, made.area_size)
        write_header(fd, made)
        wipe_zeros(fd, Extent(HEADER_SIZE, AREA_ALIGNMENT - HEADER_SIZE))
        begin = 2 * old.binary.hdr_size
        wipe_random(fd, Extent(AREA_ALIGNMENT, begin - AREA_ALIGNMENT))
        sync(fd)
    return _move_to_begin(fd, made)


def _move_to_begin(fd: int, header: Luks1Header) -> Luks1Header:
    delta = AREA_ALIGNMENT - min(slot.area_offset for slot in header.keyslots)
    end = header.payload_offset or get_size(fd)
    if delta == 0 or is_risky(header, delta, end):
        return header
    with changing1(fd, lambda _old: None) as change:  # the old header is kept already
        if change.header != header:
            return change.header
        made = shift_areas(change, delta, end, may_risk=False)
        # Copies were made in gaps and in keyslots that are not in use.
        reached = min(end, header.area_size + AREA_ALIGNMENT + header.get_area(0).length)
        used = (made.get_area(number) for number in made.list_keyslots())
        wipe_unused(fd, AREA_ALIGNMENT, reached, used)
        sync(fd)
        return made


def _get_segment(metadata: luks2.Metadata) -> luks2.Segment:
    config = metadata.config
    if config.requirements:
        raise _refuse(f"requirements: {', '.join(config.requirements)}")
    if metadata.tokens:
        raise _refuse(f"there are tokens: {', '.join(str(token.id) for token in metadata.tokens)}")
    segments = metadata.segments
    if len(segments) != 1 or segments[0].type != "crypt":
        raise _refuse("the data are not one segment of type crypt")
    segment = segments[0]
    if segment.sector_size != SECTOR_SIZE:
        raise _refuse(f"the sector size is {segment.sector_size}, not {SECTOR_SIZE}")
    if segment.integrity is not None:
        raise _refuse(f"the data have integrity, {segment.integrity}")
    if segment.size is not None or segment.iv_tweak or segment.flags:
        raise _refuse("the segment has a size, an IV offset, or flags")
    if segment.offset // SECTOR_SIZE > UINT32_MAX:
        raise _refuse(f"the data begin at {segment.offset}, which is too far")
    if (segment.encryption or "").startswith("paes"):
        raise _refuse("the volume key is a secure key, which LUKS1 cannot hold")
    return segment


def _get_digest(metadata: luks2.Metadata) -> luks2.Digest:
    digests = metadata.digests
    names = {(digest.hash or "").lower() for digest in digests}
    if len(digests) != 1 or digests[0].type != "pbkdf2" or not names <= set(HASHES):
        raise _refuse("there is not one PBKDF2 digest with a hash that LUKS1 has")
    bound = find_bound(metadata, metadata.segments[0].id)
    for slot in metadata.keyslots:
        if slot.id >= KEYSLOTS:
            raise _refuse(f"keyslot {slot.id} is in use, LUKS1 has {KEYSLOTS}")
        if slot.id not in bound:
            raise _refuse(f"keyslot {slot.id} is unbound")
    return digests[0]


def _check_keyslot(
    slot: luks2.Keyslot, key_size: int, segment: luks2.Segment, digest: luks2.Digest
) -> None:
    kdf, af, area = slot.kdf, slot.af, slot.area
    wrong = ""
    if slot.type != "luks2" or kdf is None or af is None:
        wrong = f"its type is {slot.type}"
    elif kdf.type != "pbkdf2":
        wrong = f"its KDF is {kdf.type}"
    elif len({(name or "").lower() for name in (kdf.hash, af.hash, digest.hash)}) != 1:
        wrong = f"its hash is not the digest's, {digest.hash}"
    elif (area.encryption, area.key_size) != (segment.encryption, key_size):
        wrong = "its key material is not enciphered as the data are"
    elif slot.key_size != key_size or af.stripes != STRIPES or len(_decode(kdf.salt)) != SALT_SIZE:
        wrong = "key size, stripes or salt are not those of LUKS1"
    elif area.extent.length < get_area_size(key_size) or area.extent.offset % SECTOR_SIZE:
        wrong = "its area is too small, or begins within a sector"
    if wrong:
        raise _refuse(f"keyslot {slot.id}: {wrong}")


def _place_areas(header: Luks2Header, key_size: int, data_offset: int) -> tuple[Extent, ...] | None:
    """Those in use where they are, the others in gaps before the data; None without room for all.

    Behind LUKS2's header copies if that is possible, so that all can be moved afterwards.
    """
    length = get_area_size(key_size)
    used = {slot.id: Extent(slot.area.extent.offset, length) for slot in header.metadata.keyslots}
    for begin in (2 * header.binary.hdr_size, AREA_ALIGNMENT):
        taken, at = dict(used), begin
        free = [number for number in range(KEYSLOTS) if number not in taken]
        for extent in [*sorted(taken.values()), None]:
            while free and (extent is None or at + length <= extent.offset):
                taken[free.pop(0)] = Extent(at, length)
                at = round_up(at + length, AREA_ALIGNMENT)
            if extent is not None:
                at = max(at, round_up(extent.end, AREA_ALIGNMENT))
        if not data_offset or max(taken.values()).end <= data_offset:
            return tuple(taken[number] for number in range(KEYSLOTS))
    return None


def _make_keyslot(slot: luks2.Keyslot | None, area: Extent) -> Keyslot:
    if slot is None or slot.kdf is None:
        return Keyslot(DISABLED, 0, bytes(SALT_SIZE), area.offset, STRIPES)
    salt = _decode(slot.kdf.salt)
    return Keyslot(ENABLED, slot.kdf.iterations or 0, salt, area.offset, STRIPES)


def _decode(text: str | None) -> bytes:
    try:
        return base64.b64decode(text or "", validate=True)
    except binascii.Error:
        return b""


def _refuse(why: str) -> ConfigError:
    return ConfigError(f"cannot be LUKS1: {why}")
