"""The JSON area of a LUKS2 header: bytes to strictly read fields, and text back to bytes. No I/O.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3; lib/luks2/luks2_disk_metadata.c for
what may follow the text, json-c for the nesting limit and for duplicate keys (the last one wins).
64-bit numbers are strings of decimal digits.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn, cast

from ...keystore.errors import FormatError
from ..units import UINT32_MAX, UINT64_MAX

#: json-c's default; cryptsetup refuses what is nested deeper.
DEPTH_MAX: Final = 32
#: Characters of a path that an error shows.
_PATH_MAX: Final = 60
_DIGITS: Final = re.compile(r"[0-9]+")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}")

JsonObject = dict[str, object]


def parse_json_area(area: bytes) -> JsonObject:
    """The JSON object that an area holds.

    Raises:
        FormatError: not a JSON object from the first byte on, or not followed by zeros to the
            area's end.
    """
    if not area.startswith(b"{"):
        raise FormatError("JSON area at byte 0: does not begin with {")
    end = area.find(b"\0")
    if end < 0:
        raise FormatError("JSON area: no NUL behind the text")
    if area.count(0, end) != len(area) - end:
        raise FormatError(
            f"JSON area: bytes other than NUL behind the text, which ends at byte {end}"
        )
    root = parse_json_object(area[:end], "JSON area")
    if len(pack_json(root)) >= len(area):
        raise FormatError(f"JSON area: the object does not fit {len(area)} bytes")
    return root


def parse_json_object(raw: bytes, what: str) -> JsonObject:
    """The one JSON object that bytes are, named ``what`` in errors.

    Raises:
        FormatError: they are something else, or nested too deep.
    """
    if not raw.startswith(b"{"):
        raise FormatError(f"{what} at byte 0: does not begin with {{")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} at byte {error.start}: not UTF-8") from error
    decoder = json.JSONDecoder(
        strict=False,
        parse_constant=_refuse_constant,
        parse_float=_parse_float,
        parse_int=_parse_int,
    )
    try:
        value, length = decoder.raw_decode(text)
    except (ValueError, RecursionError) as error:
        where = (
            f" at character {error.pos}: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else f": {error}"
        )
        raise FormatError(f"{what}{where}") from error
    if length != len(text):
        raise FormatError(f"{what} at character {length}: more text behind the object")
    _check_depth(value, what)
    return cast("JsonObject", value)  # it began with a brace


def find_duplicates(area: bytes) -> tuple[str, ...]:
    """The paths of keys that stand more than once in their object, of an area that was parsed.

    The last one counts; but who else reads the header may take another.
    """
    doubled: list[tuple[JsonObject, list[str]]] = []

    def make(pairs: list[tuple[str, object]]) -> JsonObject:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            doubled.append((fields, [name for name in fields if counts[name] > 1]))
        return fields

    text = area[: area.index(b"\0")].decode("utf-8")
    decoder = json.JSONDecoder(strict=False, parse_int=_parse_int, object_pairs_hook=make)
    root = decoder.decode(text)
    if not doubled:
        return ()
    names = {id(fields): names for fields, names in doubled}
    paths: list[str] = []
    level: list[tuple[str, object]] = [("", root)]
    while level:
        for path, item in level:
            paths += [_cut(f"{path}.{name}" if path else name) for name in names.get(id(item), [])]
        level = [pair for path, item in level for pair in _members(path, item)]
    return tuple(paths)


def get_object(root: JsonObject, *path: str) -> JsonObject:
    """The object at a path of an object that was parsed as metadata, to be changed."""
    for name in path:
        root = cast("JsonObject", root[name])
    return root


def get_array(root: JsonObject, *path: str) -> list[object]:
    """The array at a path of an object that was parsed as metadata, to be changed."""
    *where, name = path
    return cast("list[object]", get_object(root, *where)[name])


def pack_json(root: JsonObject) -> bytes:
    """As cryptsetup writes it: no white space, in the order of the keys.

    Raises:
        FormatError: text that is no Unicode (a lone surrogate).
    """
    try:
        return json.dumps(root, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError("JSON area: a string with a lone surrogate") from error


def pack_json_area(root: JsonObject, size: int) -> bytes:
    """An area of ``size`` bytes.

    Raises:
        FormatError: the object is too large for it.
    """
    text = pack_json(root)
    if len(text) >= size:
        raise FormatError(f"JSON area: {len(text)} bytes of text, wanted less than {size}")
    return text.ljust(size, b"\0")


@dataclass(frozen=True, slots=True)
class Node:
    """A JSON object whose fields are read by name and type; an error says its path.

    All methods raise FormatError: the field is missing or not of the type asked for.
    """

    fields: JsonObject = field(repr=False)
    path: str = ""

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self.fields

    def text(self, name: str) -> str:
        """A string without NUL."""
        value = self._get(name)
        if not isinstance(value, str) or "\0" in value:
            self._refuse(name, value, "a string without NUL")
        return value

    def integer(self, name: str) -> int:
        """A JSON integer, of any size."""
        value = self._get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            self._refuse(name, value, "an integer")
        return value

    def uint32(self, name: str) -> int:
        """A JSON integer from 0 to 2^32 - 1."""
        value = self.integer(name)
        if not 0 <= value <= UINT32_MAX:
            self._refuse(name, value, "0 to 4294967295")
        return value

    def uint64(self, name: str) -> int:
        """A string of decimal digits, up to 2^64 - 1."""
        value = self.text(name)
        if not _DIGITS.fullmatch(value) or len(value) > 64 or int(value) > UINT64_MAX:
            self._refuse(name, value, "decimal digits, up to 18446744073709551615")
        return int(value)

    def node(self, name: str) -> Node:
        """An object."""
        value = self._get(name)
        if not isinstance(value, dict):
            self._refuse(name, value, "an object")
        return Node(cast("JsonObject", value), self._path(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """An array of strings."""
        value = self._get(name)
        if not isinstance(value, list):
            self._refuse(name, value, "an array")
        items = cast("list[object]", value)
        for index, item in enumerate(items):
            if not isinstance(item, str):
                self._refuse(f"{name}.{index}", item, "a string")
        return tuple(cast("list[str]", items))

    def numbered(self, name: str) -> Iterator[tuple[int, Node]]:
        """The members of an object whose keys are numbers."""
        section = self.node(name)
        for key in section.fields:
            yield section.number(key), section.node(key)

    def number(self, key: str) -> int:
        """A key, or a reference to one, as a number."""
        if not _NUMBER.fullmatch(key):
            raise FormatError(f"{self.path}: key {key[:40]!r}, wanted a number")
        return int(key)

    def references(self, name: str) -> tuple[int, ...]:
        """An array of strings that are keys of another section."""
        where = Node({}, self._path(name))
        return tuple(where.number(key) for key in self.texts(name))

    def refuse(self, name: str, wanted: str) -> NoReturn:
        """Refuse the value of a field."""
        self._refuse(name, self._get(name), wanted)

    def _get(self, name: str) -> object:
        if name not in self.fields:
            raise FormatError(f"{self._path(name)}: missing")
        return self.fields[name]

    def _path(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _refuse(self, name: str, value: object, wanted: str) -> NoReturn:
        raise FormatError(f"{self._path(name)}: got {_shorten(value)}, wanted {wanted}")


def _shorten(value: object) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):  # it could not be written back
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _parse_int(text: str) -> int:
    # json-c saturates at 64 bits; no field takes so much, so the exact value never matters.
    if len(text.lstrip("-")) > 20:
        return -(UINT64_MAX + 1) if text.startswith("-") else UINT64_MAX + 1
    return int(text)


def _check_depth(value: object, what: str) -> None:
    level: list[tuple[str, object]] = [("", value)]
    for _ in range(DEPTH_MAX):
        level = [pair for path, item in level for pair in _members(path, item)]
        if not level:
            return
    raise FormatError(f"{what}: {_cut(level[0][0])}: nested deeper than {DEPTH_MAX} levels")


def _members(path: str, value: object) -> Iterator[tuple[str, object]]:
    items: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        items = cast("JsonObject", value).items()
    elif isinstance(value, list):
        items = enumerate(cast("list[object]", value))
    for key, item in items:
        yield f"{path}.{key}" if path else str(key), item


def _cut(path: str) -> str:
    return path if len(path) <= _PATH_MAX else f"{path[:_PATH_MAX]}…"
