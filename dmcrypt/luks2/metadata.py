"""LUKS2 metadata: the parsed JSON object to `Metadata`. No I/O.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3; field by field as strict as
cryptsetup's lib/luks2/luks2_json_metadata.c and luks2_keyslot_luks2.c. What must hold between
fields is validate.py's.
"""

from __future__ import annotations

from ..extent import Extent
from ..units import UINT32_MAX
from .json_area import JsonObject, Node, pack_json
from .model import AntiForensic, Area, Config, Digest, Kdf, Keyslot, Metadata, Segment, Token


def parse_metadata(root: JsonObject) -> Metadata:
    """The metadata in a JSON area's object.

    Relations between the parts are not checked: see `validate`.

    Raises:
        FormatError: a field is missing, or not of its type.
    """
    node = Node(root)
    return Metadata(
        keyslots=tuple(sorted((_keyslot(i, n) for i, n in node.numbered("keyslots")), key=_id)),
        tokens=tuple(sorted((_token(i, n) for i, n in node.numbered("tokens")), key=_id)),
        segments=tuple(sorted((_segment(i, n) for i, n in node.numbered("segments")), key=_id)),
        digests=tuple(sorted((_digest(i, n) for i, n in node.numbered("digests")), key=_id)),
        config=_config(node.node("config")),
    )


def _id(item: Keyslot | Token | Segment | Digest) -> int:
    return item.id


def _keyslot(number: int, node: Node) -> Keyslot:
    kind = node.text("type")
    area = node.node("area")
    extent = Extent(area.uint64("offset"), area.uint64("size"))
    priority = _priority(node)
    if kind != "luks2":
        return Keyslot(
            number, kind, node.uint32("key_size"), Area(area.text("type"), extent), priority
        )
    return Keyslot(
        id=number,
        type=kind,
        key_size=node.uint32("key_size"),
        area=_raw_area(area, extent),
        priority=priority,
        kdf=_kdf(node.node("kdf")),
        af=_af(node.node("af")),
    )


def _priority(node: Node) -> int:
    """As cryptsetup reads it: normal without one, and ignored where it is no number."""
    if not node.has("priority"):
        return 1
    value = node.fields["priority"]
    if isinstance(value, str):
        return int(value) if value in ("0", "1", "2") else 0
    return int(value) if isinstance(value, (int, float)) and abs(value) < UINT32_MAX else 0


def _raw_area(node: Node, extent: Extent) -> Area:
    kind = node.text("type")
    if kind != "raw":
        node.refuse("type", "raw")
    return Area(kind, extent, node.text("encryption"), node.integer("key_size"))


def _af(node: Node) -> AntiForensic:
    kind = node.text("type")
    if kind != "luks1":
        node.refuse("type", "luks1")
    return AntiForensic(kind, node.integer("stripes"), node.text("hash"))


def _kdf(node: Node) -> Kdf:
    # Old cryptsetup left fields of the former KDF behind when a keyslot was converted; they are
    # ignored.
    kind = node.text("type")
    if kind == "pbkdf2":
        return Kdf(kind, node.text("salt"), node.text("hash"), node.integer("iterations"))
    if kind in ("argon2i", "argon2id"):
        return Kdf(
            kind,
            node.text("salt"),
            time=node.integer("time"),
            memory=node.integer("memory"),
            cpus=node.integer("cpus"),
        )
    return Kdf(kind, node.text("salt") if node.has("salt") else "")


def _token(number: int, node: Node) -> Token:
    text = pack_json(node.fields).decode("utf-8")
    return Token(number, node.text("type"), node.references("keyslots"), text)


def _segment(number: int, node: Node) -> Segment:
    kind = node.text("type")
    offset = node.uint64("offset")
    size = None if node.text("size") == "dynamic" else node.uint64("size")
    flags = node.texts("flags") if node.has("flags") else ()
    if kind != "crypt":
        return Segment(number, kind, offset, size, flags)
    integrity = None
    if node.has("integrity"):
        section = node.node("integrity")
        integrity = section.text("type")
        section.text("journal_encryption")
        section.text("journal_integrity")
    return Segment(
        id=number,
        type=kind,
        offset=offset,
        size=size,
        flags=flags,
        encryption=node.text("encryption"),
        iv_tweak=node.uint64("iv_tweak"),
        sector_size=node.uint32("sector_size"),
        integrity=integrity,
    )


def _digest(number: int, node: Node) -> Digest:
    return Digest(
        id=number,
        type=node.text("type"),
        keyslots=node.references("keyslots"),
        segments=node.references("segments"),
        hash=_text_or_none(node, "hash"),
        iterations=_integer_or_none(node, "iterations"),
        salt=_text_or_none(node, "salt"),
        digest=_text_or_none(node, "digest"),
    )


def _text_or_none(node: Node, name: str) -> str | None:
    value = node.fields.get(name)
    return value if isinstance(value, str) else None


def _integer_or_none(node: Node, name: str) -> int | None:
    value = node.fields.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _config(node: Node) -> Config:
    requirements: tuple[str, ...] = ()
    if node.has("requirements"):
        section = node.node("requirements")
        if section.has("mandatory"):
            requirements = section.texts("mandatory")
    return Config(
        json_size=node.uint64("json_size"),
        keyslots_size=node.uint64("keyslots_size"),
        flags=node.texts("flags") if node.has("flags") else (),
        requirements=requirements,
    )
