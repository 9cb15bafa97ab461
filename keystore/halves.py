"""A clear key and its tokens: one, or two for the halves of an XTS key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from .clear_bytes import wipe, wiped
from .errors import FormatError
from .verification import check_clear_key, check_halves

Half = TypeVar("Half")


def wrap_halves(clear: bytearray, wrap_one: Callable[[bytearray], bytes], *, is_xts: bool) -> bytes:
    """The token of a clear key, or those of both its halves one behind the other.

    Raises:
        FormatError: no AES key, or an XTS key whose halves are equal.
        MapperError: what ``wrap_one`` raises.
    """
    check_clear_key(len(clear), is_xts=is_xts)
    if is_xts:
        check_halves(clear)
    size = len(clear) // (2 if is_xts else 1)
    tokens: list[bytes] = []
    for start in range(0, len(clear), size):
        with wiped(clear[start : start + size]) as part:
            tokens.append(wrap_one(part))
    return b"".join(tokens)


def open_halves(halves: Sequence[Half], open_one: Callable[[Half], bytearray]) -> bytearray:
    """The clear key of one token, or of the two of an XTS key; the caller wipes it.

    Raises:
        FormatError: no AES key, or the halves are of different size, or the same.
        MapperError: what ``open_one`` raises.
    """
    parts: list[bytearray] = []
    try:
        for half in halves:
            parts.append(open_one(half))  # noqa: PERF401 (wiped if a later one fails)
        if len(parts) == 2 and len(parts[0]) != len(parts[1]):
            raise FormatError("secure key: the halves of the XTS key are of different size")
        clear = bytearray(sum(map(len, parts)))
        offset = 0
        for part in parts:
            clear[offset : offset + len(part)] = part
            offset += len(part)
    finally:
        for part in parts:
            wipe(part)
    try:
        check_clear_key(len(clear), is_xts=len(halves) == 2)
        if len(halves) == 2:
            check_halves(clear)
    except FormatError:
        wipe(clear)
        raise
    return clear
