"""The values that stand for keys outside the engine: opaque, and silent when printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from .ep11_token import Ep11Token
from .tokens import KeyType, Token, parse_tokens


@dataclass(frozen=True, slots=True)
class SecureKey:
    """A volume key wrapped by a coprocessor's master key, well-formed; may be stored anywhere."""

    token: bytes = field(repr=False)
    halves: tuple[Token, ...] = field(init=False, repr=False, compare=False)  # two for XTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", bytes(self.token))
        object.__setattr__(self, "halves", parse_tokens(self.token))

    @classmethod
    def parse(cls, token: bytes) -> Self:
        """The key that a file or keyslot holds: one token, or two for XTS.

        Raises:
            FormatError: not exactly that; says which field, where, and what was wanted.
        """
        return cls(token)

    @property
    def key_type(self) -> KeyType:
        return self.halves[0].key_type

    @property
    def is_xts(self) -> bool:
        return len(self.halves) == 2

    @property
    def clear_bits(self) -> int | None:
        """Bits of the whole clear key (512 for XTS-256), None: the token hides them."""
        bits = self.halves[0].clear_bits
        return None if bits is None else bits * len(self.halves)

    @property
    def mkvp(self) -> bytes:
        """The verification pattern of the master key that wraps this key: 8 bytes."""
        return self.halves[0].mkvp

    @property
    def session(self) -> bytes:
        """The id of the EP11 session that the key is bound to; empty: to none."""
        first = self.halves[0]
        return first.session if isinstance(first, Ep11Token) and first.is_session_bound else b""

    @property
    def size(self) -> int:
        """Bytes of the secure key; eight times this is what cryptsetup calls its key size."""
        return len(self.token)


@dataclass(frozen=True, slots=True)
class ProtectedKey:
    """A volume key wrapped by one engine session's key; void in every other session.

    ``token`` is laid out as IBM Z lays out a protected key token; see dmcrypt/engine/src/session.h.
    """

    token: bytes = field(repr=False)
