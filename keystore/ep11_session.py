"""The session of an EP11 domain, which keys are bound to: what an association secret makes.

Of real ones nobody knows how they are made; ours, with HKDF-SHA-256 of the secret, without salt:
the id, which stands in keys, and a key of 32 bytes, without which the wrapping key opens none.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .clear_bytes import wiped
from .ep11_token import SESSION_SIZE

SECRET_SIZE: Final = 32
_KEY_SIZE: Final = 32
_INFO_ID: Final = b"fusecrypt EP11 session id 1"
_INFO_KEY: Final = b"fusecrypt EP11 session key 1"


@dataclass(frozen=True, slots=True)
class Session:
    """One session for the length of an operation."""

    id: bytes
    key: bytearray = field(repr=False)


@contextmanager
def make_session(secret: bytearray) -> Generator[Session, None, None]:
    """The session of an association secret for the length of a block."""
    with wiped(bytearray(_KEY_SIZE)) as key:
        HKDF(hashes.SHA256(), _KEY_SIZE, None, _INFO_KEY).derive_into(secret, key)
        yield Session(make_session_id(secret), key)


def make_session_id(secret: bytearray) -> bytes:
    """What may be told of a session; it says nothing of the secret."""
    return HKDF(hashes.SHA256(), SESSION_SIZE, None, _INFO_ID).derive(secret)


def describe_session(session_id: bytes) -> str:
    """What messages call a session."""
    return f"EP11 session {session_id[:8].hex()}…"
