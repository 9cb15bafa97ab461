"""Texts in binary headers: fields of a fixed size, filled up with NUL. No I/O.

cryptsetup takes any bytes for text. What is not UTF-8 is kept as surrogates (PEP 383), so that it
is written back as it was.
"""

from __future__ import annotations

from ..keystore.errors import FormatError


def parse_text(field: bytes) -> str:
    """A field up to its first NUL; one without, which cryptsetup cuts, but for its last byte."""
    return field[: len(field) - 1].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def pack_text(what: str, text: str, size: int) -> bytes:
    """A field of ``size`` bytes, one of which at least is NUL.

    Raises:
        FormatError: ``what`` does not fit.
    """
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) >= size or b"\0" in raw:
        raise FormatError(f"{what}: {len(raw)} bytes, wanted at most {size - 1}, none of them NUL")
    return raw.ljust(size, b"\0")


def show_text(text: str) -> str:
    r"""A text for people and for JSON: what is not UTF-8 as ``\xNN``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
