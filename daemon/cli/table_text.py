"""A table as its user wrote it: the lines without their keys, and the keys apart.

The text is read into memory that is wiped, and is looked at there: of what may be a key only the
place is known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from ...dmcrypt.dm_table import TARGETS
from ...keystore.errors import ConfigError, UnsupportedError
from .passphrase import MAX_READ, Passphrase

_WORD: Final = re.compile(rb"\S+")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]+")
_KEY: Final = 4  # START LENGTH crypt CIPHER KEY …
_NAMES: Final = {name.encode(): name for name in TARGETS}


@dataclass(slots=True)
class TableText:
    """What a table's text came to."""

    keys: Passphrase  # the hexadecimal digits of all keys, one behind the other
    lines: list[str] = field(default_factory=list[str])  # with :SIZE: for each of them


def take_apart(text: Passphrase) -> TableText:
    """The lines of a table; empty ones, and those that begin with #, are left out.

    Raises:
        ConfigError: a line that is none, or a key of other characters.
        UnsupportedError: a target that we do not have.
    """
    table = TableText(Passphrase(MAX_READ))
    try:
        with text.view() as view:
            start = 0
            for number in range(1, len(view) + 2):
                end = _find_newline(view, start)
                try:
                    _take_line(table, view[start:end])
                except (ConfigError, UnsupportedError) as error:
                    raise type(error)(f"line {number}: {error}") from None
                start = end + 1
                if start >= len(view):
                    break
    except BaseException:
        table.keys.wipe()
        raise
    return table


def _find_newline(view: memoryview, start: int) -> int:
    found = re.compile(rb"\n").search(view, start)
    return len(view) if found is None else found.start()


def _take_line(table: TableText, line: memoryview) -> None:
    words = [match.span() for match in _WORD.finditer(line)]
    if not words or line[words[0][0]] == ord("#"):
        return
    # Nothing of a line that is no table's is made a string: it may be a key that stands alone.
    target = _NAMES.get(bytes(line[slice(*words[2])][:16])) if len(words) > 2 else None
    if target is None:
        raise UnsupportedError(
            f"wanted START LENGTH TARGET …, with a target that is supported: {', '.join(TARGETS)}"
        )
    texts = [
        _take_key(table, line[start:end])
        if target == "crypt" and index == _KEY
        else _decode(line[start:end])
        for index, (start, end) in enumerate(words)
    ]
    table.lines.append(" ".join(texts))


def _take_key(table: TableText, word: memoryview) -> str:
    """What stands for the key in the line."""
    if word[0] in b"-:" and (word[0] == ord(":") or len(word) == 1):
        return _decode(word)  # none, or one in the kernel's keyring
    if _HEX.fullmatch(word) is None or len(word) % 2:
        raise ConfigError("key: wanted hexadecimal digits, two a byte")
    table.keys.append(word)
    return f":{len(word) // 2}:"


def _decode(word: memoryview) -> str:
    return bytes(word).decode("utf-8", "surrogateescape")
