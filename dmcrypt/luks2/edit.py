"""Changes of a LUKS2 header: a header value in, a header value out. No I/O.

What a change does not concern, tokens and fields that nobody told us of included, stays as it is
and where it is. The result is parsed and validated anew, so no function here can make a header
that would not be read back.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3; how the real tool chooses numbers and
areas: lib/luks2/luks2_keyslot.c, luks2_json_metadata.c, luks2_digest.c, luks2_token.c.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, cast

from ...keystore.errors import ConfigError, FormatError
from ..engine.messages import DigestSpec, Kdf, KdfType, KeyslotSpec
from ..extent import Extent
from ..volume_uuid import parse_uuid
from .binhdr import LABEL_SIZE
from .json_area import JsonObject, pack_json_area
from .keyslot import AREA_ALIGNMENT, PRIORITY_NORMAL, find_bound
from .metadata import parse_metadata
from .model import Digest, Keyslot
from .recovery import Luks2Header
from .validate import get_keyslots_end, validate

KEYSLOTS_MAX: Final = 32
DIGESTS_MAX: Final = 8
_KDF_NAMES: Final = {
    KdfType.PBKDF2: "pbkdf2",
    KdfType.ARGON2I: "argon2i",
    KdfType.ARGON2ID: "argon2id",
}


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
    root = _copy(header)
    _section(root, "keyslots")[str(number)] = _keyslot_json(spec)
    if isinstance(digest, DigestSpec):
        digests = _section(root, "digests")
        free = next((n for n in range(DIGESTS_MAX) if str(n) not in digests), None)
        if free is None:
            raise ConfigError(f"digests: all {DIGESTS_MAX} are in use")
        digests[str(free)] = _digest_json(digest, number)
    else:
        _list(_section(root, "digests"), str(digest), "keyslots").append(str(number))
    return _rebuild(header, root)


def replace_keyslot(header: Luks2Header, number: int, spec: KeyslotSpec) -> Luks2Header:
    """A header whose keyslot ``number`` is another; its priority, digest and tokens stay.

    Raises:
        ConfigError: the JSON area is full.
    """
    root = _copy(header)
    keyslots = _section(root, "keyslots")
    old = cast("JsonObject", keyslots[str(number)])
    new = _keyslot_json(spec)
    keyslots[str(number)] = {**new, **{k: v for k, v in old.items() if k not in new}}
    return _rebuild(header, root)


def remove_keyslots(header: Luks2Header, numbers: Iterable[int]) -> Luks2Header:
    """A header without these keyslots, and without digests that nothing refers to any more."""
    root = _copy(header)
    gone = {str(number) for number in numbers}
    for number in gone:
        del _section(root, "keyslots")[number]
    digests = _section(root, "digests")
    for section in (digests, _section(root, "tokens")):
        for key in section:
            _drop(_list(section, key, "keyslots"), gone)
    for key in list(digests):
        if not _list(digests, key, "keyslots") and not _list(digests, key, "segments"):
            del digests[key]
    return _rebuild(header, root)


def set_priority(header: Luks2Header, number: int, priority: int) -> Luks2Header:
    """A header whose keyslot ``number`` has a priority.

    Raises:
        ConfigError: there is no such keyslot.
    """
    get_keyslot(header, number)
    root = _copy(header)
    slot = cast("JsonObject", _section(root, "keyslots")[str(number)])
    if priority == PRIORITY_NORMAL:
        slot.pop("priority", None)
    else:
        slot["priority"] = priority
    return _rebuild(header, root)


def set_labels(header: Luks2Header, change: LabelChange) -> Luks2Header:
    """A header with another label or subsystem.

    Raises:
        ConfigError: too long. (The real tool cuts it.)
    """
    binary = header.binary
    for what, text in (("label", change.label), ("subsystem", change.subsystem)):
        if text is None:
            continue
        if len(text.encode("utf-8", "surrogateescape")) >= LABEL_SIZE or "\0" in text:
            raise ConfigError(f"{what}: wanted at most {LABEL_SIZE - 1} bytes, without NUL")
    return replace(
        header,
        binary=replace(
            binary,
            label=binary.label if change.label is None else change.label,
            subsystem=binary.subsystem if change.subsystem is None else change.subsystem,
        ),
    )


def set_uuid(header: Luks2Header, text: str) -> Luks2Header:
    """A header with another UUID.

    Raises:
        ConfigError: not a UUID.
    """
    return replace(header, binary=replace(header.binary, uuid=parse_uuid(text)))


def set_flags(header: Luks2Header, flags: Iterable[str], *, known: Iterable[str]) -> Luks2Header:
    """A header with these flags in place of the ``known`` ones; others stay."""
    root = _copy(header)
    config = _section(root, "config")
    others = set(header.metadata.config.flags) - set(known)
    kept = [flag for flag in header.metadata.config.flags if flag in others]
    config["flags"] = [*flags, *kept]
    if not config["flags"]:
        del config["flags"]
    return _rebuild(header, root)


def move_areas(header: Luks2Header, places: dict[int, Extent]) -> Luks2Header:
    """A header whose keyslots have their key material elsewhere; what lies there is not moved."""
    root = _copy(header)
    for number, extent in places.items():
        slot = cast("JsonObject", _section(root, "keyslots")[str(number)])
        area = cast("JsonObject", slot["area"])
        area["offset"] = str(extent.offset)
    return _rebuild(header, root)


def change_tokens(header: Luks2Header, tokens: JsonObject) -> Luks2Header:
    """A header with this ``tokens`` section; see token_edit.py.

    Raises:
        FormatError: a token that is none.
        ConfigError: the JSON area is full.
    """
    root = _copy(header)
    root["tokens"] = copy.deepcopy(tokens)
    return _rebuild(header, root)


def rebuild(header: Luks2Header, root: JsonObject) -> Luks2Header:
    """A header with this JSON area, parsed and validated anew.

    Raises:
        FormatError: no metadata of LUKS2.
        ConfigError: the JSON area is full.
    """
    return _rebuild(header, root)


def _rebuild(header: Luks2Header, root: JsonObject) -> Luks2Header:
    size = header.binary.json_size
    metadata = parse_metadata(root)
    validate(metadata, size)
    try:
        pack_json_area(root, size)
    except FormatError as error:
        raise ConfigError(f"{error}; the header has no room for this change") from None
    return replace(header, root=root, metadata=metadata)


def _keyslot_json(spec: KeyslotSpec) -> JsonObject:
    """The fields in cryptsetup's order."""
    return {
        "type": "luks2",
        "key_size": spec.key_size,
        "af": {"type": "luks1", "stripes": spec.stripes, "hash": spec.af_hash},
        "area": {
            "type": "raw",
            "offset": str(spec.area_offset),
            "size": str(spec.area_length),
            "encryption": spec.area_cipher,
            "key_size": spec.area_key_size,
        },
        "kdf": _kdf_json(spec.kdf),
    }


