"""What may be told of a guest's association secrets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ListedSecret:
    """What may be told of a secret."""

    id: bytes
    session_id: bytes  # of the EP11 session that it makes


@dataclass(frozen=True, slots=True)
class SecretList:
    """The secrets, each at its index."""

    secrets: tuple[ListedSecret, ...]
    is_locked: bool
