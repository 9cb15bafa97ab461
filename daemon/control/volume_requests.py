"""What ``io.fusecrypt`` can be asked to do with a volume that is open, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from .fields import Fields
from .messages import parse_name


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
    """``Status``: one volume."""

    name: str

    def pack(self) -> dict[str, object]:
        return {"name": self.name}

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        return cls(parse_name(Fields("parameters", parameters)))
