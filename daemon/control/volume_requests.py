"""What ``io.fusecrypt`` can be asked to do with a volume that is open, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from .fields import Fields, PassedFds
from .messages import KeyInput, PassedFile, parse_name


@dataclass(frozen=True, slots=True)
class CloseRequest:
    """``Close``: one volume."""

    name: str
    deferred: bool = False

    def pack(self) -> dict[str, object]:
        return {"name": self.name, "deferred": self.deferred}

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        fields = Fields("parameters", parameters)
        return cls(parse_name(fields), fields.flag("deferred"))


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """``Status``, ``Table`` and ``CancelDeferredClose``: one volume."""

    name: str

    def pack(self) -> dict[str, object]:
        return {"name": self.name}

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        return cls(parse_name(Fields("parameters", parameters)))


@dataclass(frozen=True, slots=True)
class SuspendRequest:
    """``Suspend``: forget the key of a volume."""

    name: str
    fail_io: bool = False  # else I/O waits

    def pack(self) -> dict[str, object]:
        return {"name": self.name, "fail_io": self.fail_io}

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        fields = Fields("parameters", parameters)
        return cls(parse_name(fields), fields.flag("fail_io"))


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """``Resume``: give a volume its key back."""

    name: str
    header: PassedFile  # the volume's source, where that has the header
    key: KeyInput
    key_slot: int | None = None
    no_locks: bool = False  # the header is read without cryptsetup's lock

    def pack(self, fds: PassedFds) -> dict[str, object]:
        """The parameters; the descriptors are added to ``fds``."""
        content: dict[str, object] = {
            "name": self.name,
            "header": self.header.pack(fds),
            "key": self.key.pack(fds),
            "no_locks": self.no_locks,
        }
        if self.key_slot is not None:
            content["key_slot"] = self.key_slot
        return content

    @classmethod
    def parse(cls, parameters: Mapping[str, object], fds: Sequence[int]) -> Self:
        fields = Fields("parameters", parameters, fds)
        return cls(
            parse_name(fields),
            PassedFile.parse(fields.object("header")),
            KeyInput.parse(fields.object("key")),
            fields.optional_integer("key_slot"),
            fields.flag("no_locks"),
        )


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """``Refresh``: other flags for a volume."""

    name: str
    allow_discards: bool = False
    becomes_flag: bool = False  # the caller makes the header's flag the same

    def pack(self) -> dict[str, object]:
        return {
            "name": self.name,
            "allow_discards": self.allow_discards,
            "becomes_flag": self.becomes_flag,
        }

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        fields = Fields("parameters", parameters)
        return cls(parse_name(fields), fields.flag("allow_discards"), fields.flag("becomes_flag"))


@dataclass(frozen=True, slots=True)
class ResizeRequest:
    """``Resize``: another size for a volume."""

    name: str
    size: int | None = None  # bytes; None: all that the backing file has

    def pack(self) -> dict[str, object]:
        return {"name": self.name, "size": self.size}

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        fields = Fields("parameters", parameters)
        return cls(parse_name(fields), fields.optional_integer("size"))
