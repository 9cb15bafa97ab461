"""LUKS2 headers as text, laid out as cryptsetup's luksDump prints them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from typing import Final, cast

from ..units import UINT32_MAX
from .json_area import JsonObject
from .keyslot import find_bound
from .model import Digest, Kdf, Keyslot, Metadata, Segment, Token
from .recovery import Luks2Header

_PRIORITIES: Final = {0: "ignored", 1: "normal", 2: "preferred"}
#: cryptsetup counts keyslots, tokens and digests up to here when it prints them.
_NUMBERS: Final = 32


def dump_text(header: Luks2Header) -> str:
    """What ``cryptsetup luksDump`` prints."""
    return "".join(f"{line}\n" for line in _dump(header))


def dump_json(header: Luks2Header) -> str:
    """What ``cryptsetup luksDump --dump-json-metadata`` prints."""
    return _pretty(header.root)


def _dump(header: Luks2Header) -> Iterator[str]:
    metadata = header.metadata
    config = metadata.config
    yield "LUKS header information"
    yield "Version:       \t2"
    yield f"Epoch:         \t{header.binary.seqid}"
    yield f"Metadata area: \t{header.binary.hdr_size} [bytes]"
    yield f"Keyslots area: \t{config.keyslots_size} [bytes]"
    yield f"UUID:          \t{header.uuid or '(no UUID)'}"
    yield f"Label:         \t{header.label or '(no label)'}"
    yield f"Subsystem:     \t{header.subsystem or '(no subsystem)'}"
    yield f"Flags:       \t{_list(config.flags) or '(no flags)'}"
    if config.requirements:
        yield f"Requirements:\t{_list(config.requirements)}"
    yield ""
    yield "Data segments:"
    for segment in metadata.segments:
        yield from _segment(segment)
        yield ""
    yield "Keyslots:"
    bound = {n for segment in metadata.segments for n in find_bound(metadata, segment.id)}
    for slot in metadata.keyslots:
        if slot.id < _NUMBERS:
            yield from _keyslot(slot, metadata, is_bound=slot.id in bound)
    yield "Tokens:"
    for token in metadata.tokens:
        if token.id < _NUMBERS:
            yield from _token(token)
    yield "Digests:"
    for digest in metadata.digests:
        if digest.id < _NUMBERS:
            yield from _digest(digest)


def _list(words: tuple[str, ...]) -> str:
    return "".join(f"{word} " for word in words)


def _segment(segment: Segment) -> Iterator[str]:
    yield f"  {segment.id}: {segment.type}"
    yield f"\toffset: {segment.offset} [bytes]"
    length = "(whole device)" if segment.size is None else f"{segment.size} [bytes]"
    yield f"\tlength: {length}"
    if segment.type == "crypt":
        yield f"\tcipher: {segment.encryption}"
        yield f"\tsector: {segment.sector_size} [bytes]"
        if segment.integrity is not None:
            yield f"\tintegrity: {segment.integrity}"
    if segment.flags:
        yield f"\tflags : {', '.join(segment.flags)}"


def _keyslot(slot: Keyslot, metadata: Metadata, *, is_bound: bool) -> Iterator[str]:
    yield f"  {slot.id}: {slot.type}{'' if is_bound else ' (unbound)'}"
    yield f"\tKey:        {slot.key_size * 8 & UINT32_MAX} bits"
    yield f"\tPriority:   {_PRIORITIES.get(slot.priority, 'invalid')}"
    if slot.kdf is not None and slot.af is not None:
        yield f"\tCipher:     {slot.area.encryption}"
        yield f"\tCipher key: {(slot.area.key_size or 0) * 8 & UINT32_MAX} bits"
        yield from _kdf(slot.kdf)
        yield f"\tAF stripes: {slot.af.stripes}"
        yield f"\tAF hash:    {slot.af.hash}"
        yield f"\tArea offset:{slot.area.extent.offset} [bytes]"
        yield f"\tArea length:{slot.area.extent.length} [bytes]"
    for digest in metadata.digests:
        if slot.id in digest.keyslots:
            yield f"\tDigest ID:  {digest.id}"


def _kdf(kdf: Kdf) -> Iterator[str]:
    yield f"\tPBKDF:      {kdf.type}"
    if kdf.type == "pbkdf2":
        yield f"\tHash:       {kdf.hash}"
        yield f"\tIterations: {kdf.iterations}"
    else:
        yield f"\tTime cost:  {kdf.time or 0}"
        yield f"\tMemory:     {kdf.memory or 0}"
        yield f"\tThreads:    {kdf.cpus or 0}"
    yield f"\tSalt:       {_hex(kdf.salt)}"


def _token(token: Token) -> Iterator[str]:
    yield f"  {token.id}: {token.type}"
    if token.type == "luks2-keyring":
        fields: JsonObject = json.loads(token.text)
        yield f"\tKey description: {fields.get('key_description')}"
    for number in token.keyslots:
        yield f"\tKeyslot:    {number}"


def _digest(digest: Digest) -> Iterator[str]:
    yield f"  {digest.id}: {digest.type}"
    if digest.type != "pbkdf2":
        return
    yield f"\tHash:       {digest.hash}"
    yield f"\tIterations: {digest.iterations}"
    yield f"\tSalt:       {_hex(digest.salt or '')}"
    yield f"\tDigest:     {_hex(digest.digest or '')}"


def _hex(text: str) -> str:
    """The bytes behind base64 text, 16 in a line."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "(not base64)"
    lines = [value[at : at + 16] for at in range(0, len(value), 16)]
    return "\n\t            ".join("".join(f"{byte:02x} " for byte in line) for line in lines)


def _pretty(value: object, depth: int = 0) -> str:
    """As json-c prints with JSON_C_TO_STRING_PRETTY."""
    inner, outer = "  " * (depth + 1), "  " * depth
    end = "\n" if value else ""
    if isinstance(value, dict):
        fields = cast("JsonObject", value)
        members = ",\n".join(
            f"{inner}{json.dumps(k, ensure_ascii=False)}:{_pretty(v, depth + 1)}"
            for k, v in fields.items()
        )
        return f"{{\n{members}{end}{outer}}}"
    if isinstance(value, list):
        items = ",\n".join(f"{inner}{_pretty(v, depth + 1)}" for v in cast("list[object]", value))
        return f"[\n{items}{end}{outer}]"
    return json.dumps(value, ensure_ascii=False)
