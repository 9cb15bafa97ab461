"""How users name a device: a path, or a tag that udev makes a link for."""

from __future__ import annotations

import string
from typing import Final

# libblkid's tags, as fstab(5) lists them.
_TAG_DIRS: Final = {
    "UUID": "by-uuid",
    "LABEL": "by-label",
    "PARTUUID": "by-partuuid",
    "PARTLABEL": "by-partlabel",
}

# udev leaves these as they are in a link's name; other bytes below 128 become \xNN.
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "#+-.:=@_")


def resolve_device_spec(spec: str) -> str:
    """The path for ``UUID=…``, ``LABEL=…``, ``PARTUUID=…``, ``PARTLABEL=…``; others as they are."""
    tag, equals, value = spec.partition("=")
    if not equals or tag not in _TAG_DIRS:
        return spec
    if len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]:
        value = value[1:-1]
    return f"/dev/disk/{_TAG_DIRS[tag]}/{_encode(value)}"


def is_device_spec(text: str) -> bool:
    """Whether it names a device by tag, or by an absolute path."""
    tag, equals, _ = text.partition("=")
    return text.startswith("/") or bool(equals and tag in _TAG_DIRS)


def _encode(value: str) -> str:
    return "".join(c if c in _PLAIN or ord(c) > 0x7F else f"\\x{ord(c):02x}" for c in value)
