"""The values that stand for keys outside the engine: opaque, and silent when printed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ProtectedKey:
    """A volume key wrapped by one engine session's key; void in every other session.

    ``token`` is laid out as IBM Z lays out a protected key token; see dmcrypt/engine/src/session.h.
    """

    token: bytes = field(repr=False)