def _kdf_json(kdf: Kdf) -> JsonObject:
    name, salt = _KDF_NAMES[kdf.type], _base64(kdf.salt)
    if kdf.type is KdfType.PBKDF2:
        return {"type": name, "hash": kdf.hash_name, "iterations": kdf.iterations, "salt": salt}
    return {
        "type": name,
        "time": kdf.iterations,
        "memory": kdf.memory_kib,
        "cpus": kdf.lanes,
        "salt": salt,
    }


def _digest_json(digest: DigestSpec, keyslot: int) -> JsonObject:
    return {
        "type": "pbkdf2",
        "keyslots": [str(keyslot)],
        "segments": [],
        "hash": digest.hash_name,
        "iterations": digest.iterations,
        "salt": _base64(digest.salt),
        "digest": _base64(digest.digest),
    }


def _copy(header: Luks2Header) -> JsonObject:
    return copy.deepcopy(header.root)


def _section(root: JsonObject, name: str) -> JsonObject:
    return cast("JsonObject", root[name])


def _list(section: JsonObject, key: str, name: str) -> list[object]:
    item = cast("JsonObject", section[key])
    return cast("list[object]", item[name])


def _drop(items: list[object], gone: set[str]) -> None:
    items[:] = [item for item in items if item not in gone]


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
