"""Hand-made LUKS2 headers for tests: a golden one, edited, with its checksums right again."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fusecrypt.dmcrypt.backing import pread_of
from fusecrypt.dmcrypt.luks2 import Luks2Header, read_header
from fusecrypt.dmcrypt.luks2.json_area import pack_json_area
from tests.golden import corpus

BASE = "luks2-aes-xts-plain64-512-s512"

Edit = Callable[[dict[str, Any]], object]


def read(data: bytes) -> Luks2Header:
    return read_header(pread_of(data), len(data))


def edited(edit: Edit = lambda _root: None, *, base: str = BASE, **binary: Any) -> bytes:
    """An image with an edited JSON object, and with ``binary`` in its binary headers."""
    data = bytearray(corpus.get_image(base).data)
    header = read(bytes(data))
    root: dict[str, Any] = copy.deepcopy(header.root)
    edit(root)
    area = pack_json_area(root, header.binary.json_size)
    return signed(data, header, area, **binary)


def signed(data: bytearray, header: Luks2Header, area: bytes, **binary: Any) -> bytes:
    """``data`` with ``area`` in both copies of the header."""
    size = header.binary.hdr_size
    for is_secondary in (False, True):
        offset = size if is_secondary else 0
        copied = replace(
            header.binary, is_secondary=is_secondary, hdr_offset=offset, checksum=b"", **binary
        )
        data[offset : offset + size] = copied.pack_signed(area) + area
    return bytes(data)


def with_area(area: bytes) -> bytes:
    """A golden image whose JSON areas are just these bytes, filled up with zeros."""
    data = bytearray(corpus.get_image(BASE).data)
    header = read(bytes(data))
    return signed(data, header, area.ljust(header.binary.json_size, b"\0"))
