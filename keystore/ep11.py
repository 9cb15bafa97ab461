"""Secure keys of EP11 coprocessors: clear keys wrapped by a wrapping key (WK), and back.

What is inside a real adapter's blob is not public. So this is a format of ours in fields of the
same sizes, and no blob of a real adapter can be opened by a virtual one, nor the other way:

- WKVP: SHA-256 of 02 and the WK; tokens have the first 16 bytes of it.
- HKDF-SHA-256 of the WK, without salt, gives 64 bytes: an AES-256 key and a MAC key.
- Plaintext of 144 bytes: bits of the key (2 bytes, big-endian), the key, zeros.
- AES-256-CBC without padding. Its IV is AES-256 of the token's 14 bytes and two zeros (NIST SP
  800-38A, appendix C: a nonce enciphered with the same key cannot be foretold).
- MAC: HMAC-SHA-256 of the blob's first 224 bytes, with zeros where version 3 has its header.
- A blob that is bound to a session has its id, and HKDF is of the WK and the session's key, with
  another info: see ep11_session.py.

Nothing here keeps a clear key, a wrapping key or a session's.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .clear_bytes import wiped
from .ep11_session import Session, describe_session
from .ep11_token import (
    DECRYPT,
    ENCRYPT,
    ENCRYPTED_SIZE,
    EXTRACTABLE,
    IV_SIZE,
    MAC_SIZE,
    PROTKEY_EXTRACTABLE,
    SESSION_SIZE,
    USUAL_ATTRIBUTES,
    VERSION_WITH_HEADER,
    Ep11Token,
)
from .errors import CoprocessorError, FormatError, UnsupportedError
from .halves import open_halves, wrap_halves
from .key_type import KEY_BITS, KeyType
from .keys import SecureKey
from .verification import make_wkvp

_INFO: Final = b"fusecrypt EP11 blob 1"
_INFO_BOUND: Final = b"fusecrypt EP11 session-bound blob 1"
_ZERO_IV: Final = bytes(16)
_BITS_SIZE: Final = 2
_BLOB_SIZE: Final = 256
_BLOCK: Final = 16


def wrap_key(
    key_type: KeyType,
    clear: bytearray,
    master_key: bytearray,
    *,
    is_xts: bool,
    is_exportable: bool = False,
    session: Session | None = None,
) -> SecureKey:
    """The clear key (both halves of an XTS key) as a secure key, bound to the session if any.

    Raises:
        FormatError: no AES key, or an XTS key whose halves are equal.
        UnsupportedError: another type of key.
    """
    if key_type is not KeyType.EP11_AES:
        raise UnsupportedError(f"{key_type}: no key of EP11's")
    attributes = USUAL_ATTRIBUTES | (EXTRACTABLE if is_exportable else 0)
    like = Ep11Token(
        b"", attributes, b"", b"", b"",
        clear_bits=None,
        version=VERSION_WITH_HEADER,
        session=session.id if session else bytes(SESSION_SIZE),
    )  # fmt: skip

    def wrap_one(part: bytearray) -> bytes:
        return _wrap_one(part, master_key, like, session).pack()

    return SecureKey(wrap_halves(clear, wrap_one, is_xts=is_xts))


def unwrap_key(
    secure_key: SecureKey, master_key: bytearray, session: Session | None = None
) -> bytearray:
    """The clear key (both halves of an XTS key); the caller wipes it.

    Raises:
        FormatError: altered, or not wrapped by this wrapping key.
        CoprocessorError: the token's attributes forbid to use it so, or it is bound to another
            session than this.
        UnsupportedError: no blob of a virtual adapter.
    """
    halves = _get_halves(secure_key)
    for token in halves:
        _check_usable(token)
    return open_halves(halves, lambda token: _open_one(token, master_key, session))


def rewrap_key(
    secure_key: SecureKey,
    master_key: bytearray,
    target: bytearray,
    session: Session | None = None,
) -> SecureKey:
    """The same key under the wrapping key ``target``; all that the token tells stays as it is.

    Raises:
        FormatError: altered, or not wrapped by ``master_key``.
        CoprocessorError: bound to another session than this.
        UnsupportedError: as `unwrap_key`.
    """
    tokens: list[bytes] = []
    for token in _get_halves(secure_key):
        with wiped(_open_one(token, master_key, session)) as clear:
            tokens.append(_wrap_one(clear, target, token, session).pack())
    return SecureKey(b"".join(tokens))


def _get_halves(secure_key: SecureKey) -> list[Ep11Token]:
    halves = [half for half in secure_key.halves if isinstance(half, Ep11Token)]
    if not halves:
        raise UnsupportedError(f"{secure_key.key_type}: no key of EP11's")
    return halves


def _check_usable(token: Ep11Token) -> None:
    if not token.attributes & PROTKEY_EXTRACTABLE:
        raise CoprocessorError(
            "secure key: it may not become a protected key (PROTKEY_EXTRACTABLE is off)"
        )
    both = ENCRYPT | DECRYPT
    if token.attributes & both != both:
        raise CoprocessorError("secure key: it may not both encipher and decipher")


def _wrap_one(
    clear: bytearray, master_key: bytearray, like: Ep11Token, session: Session | None
) -> Ep11Token:
    """A token that says of the key what ``like`` says."""
    bits = len(clear) * 8
    iv = os.urandom(IV_SIZE)
    bound_to = session if like.is_session_bound else None
    with (
        _derived(master_key, bound_to) as (cipher_key, mac_key),
        wiped(bytearray(ENCRYPTED_SIZE)) as data,
    ):
        data[:_BITS_SIZE] = bits.to_bytes(_BITS_SIZE, "big")
        data[_BITS_SIZE : _BITS_SIZE + len(clear)] = clear
        encryptor = Cipher(
            algorithms.AES(cipher_key), modes.CBC(_make_iv(iv, cipher_key))
        ).encryptor()
        encrypted = encryptor.update(data) + encryptor.finalize()
        token = replace(
            like,
            mkvp=make_wkvp(master_key),
            iv=iv,
            encrypted=encrypted,
            mac=bytes(MAC_SIZE),
            clear_bits=bits,
        )
        return replace(token, mac=_make_mac(token, mac_key))


def _open_one(token: Ep11Token, master_key: bytearray, session: Session | None) -> bytearray:
    """The clear key, whatever it may be used for; the caller wipes it."""
    if token.is_session_bound and (session is None or session.id != token.session):
        here = describe_session(session.id) if session else "none"
        raise CoprocessorError(
            f"secure key: bound to {describe_session(token.session)}, the adapter has {here}"
        )
    wkvp = make_wkvp(master_key)
    if token.mkvp != wkvp:
        raise FormatError(
            f"secure key: wrapped by master key WKVP {token.mkvp.hex()}, not by {wkvp.hex()}"
        )
    if token.blob_size != _BLOB_SIZE:
        raise UnsupportedError(
            f"secure key: an EP11 blob of {token.blob_size} bytes, no virtual adapter's"
        )
    with (
        _derived(master_key, session if token.is_session_bound else None) as (cipher_key, mac_key),
        wiped(bytearray(ENCRYPTED_SIZE + _BLOCK - 1)) as data,  # update_into wants more room
    ):
        if not hmac.compare_digest(token.mac, _make_mac(token, mac_key)):
            raise FormatError("secure key: EP11-AES token altered, its MAC is not the blob's")
        decryptor = Cipher(
            algorithms.AES(cipher_key), modes.CBC(_make_iv(token.iv, cipher_key))
        ).decryptor()
        decryptor.update_into(token.encrypted, data)
        decryptor.finalize()
        bits = int.from_bytes(data[:_BITS_SIZE], "big")
        if bits not in KEY_BITS or token.clear_bits not in (bits, None):
            raise FormatError("secure key: the size of the key inside is not what the token says")
        return data[_BITS_SIZE : _BITS_SIZE + bits // 8]


@contextmanager
def _derived(
    wrapping_key: bytearray, session: Session | None
) -> Generator[tuple[bytearray, bytearray], None, None]:
    """The keys of cipher and MAC for the length of a block."""
    material = bytearray(len(wrapping_key) + (len(session.key) if session else 0))
    with wiped(material), wiped(bytearray(64)) as both:
        material[: len(wrapping_key)] = wrapping_key
        if session:
            material[len(wrapping_key) :] = session.key
        info = _INFO_BOUND if session else _INFO
        HKDF(hashes.SHA256(), 64, None, info).derive_into(material, both)
        with wiped(both[:32]) as cipher_key, wiped(both[32:]) as mac_key:
            yield cipher_key, mac_key


def _make_iv(iv: bytes, cipher_key: bytearray) -> bytes:
    encryptor = Cipher(algorithms.AES(cipher_key), modes.CBC(_ZERO_IV)).encryptor()
    return encryptor.update(iv.ljust(_BLOCK, b"\0")) + encryptor.finalize()


def _make_mac(token: Ep11Token, mac_key: bytearray) -> bytes:
    """Over the same bytes in both forms."""
    plain = replace(token, version=VERSION_WITH_HEADER, mac=bytes(MAC_SIZE)).pack()
    return hmac.digest(mac_key, plain[16 : 16 + _BLOB_SIZE - MAC_SIZE], "sha256")
