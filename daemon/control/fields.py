"""Typed access to the parameters of a control message: each value is checked where it is taken."""

from __future__ import annotations

import binascii
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from ...keystore.errors import MapperError
from .protocol import MAX_FDS, MAX_INTEGER

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


Parsed = TypeVar("Parsed")


class ParameterError(MapperError):
    """A parameter of a call that is missing or of the wrong kind; ``parameter`` names it."""

    def __init__(self, parameter: str, wanted: str) -> None:
        super().__init__(f"parameter {parameter}: wanted: {wanted}")
        self.parameter = parameter


class PassedFds:
    """The descriptors that go with a message that is being packed."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        """Send this one too; returns its index."""
        if len(self.fds) == MAX_FDS:
            raise ParameterError("fd", f"at most {MAX_FDS} descriptors in one message")
        self.fds.append(fd)
        return len(self.fds) - 1


class Fields:
    """One JSON object; ``path`` says where it stands, for messages."""

    def __init__(self, path: str, content: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        self._path = path
        self._content = content
        self._fds = fds

    def text(self, name: str) -> str:
        value = self._content.get(name)
        if not isinstance(value, str) or "\0" in value:
            raise self._fail(name, "a string")
        return value

    def optional_text(self, name: str) -> str | None:
        return None if self._content.get(name) is None else self.text(name)

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        value = self.text(name)
        if value not in allowed:
            raise self._fail(name, " or ".join(allowed))
        return value

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        value = self._content.get(name)
        if not isinstance(value, list):
            raise self._fail(name, "a list")
        items = cast(list[object], value)
        texts = [item for item in items if isinstance(item, str) and "\0" not in item]
        if len(texts) != len(items):
            raise self._fail(name, "a list of strings")
        return texts

    def data(self, name: str) -> bytes:
        """Bytes, which JSON carries in base64."""
        text = self.text(name)
        try:
            return binascii.a2b_base64(text.encode(), strict_mode=True)
        except ValueError:
            raise self._fail(name, "bytes in base64") from None

    def optional_fd(self, name: str) -> int | None:
        return None if self._content.get(name) is None else self.fd(name)

    def flag(self, name: str) -> bool:
        value = self._content.get(name, False)
        if not isinstance(value, bool):
            raise self._fail(name, "true or false")
        return value

    def integer(self, name: str, *, default: int | None = None) -> int:
        value = self._content.get(name, default)
        if type(value) is not int or not 0 <= value <= MAX_INTEGER:
            raise self._fail(name, "an integer from 0 to 2^64-1")
        return value

    def optional_integer(self, name: str) -> int | None:
        return None if self._content.get(name) is None else self.integer(name)

    def fd(self, name: str) -> int:
        """The descriptor whose index stands there."""
        index = self.integer(name)
        if index >= len(self._fds):
            raise self._fail(name, f"an index of the {len(self._fds)} descriptors passed")
        return self._fds[index]

    def object(self, name: str) -> Fields:
        value = self._content.get(name)
        if not isinstance(value, dict):
            raise self._fail(name, "an object")
        return Fields(f"{self._path}.{name}", cast(dict[str, object], value), self._fds)

    def optional(self, name: str, parse: Callable[[Fields], Parsed]) -> Parsed | None:
        """What ``parse`` makes of an object that need not be there."""
        return None if self._content.get(name) is None else parse(self.object(name))

    def objects(self, name: str) -> list[Fields]:
        value = self._content.get(name)
        if not isinstance(value, list):
            raise self._fail(name, "a list")
        items = cast(list[object], value)
        if not all(isinstance(item, dict) for item in items):
            raise self._fail(name, "a list of objects")
        return [
            Fields(f"{self._path}.{name}[{i}]", cast(dict[str, object], item), self._fds)
            for i, item in enumerate(items)
        ]

    def _fail(self, name: str, wanted: str) -> ParameterError:
        return ParameterError(f"{self._path}.{name}", wanted)


def pack_data(data: bytes) -> str:
    """Bytes as `Fields.data` takes them."""
    return binascii.b2a_base64(data, newline=False).decode()


def pack_value(value: DataclassInstance) -> dict[str, object]:
    """A message value as a JSON object."""
    return dataclasses.asdict(value)
