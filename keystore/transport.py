"""Transport blobs: an effective key on its way from a coprocessor to one engine session.

An engine's public key is that of X25519, and behind it, where somebody wants a blob of kind 2, the
modulus of its RSA key of 3072 bits, whose exponent is 65537.

Source: dmcrypt/engine/src/session.h and transport.c, which open them. Kind 1: 01, ephemeral X25519
public key (32), nonce (12), AES-256-GCM ciphertext and tag (16); the AES key is HKDF-SHA256 (RFC
5869) of the shared secret, without salt; the additional data is the first 33 bytes. Kind 2: 02,
hash, number of AES keys, their RSAES-OAEP ciphertexts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .clear_bytes import wiped
from .coprocessor import KIND_X25519
from .errors import FormatError
from .gcm import NONCE_SIZE, encrypt

PUBLIC_KEY_SIZE: Final = 32
RSA_SIZE: Final = 384
_KIND_RSA: Final = 2
_INFO: Final = b"fusecrypt transport 1"


def seal(clear: bytearray, public_key: bytes) -> bytes:
    """The blob that only the engine with ``public_key`` can open.

    Raises:
        FormatError: no public key of an engine.
    """
    public_key, _ = split_public_key(public_key)
    ephemeral = X25519PrivateKey.generate()
    head = KIND_X25519 + ephemeral.public_key().public_bytes_raw()
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError as error:  # RFC 7748 6.1: the shared secret would be all zeros
        raise FormatError("public key: a point of small order, wanted a key of X25519") from error
    with wiped(bytearray(32)) as aes_key:
        HKDF(hashes.SHA256(), 32, None, _INFO + head[1:] + public_key).derive_into(shared, aes_key)
        nonce = os.urandom(NONCE_SIZE)
        return head + nonce + encrypt(clear, aes_key, nonce, head)


def pack_rsa(number: int, ciphertexts: Sequence[bytes]) -> bytes:
    """A blob of kind 2; ``number``: 1, OAEP with SHA-1, or 2, with SHA-256."""
    return bytes([_KIND_RSA, number, len(ciphertexts)]) + b"".join(ciphertexts)


def split_public_key(public_key: bytes) -> tuple[bytes, bytes]:
    """The key of X25519, and the modulus of RSA, which is empty if it was not sent.

    Raises:
        FormatError: another length.
    """
    if len(public_key) not in (PUBLIC_KEY_SIZE, PUBLIC_KEY_SIZE + RSA_SIZE):
        raise FormatError(
            f"public key: {len(public_key)} bytes, wanted {PUBLIC_KEY_SIZE} (X25519), "
            f"and {RSA_SIZE} more for RSA"
        )
    return public_key[:PUBLIC_KEY_SIZE], public_key[PUBLIC_KEY_SIZE:]
