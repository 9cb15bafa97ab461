"""What ``io.fusecrypt`` can be asked about raw tables, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from .fields import Fields, PassedFds
from .messages import KeyInput, PassedFile, parse_name


@dataclass(frozen=True, slots=True)
class OpenTableRequest:
    """``OpenTable``: a device from a table's lines.

    In a line a key is ``:SIZE:`` and a device the number of one of ``files``. ``key`` yields the
    hexadecimal text of all keys, in their order.
    """

    name: str
    lines: tuple[str, ...]
    files: tuple[PassedFile, ...] = ()
    key: KeyInput | None = None
    read_only: bool = False

    def pack(self, fds: PassedFds) -> dict[str, object]:
        content: dict[str, object] = {
            "name": self.name,
            "lines": list(self.lines),
            "files": [file.pack(fds) for file in self.files],
            "read_only": self.read_only,
        }
        if self.key is not None:
            content["key"] = self.key.pack(fds)
        return content

    @classmethod
    def parse(cls, parameters: Mapping[str, object], fds: Sequence[int]) -> Self:
        fields = Fields("parameters", parameters, fds)
        return cls(
            parse_name(fields),
            tuple(fields.texts("lines")),
            tuple(PassedFile.parse(file) for file in fields.objects("files")),
            fields.optional("key", KeyInput.parse),
            fields.flag("read_only"),
        )


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A line of an open device's table: ``head``, the key, ``tail``."""

    head: str
    key_size: int = 0  # bytes; 0: the line has no key
    tail: str = ""

    def pack(self) -> dict[str, object]:
        return {"head": self.head, "key_size": self.key_size, "tail": self.tail}

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(fields.text("head"), fields.integer("key_size"), fields.text("tail"))


def pack_lines(lines: Sequence[ShownLine]) -> dict[str, object]:
    """The answer to ``Table``."""
    return {"lines": [line.pack() for line in lines]}


def parse_lines(parameters: Mapping[str, object]) -> tuple[ShownLine, ...]:
    """From the answer to ``Table``."""
    return tuple(ShownLine.parse(f) for f in Fields("parameters", parameters).objects("lines"))


@dataclass(frozen=True, slots=True)
class ShowKeyRequest:
    """``ShowKey``: write the clear key of a table's line to a descriptor."""

    name: str
    line: int  # from 0
    fd: int

    def pack(self, fds: PassedFds) -> dict[str, object]:
        return {"name": self.name, "line": self.line, "fd": fds.add(self.fd)}

    @classmethod
    def parse(cls, parameters: Mapping[str, object], fds: Sequence[int]) -> Self:
        fields = Fields("parameters", parameters, fds)
        return cls(parse_name(fields), fields.integer("line"), fields.fd("fd"))
