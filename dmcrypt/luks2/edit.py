"""Changes of a LUKS2 header: a header value in, a header value out. No I/O.

What a change does not concern, tokens and fields that nobody told us of included, stays as it is
and where it is. The result is parsed and validated anew, so no function here can make a header
that would not be read back.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3; how the real tool chooses numbers and
areas: lib/luks2/luks2_keyslot.c, luks2_json_metadata.c, luks2_digest.c, luks2_token.c.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from ...keystore.errors import ConfigError, FormatError
from ..engine.messages import DigestSpec, KeyslotSpec
from ..extent import Extent
from ..volume_uuid import parse_uuid
from .binhdr import check_label
from .json_area import JsonObject, get_array, get_object, pack_json_area
from .json_objects import inherit, pack_digest, pack_keyslot
from .keyslot import AREA_ALIGNMENT, KEYSLOTS_MAX, PRIORITY_NORMAL, find_bound
from .metadata import parse_metadata
from .model import Digest, Keyslot
from .recovery import Luks2Header
from .validate import get_keyslots_end, validate

DIGESTS_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class LabelChange:
    """New names of a volume; None leaves one as it is."""

    label: str | None = None
    subsystem: str | None = None


def get_keyslot(header: Luks2Header, number: int) -> Keyslot:
    """A keyslot that is there.

    Raises:
        ConfigError: it is not.
    """
    check_keyslot_number(number)
    slot = header.metadata.find_keyslot(number)
    if slot is None:
        raise ConfigError(f"keyslot {number}: is not active")
    return slot


def check_keyslot_number(number: int) -> None:
    """Refuse a number that no keyslot can have.

    Raises:
        ConfigError: it is too large.
    """
    if not 0 <= number < KEYSLOTS_MAX:
        raise ConfigError(f"keyslot {number}: is invalid, wanted 0 to {KEYSLOTS_MAX - 1}")


def get_digest_of(header: Luks2Header, number: int) -> Digest:
    """The digest of the key in a keyslot; a valid header has one for each."""
    return next(digest for digest in header.metadata.digests if number in digest.keyslots)


def is_last_keyslot(header: Luks2Header, number: int) -> bool:
    """Whether no other keyslot holds the volume key."""
    return find_bound(header.metadata, 0) == frozenset({number})


def choose_keyslot(header: Luks2Header, number: int | None) -> int:
    """``number`` if it is free, or the lowest that is.

    Raises:
        ConfigError: it is in use, cannot be, or all are in use.
    """
    used = {slot.id for slot in header.metadata.keyslots}
    if number is None:
        free = next((n for n in range(KEYSLOTS_MAX) if n not in used), None)
        if free is None:
            raise ConfigError(f"keyslots: all {KEYSLOTS_MAX} are in use")
        return free
    check_keyslot_number(number)
    if number in used:
        raise ConfigError(f"keyslot {number}: is in use; wanted: another one")
    return number


def find_free_area(
    header: Luks2Header, length: int, *, besides: Iterable[Extent] = ()
) -> Extent | None:
    """The first gap of the keyslots area that holds ``length`` bytes, ``besides`` left out."""
    taken = [slot.area.extent for slot in header.metadata.keyslots]
    at = 2 * header.binary.hdr_size
    for extent in sorted([*taken, *besides]):
        if extent.offset >= at + length:
            break
        at = max(at, -(-extent.end // AREA_ALIGNMENT) * AREA_ALIGNMENT)
    return Extent(at, length) if at + length <= get_keyslots_end(header.metadata.config) else None


def get_free_area(header: Luks2Header, length: int) -> Extent:
    """As `find_free_area`.

    Raises:
        ConfigError: there is none.
    """
    area = find_free_area(header, length)
    if area is None:
        raise ConfigError(
            f"no space for a new keyslot: its key material takes {length} bytes in one piece, "
            "which the keyslots area does not have; luksKillSlot frees some"
        )
    return area


def add_keyslot(
    header: Luks2Header, number: int, spec: KeyslotSpec, digest: int | DigestSpec
) -> Luks2Header:
    """A header with a keyslot more.

    ``digest`` is the number of the one that its key has, or a new one: then the keyslot is unbound.

    Raises:
        ConfigError: the digests are all in use, or the JSON area is full.
    """
    root = copy.deepcopy(header.root)
    get_object(root, "keyslots")[str(number)] = pack_keyslot(spec)
    if isinstance(digest, DigestSpec):
        digests = get_object(root, "digests")
        free = next((n for n in range(DIGESTS_MAX) if str(n) not in digests), None)
        if free is None:
            raise ConfigError(f"digests: all {DIGESTS_MAX} are in use")
        digests[str(free)] = pack_digest(digest, keyslots=[number], segments=[])
    else:
        get_array(root, "digests", str(digest), "keyslots").append(str(number))
    return rebuild(header, root)


def replace_keyslot(header: Luks2Header, number: int, spec: KeyslotSpec) -> Luks2Header:
    """A header whose keyslot ``number`` is another; its priority, digest and tokens stay.

    Raises:
        ConfigError: the JSON area is full.
    """
    root = copy.deepcopy(header.root)
    keyslots = get_object(root, "keyslots")
    old = get_object(keyslots, str(number))
    keyslots[str(number)] = inherit(pack_keyslot(spec), old)
    return rebuild(header, root)


def remove_keyslots(header: Luks2Header, numbers: Iterable[int]) -> Luks2Header:
    """A header without these keyslots, and without digests that nothing refers to any more."""
    root = copy.deepcopy(header.root)
    gone = {str(number) for number in numbers}
    for number in gone:
        del get_object(root, "keyslots")[number]
    digests = get_object(root, "digests")
    for section in (digests, get_object(root, "tokens")):
        for key in section:
            _drop(get_array(section, key, "keyslots"), gone)
    for key in list(digests):
        if not get_array(digests, key, "keyslots") and not get_array(digests, key, "segments"):
            del digests[key]
    return rebuild(header, root)


def set_priority(header: Luks2Header, number: int, priority: int) -> Luks2Header:
    """A header whose keyslot ``number`` has a priority.

    Raises:
        ConfigError: there is no such keyslot.
    """
    get_keyslot(header, number)
    root = copy.deepcopy(header.root)
    slot = get_object(root, "keyslots", str(number))
    if priority == PRIORITY_NORMAL:
        slot.pop("priority", None)
    else:
        slot["priority"] = priority
    return rebuild(header, root)


def set_labels(header: Luks2Header, change: LabelChange) -> Luks2Header:
    """A header with another label or subsystem.

    Raises:
        ConfigError: too long.
    """
    binary = header.binary
    label = binary.label if change.label is None else change.label
    subsystem = binary.subsystem if change.subsystem is None else change.subsystem
    check_label("label", label)
    check_label("subsystem", subsystem)
    return replace(header, binary=replace(binary, label=label, subsystem=subsystem))


def set_uuid(header: Luks2Header, text: str) -> Luks2Header:
    """A header with another UUID.

    Raises:
        ConfigError: not a UUID.
    """
    return replace(header, binary=replace(header.binary, uuid=parse_uuid(text)))


def set_flags(header: Luks2Header, flags: Iterable[str], *, known: Iterable[str]) -> Luks2Header:
    """A header with these flags in place of the ``known`` ones; others stay."""
    root = copy.deepcopy(header.root)
    config = get_object(root, "config")
    others = set(header.metadata.config.flags) - set(known)
    kept = [flag for flag in header.metadata.config.flags if flag in others]
    config["flags"] = [*flags, *kept]
    if not config["flags"]:
        del config["flags"]
    return rebuild(header, root)


def move_areas(header: Luks2Header, places: dict[int, Extent]) -> Luks2Header:
    """A header whose keyslots have their key material elsewhere; what lies there is not moved."""
    root = copy.deepcopy(header.root)
    for number, extent in places.items():
        slot = get_object(root, "keyslots", str(number))
        area = get_object(slot, "area")
        area["offset"] = str(extent.offset)
    return rebuild(header, root)


def change_tokens(header: Luks2Header, tokens: JsonObject) -> Luks2Header:
    """A header with this ``tokens`` section; see token_edit.py.

    Raises:
        FormatError: a token that is none.
        ConfigError: the JSON area is full.
    """
    root = copy.deepcopy(header.root)
    root["tokens"] = copy.deepcopy(tokens)
    return rebuild(header, root)


def rebuild(header: Luks2Header, root: JsonObject) -> Luks2Header:
    """A header with this JSON area, parsed and validated anew.

    Raises:
        FormatError: no metadata of LUKS2.
        ConfigError: the JSON area is full.
    """
    size = header.binary.json_size
    metadata = parse_metadata(root)
    validate(metadata, size)
    try:
        pack_json_area(root, size)
    except FormatError as error:
        raise ConfigError(f"{error}; the header has no room for this change") from None
    return replace(header, root=root, metadata=metadata)


def _drop(items: list[object], gone: set[str]) -> None:
    items[:] = [item for item in items if item not in gone]
