"""AES-256-GCM over buffers that can be wiped."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .clear_bytes import wipe

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
_ROOM: Final = 15  # what update_into wants beyond its input


class NotAuthenticError(Exception):
    """Another key, or altered bytes; the callers know which file or passphrase to name."""


def encrypt(clear: bytearray, key: bytearray, nonce: bytes, public: bytes) -> bytes:
    """Ciphertext and tag; ``public`` is authenticated with them. A nonce serves a key once."""
    encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(public)
    out = bytearray(len(clear) + _ROOM)
    size = encryptor.update_into(clear, out)
    return bytes(out[:size]) + encryptor.finalize() + encryptor.tag


def decrypt(sealed: bytes, key: bytearray, nonce: bytes, public: bytes) -> bytearray:
    """The cleartext of `encrypt`; the caller wipes it.

    Raises:
        NotAuthenticError: another key, or ciphertext or ``public`` were altered.
    """
    if len(sealed) < TAG_SIZE:
        raise NotAuthenticError
    ciphertext, tag = sealed[:-TAG_SIZE], sealed[-TAG_SIZE:]
    decryptor = Cipher(algorithms.AES(key), modes.GCM(nonce, tag)).decryptor()
    decryptor.authenticate_additional_data(public)
    out = bytearray(len(ciphertext) + _ROOM)
    try:
        size = decryptor.update_into(ciphertext, out)
        decryptor.finalize()
        return out[:size]
    except InvalidTag as error:
        raise NotAuthenticError from error
    finally:
        wipe(out)
