"""Secure keys of CCA coprocessors: clear keys wrapped by a master key, and back.

Source: CCA Programmer's Guide, "Wrapping an AES key" (CCA-AESDATA: AES-CBC; the IV is not stated,
zeros here) and "AESKW" (CCA-AESCIPHER). Nothing here keeps a clear key or a master key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from . import aeskw
from .clear_bytes import wipe, wiped
from .errors import CoprocessorError, FormatError, UnsupportedError
from .halves import open_halves, wrap_halves
from .keys import SecureKey
from .tokens import (
    KMF1_CPACF_ONLY,
    KMF1_EXPORT_CPACF,
    KMF1_EXPORTABLE,
    KMF2_INCOMPLETE,
    KMF2_NO_ATTRIBUTES_BEFORE,
    KMF3_CLEAR_COMPONENTS,
    KMF3_CONVERTED,
    KMF3_RANDOM,
    KUF1_DECRYPT,
    KUF1_ENCRYPT,
    AesCipherToken,
    AesDataToken,
    KeyType,
    Token,
)
from .verification import make_mkvp

MASTER_KEY_SIZE: Final = 32
_DATA_SIZE: Final = 32  # what CCA-AESDATA wraps: the key and zeros
_ZERO_IV: Final = bytes(16)
#: Payload bytes that are no key: header of 44 and pad of 4.
_PAYLOAD_OVERHEAD: Final = 48
_KEY_SIZES: Final = (16, 24, 32)


def wrap_key(
    key_type: KeyType,
    clear: bytearray,
    master_key: bytearray,
    *,
    is_xts: bool,
    is_random: bool = True,
    is_exportable: bool = False,
) -> SecureKey:
    """The clear key (both halves of an XTS key) as a secure key; ``is_random`` tells its origin.

    Raises:
        FormatError: no AES key, or an XTS key whose halves are equal.
        UnsupportedError: ``is_exportable`` for a type that says nothing of exports, or no CCA type.
    """
    if key_type not in (KeyType.CCA_AESDATA, KeyType.CCA_AESCIPHER):
        raise UnsupportedError(f"{key_type}: no key of CCA's")
    check_exportable(key_type, is_exportable=is_exportable)
    like = AesCipherToken(
        b"",
        b"",
        management1=KMF1_EXPORTABLE if is_exportable else KMF1_CPACF_ONLY,
        management3=KMF3_RANDOM if is_random else KMF3_CLEAR_COMPONENTS,
    )

    def wrap_one(part: bytearray) -> bytes:
        return _wrap_one(key_type, part, master_key, like).pack()

    return SecureKey(wrap_halves(clear, wrap_one, is_xts=is_xts))


def check_exportable(key_type: KeyType, *, is_exportable: bool) -> None:
    """That a key of this type can say that it may be exported.

    Raises:
        UnsupportedError: it cannot.
    """
    if is_exportable and key_type is not KeyType.CCA_AESCIPHER:
        raise UnsupportedError(
            f"{key_type}: says nothing of exports; wanted: {KeyType.CCA_AESCIPHER}"
        )


def unwrap_key(secure_key: SecureKey, master_key: bytearray) -> bytearray:
    """The clear key (both halves of an XTS key); the caller wipes it.

    Raises:
        FormatError: altered, or not wrapped by this master key.
        CoprocessorError: the token forbids to use it so.
    """
    return open_halves(secure_key.halves, lambda token: _unwrap_one(token, master_key))


def rewrap_key(secure_key: SecureKey, master_key: bytearray, target: bytearray) -> SecureKey:
    """The same key under the master key ``target``; what it may be used for stays as it is.

    Raises:
        FormatError: altered, or not wrapped by ``master_key``.
    """
    tokens = [_rewrap_one(token, master_key, target) for token in secure_key.halves]
    return SecureKey(b"".join(token.pack() for token in tokens))


def convert_key(
    secure_key: SecureKey, master_key: bytearray, *, is_exportable: bool = False
) -> SecureKey:
    """A CCA-AESDATA key as CCA-AESCIPHER, under the same master key.

    Raises:
        UnsupportedError: it is no CCA-AESDATA key.
        FormatError: altered, or not wrapped by ``master_key``.
    """
    if secure_key.key_type is not KeyType.CCA_AESDATA:
        raise UnsupportedError(
            f"{secure_key.key_type}: cannot be converted; wanted: {KeyType.CCA_AESDATA}"
        )
    like = AesCipherToken(
        b"",
        b"",
        management1=KMF1_EXPORTABLE if is_exportable else KMF1_CPACF_ONLY,
        management2=KMF2_NO_ATTRIBUTES_BEFORE,
        management3=KMF3_CONVERTED,
    )
    tokens: list[Token] = []
    for token in secure_key.halves:
        with wiped(_open_one(token, master_key)) as clear:
            tokens.append(_wrap_one(KeyType.CCA_AESCIPHER, clear, master_key, like))
    return SecureKey(b"".join(token.pack() for token in tokens))


def restrict_key(secure_key: SecureKey, master_key: bytearray) -> SecureKey:
    """A CCA-AESCIPHER key that may not be exported any more, but for CPACF where it could be.

    Raises:
        UnsupportedError: it is no CCA-AESCIPHER key.
        FormatError: altered, or not wrapped by ``master_key``.
    """
    tokens: list[Token] = []
    for token in secure_key.halves:
        if not isinstance(token, AesCipherToken):
            raise UnsupportedError(
                f"{secure_key.key_type}: says nothing of exports; wanted: {KeyType.CCA_AESCIPHER}"
            )
        stays = token.management1 & KMF1_EXPORT_CPACF
        rules = KMF1_CPACF_ONLY & ~KMF1_EXPORT_CPACF | stays
        with wiped(_open_one(token, master_key)) as clear:
            tokens.append(_wrap_cipher(clear, master_key, replace(token, management1=rules)))
    return SecureKey(b"".join(token.pack() for token in tokens))


def _wrap_one(
    key_type: KeyType, clear: bytearray, master_key: bytearray, like: AesCipherToken
) -> Token:
    """One key; ``like`` has the rules that a CCA-AESCIPHER token gets."""
    mkvp = make_mkvp(master_key)
    if key_type is KeyType.CCA_AESDATA:
        with wiped(bytearray(_DATA_SIZE)) as padded:
            padded[: len(clear)] = clear
            cipher = Cipher(algorithms.AES(master_key), modes.CBC(_ZERO_IV))
            with wiped(_crypt(cipher.encryptor(), padded)) as encrypted:
                return AesDataToken(mkvp, _make_lrc(clear), len(clear) * 8, bytes(encrypted))
    return _wrap_cipher(
        clear, master_key, replace(like, payload=bytes(_PAYLOAD_OVERHEAD + len(clear)))
    )


def _wrap_cipher(clear: bytearray, master_key: bytearray, like: AesCipherToken) -> Token:
    """A token that says of the key what ``like`` says, its payload of the same size."""
    description = like.pack_associated_data()
    payload = aeskw.wrap(clear, description, master_key, len(like.payload))
    return replace(like, mkvp=make_mkvp(master_key), payload=payload)


def _rewrap_one(token: Token, master_key: bytearray, target: bytearray) -> Token:
    with wiped(_open_one(token, master_key)) as clear:
        if isinstance(token, AesCipherToken):
            return _wrap_cipher(clear, target, token)
        like = AesCipherToken(b"", b"")
        wrapped = _wrap_one(KeyType.CCA_AESDATA, clear, target, like)
        assert isinstance(wrapped, AesDataToken)
        assert isinstance(token, AesDataToken)  # it opened
        return replace(wrapped, has_control_vector=token.has_control_vector)


def _unwrap_one(token: Token, master_key: bytearray) -> bytearray:
    """The clear key of a token that may be used as a volume key; the caller wipes it."""
    if isinstance(token, AesCipherToken):
        _check_usable(token)
    return _open_one(token, master_key)


def _open_one(token: Token, master_key: bytearray) -> bytearray:
    """The clear key, whatever it may be used for; the caller wipes it."""
    mkvp = make_mkvp(master_key)
    if token.mkvp != mkvp:
        raise FormatError(
            f"secure key: wrapped by master key MKVP {token.mkvp.hex()}, not by {mkvp.hex()}"
        )
    if isinstance(token, AesCipherToken):
        return _open_cipher(token, master_key)
    if not isinstance(token, AesDataToken):
        raise UnsupportedError(f"{token.key_type}: no key of CCA's")
    cipher = Cipher(algorithms.AES(master_key), modes.CBC(_ZERO_IV))
    with wiped(_crypt(cipher.decryptor(), token.encrypted_key)) as padded:
        size = token.clear_bits // 8
        if any(padded[size:]) or _make_lrc(padded) != token.lrc:
            raise FormatError("secure key: CCA-AESDATA token altered, its LRC is not the key's")
        return padded[:size]


def _check_usable(token: AesCipherToken) -> None:
    if not token.management1 & KMF1_EXPORT_CPACF:
        raise CoprocessorError("secure key: it may not become a protected key (XPRTCPAC is off)")
    both = KUF1_ENCRYPT | KUF1_DECRYPT
    if token.usage1 & both != both:
        raise CoprocessorError("secure key: it may not both encipher and decipher")
    if token.management2 & KMF2_INCOMPLETE:
        raise CoprocessorError("secure key: parts of the key are missing")


def _open_cipher(token: AesCipherToken, master_key: bytearray) -> bytearray:
    clear = aeskw.unwrap(token.payload, token.pack_associated_data(), master_key)
    if len(clear) not in _KEY_SIZES or token.clear_bits not in (len(clear) * 8, None):
        wipe(clear)
        raise FormatError("secure key: the size of the key inside is not what the token says")
    return clear


def _make_lrc(clear: bytearray) -> int:
    lrc = 0
    for byte in clear:
        lrc ^= byte
    return lrc


def _crypt(context: CipherContext, data: bytes | bytearray) -> bytearray:
    out = bytearray(len(data) + 15)  # update_into wants room for a block more
    size = context.update_into(data, out)
    context.finalize()
    result = out[:size]
    wipe(out)
    return result
