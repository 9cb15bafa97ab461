"""Another volume key in a LUKS2 header, and the tokens that go with it. No I/O.

The new key has keyslots and a digest of its own. While it waits, they are unbound, and a token for
each names the keyslot in whose place it is to come; when it is activated, the digest becomes the
data's, and each new keyslot takes number, priority and tokens of the old one. zkey-cryptsetup,
whose tokens these are, keeps only one keyslot; it can complete what we staged, and we what it did.

Source: zkey-cryptsetup.c of s390-tools for the tokens; LUKS2 On-Disk Format Specification 1.1.4,
sections 3.2, 3.4 and 3.6.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from ...keystore.errors import ConfigError, FormatError
from ..engine.messages import DigestSpec, KeyslotSpec
from . import digest as digests
from . import edit
from .json_area import JsonObject, get_array, get_object
from .json_objects import inherit, pack_digest
from .keyslot import find_bound
from .model import Metadata
from .recovery import Luks2Header
from .token import VERIFICATION_PATTERN
from .token_edit import add_token, remove_token

REENCIPHER: Final = "paes-reencipher"
_PATTERN_FIELD: Final = "verification-pattern"
_PATTERN: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Pending:
    """A keyslot with a re-enciphered volume key that waits."""

    token: int
    original: int  # the keyslot whose place it is to take
    unbound: int
    pattern: str  # the verification pattern of the key: 64 hexadecimal digits


def find_pending(metadata: Metadata) -> tuple[Pending, ...]:
    """The keyslots that wait, by their tokens.

    Raises:
        FormatError: a token that is not as zkey-cryptsetup writes it, or whose keyslots are not.
    """
    bound = find_bound(metadata, 0)
    found: list[Pending] = []
    for token in metadata.tokens:
        if token.type != REENCIPHER:
            continue
        content = cast("dict[str, object]", json.loads(token.text))
        original, unbound = content.get("original-keyslot"), content.get("unbound-keyslot")
        pattern = content.get(_PATTERN_FIELD)
        if (
            not isinstance(original, int)
            or not isinstance(unbound, int)
            or not isinstance(pattern, str)
            or _PATTERN.fullmatch(pattern) is None
        ):
            raise FormatError(f"tokens.{token.id}: no {REENCIPHER} token as zkey-cryptsetup has it")
        if original not in bound:
            raise FormatError(f"tokens.{token.id}: keyslot {original} does not hold the volume key")
        if unbound in bound or metadata.find_keyslot(unbound) is None:
            raise FormatError(f"tokens.{token.id}: keyslot {unbound} is not one that waits")
        found.append(Pending(token.id, original, unbound, pattern.lower()))
    return tuple(found)


def set_pattern(header: Luks2Header, pattern: str) -> Luks2Header:
    """A header that tells the effective key by this verification pattern.

    Raises:
        ConfigError: the JSON area is full, or all tokens are in use.
    """
    token: JsonObject = {"type": VERIFICATION_PATTERN, "keyslots": [], _PATTERN_FIELD: pattern}
    numbers = [t.id for t in header.metadata.tokens if t.type == VERIFICATION_PATTERN]
    for number in numbers[1:]:
        header = remove_token(header, number)
    if not numbers:
        return add_token(header, token)[0]
    return add_token(header, token, number=numbers[0], replace=True)[0]


def add_waiting(
    header: Luks2Header, specs: Mapping[int, KeyslotSpec], digest: DigestSpec, pattern: str
) -> Luks2Header:
    """A header with an unbound keyslot more for each keyslot of ``specs``, all for the same key.

    Raises:
        ConfigError: no number, digest or room in the JSON area is free.
    """
    known: int | DigestSpec = digest
    for original, spec in specs.items():
        number = edit.choose_keyslot(header, None)
        header = edit.add_keyslot(header, number, spec, known)
        known = edit.get_digest_of(header, number).id
        token: JsonObject = {
            "type": REENCIPHER,
            "keyslots": [str(number)],
            _PATTERN_FIELD: pattern,
            "original-keyslot": original,
            "unbound-keyslot": number,
        }
        header, _ = add_token(header, token)
    return header


def remove_waiting(header: Luks2Header, pending: Sequence[Pending]) -> Luks2Header:
    """A header without what waits."""
    for each in pending:
        header = remove_token(header, each.token)
    return edit.remove_keyslots(header, [each.unbound for each in pending])


def activate_waiting(header: Luks2Header, pending: Sequence[Pending]) -> Luks2Header:
    """A header whose data have the key that waits; keyslots in whose place none waits are gone.

    Raises:
        ConfigError: not all of them hold the same key.
    """
    owners = {edit.get_digest_of(header, each.unbound).id for each in pending}
    if len(owners) != 1:
        raise ConfigError("keyslots that wait: hold different keys; wanted: one key")
    old, new = str(digests.get_digest(header.metadata, 0).id), str(owners.pop())
    # What a token is for stays with the number: of its keyslots, only those without heir go.
    heirless = find_bound(header.metadata, 0) - {each.original for each in pending}
    header = edit.remove_keyslots(header, heirless)
    root = copy.deepcopy(header.root)
    keyslots, all_digests = get_object(root, "keyslots"), get_object(root, "digests")
    tokens = get_object(root, "tokens")
    for each in pending:
        del tokens[str(each.token)]
        original, unbound = str(each.original), str(each.unbound)
        heir = get_object(keyslots, unbound)
        del keyslots[unbound]
        keyslots[original] = inherit(heir, get_object(keyslots, original))
        for number in tokens:
            _rename(get_array(tokens, number, "keyslots"), unbound, None)
        _rename(get_array(all_digests, new, "keyslots"), unbound, original)
    get_array(all_digests, new, "segments")[:] = get_array(all_digests, old, "segments")
    del all_digests[old]
    return edit.rebuild(header, root)


def replace_volume_key(
    header: Luks2Header,
    specs: Mapping[int, KeyslotSpec],
    digest: DigestSpec,
    *,
    encryption: str | None = None,
) -> Luks2Header:
    """A header whose data have another key, in keyslots of the same numbers; other bound ones go.

    ``encryption``: and another cipher.

    Raises:
        ConfigError: the JSON area is full.
    """
    old = digests.get_digest(header.metadata, 0)
    header = edit.remove_keyslots(header, find_bound(header.metadata, 0) - specs.keys())
    for number, spec in specs.items():
        header = edit.replace_keyslot(header, number, spec)
    root = copy.deepcopy(header.root)
    item = get_object(root, "digests", str(old.id))
    packed = pack_digest(digest, keyslots=[], segments=[])
    item.update({**packed, "keyslots": item["keyslots"], "segments": item["segments"]})
    if encryption is not None:
        for number in old.segments:
            segment = get_object(root, "segments", str(number))
            segment["encryption"] = encryption
    return edit.rebuild(header, root)


def list_heirless(header: Luks2Header, heirs: Collection[int]) -> tuple[int, ...]:
    """The keyslots that hold the volume key and are not among ``heirs``."""
    return tuple(sorted(find_bound(header.metadata, 0) - set(heirs)))


def _rename(items: list[object], old: str, new: str | None) -> None:
    items[:] = [new if item == old else item for item in items if item != old or new is not None]
