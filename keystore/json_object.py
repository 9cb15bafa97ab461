"""A JSON object of which each member is taken once, with its type; what is left over is refused."""

from __future__ import annotations

import json
from typing import Any, cast

from .errors import FormatError


class JsonObject:
    """The members of one object; ``where`` names it in errors."""

    def __init__(self, members: dict[str, Any], where: str) -> None:
        self._members = dict(members)
        self._where = where

    @classmethod
    def parse(cls, text: bytes, where: str) -> JsonObject:
        """The object that the text is.

        Raises:
            FormatError: no JSON, or no object.
        """
        try:
            value: Any = json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{where}: no JSON text") from error
        return cls._of(value, where)

    @classmethod
    def _of(cls, value: object, where: str) -> JsonObject:
        if not isinstance(value, dict):
            raise FormatError(f"{where}: wanted a JSON object")
        return cls(cast("dict[str, Any]", value), where)

    def _take(self, name: str, kind: type) -> Any:  # noqa: ANN401  checked here, for the typed ones
        if name not in self._members:
            raise FormatError(f"{self._where}: no {name}")
        value = self._members.pop(name)
        if type(value) is not kind:  # a bool is an int to isinstance
            raise FormatError(f"{self._where}: {name} is no {kind.__name__}")
        return value

    def take_str(self, name: str) -> str:
        return cast("str", self._take(name, str))

    def take_int(self, name: str, least: int, most: int) -> int:
        value = cast("int", self._take(name, int))
        if not least <= value <= most:
            raise FormatError(f"{self._where}: {name} is {value}, wanted {least} to {most}")
        return value

    def take_bool(self, name: str) -> bool:
        return cast("bool", self._take(name, bool))

    def take_hex(self, name: str, size: int | None = None) -> bytes:
        """Bytes in lower-case hexadecimal; ``size`` bytes if given."""
        text = self.take_str(name)
        try:
            value = bytes.fromhex(text)
        except ValueError as error:
            raise FormatError(f"{self._where}: {name} is not hexadecimal") from error
        if value.hex() != text or size not in (None, len(value)):
            raise FormatError(f"{self._where}: {name} has {len(value)} bytes, wanted {size}")
        return value

    def take_object(self, name: str) -> JsonObject:
        return self._of(self._take(name, dict), f"{self._where}: {name}")

    def take_objects(self, name: str) -> list[JsonObject]:
        items = cast("list[object]", self._take(name, list))
        return [self._of(item, f"{self._where}: {name}[{i}]") for i, item in enumerate(items)]

    def take_constant(self, name: str, wanted: str | int) -> None:
        """A member that must have this value.

        Raises:
            FormatError: another one: the file is of another kind or version.
        """
        got = self._take(name, type(wanted))
        if got != wanted:
            raise FormatError(f"{self._where}: {name} is {got!r}, wanted {wanted!r}")

    def take_version(self, most: int) -> int:
        """The member ``version``, from 1 to ``most``.

        Raises:
            FormatError: a later one.
        """
        return self.take_int("version", 1, most)

    def take_texts(self) -> dict[str, str]:
        """All members, which are strings."""
        return {name: self.take_str(name) for name in tuple(self._members)}

    def finish(self) -> None:
        """That nothing is left.

        Raises:
            FormatError: a member that this version does not know.
        """
        if self._members:
            raise FormatError(f"{self._where}: unknown member {min(self._members)!r}")


def pack_canonical(members: dict[str, Any]) -> bytes:
    """The one spelling of an object that is authenticated: sorted, without blanks, ASCII."""
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
