"""Secure keys of CCA coprocessors: clear keys wrapped by a master key, and back.

Source: CCA Programmer's Guide, "Wrapping an AES key" (CCA-AESDATA: AES-CBC; the IV is not stated,
zeros here) and "AESKW" (CCA-AESCIPHER). Nothing here keeps a clear key or a master key.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from . import aeskw
from .clear_bytes import wipe, wiped
from .errors import CoprocessorError, FormatError
from .keys import SecureKey
from .tokens import (
    KMF1_EXPORT_CPACF,
    KMF2_INCOMPLETE,
    KMF3_CLEAR_COMPONENTS,
    KMF3_RANDOM,
    KUF1_DECRYPT,
    KUF1_ENCRYPT,
    AesCipherToken,
    AesDataToken,
    KeyType,
    Token,
)
from .verification import check_clear_key, check_halves, make_mkvp

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
) -> SecureKey:
    """The clear key (both halves of an XTS key) as a secure key; ``is_random`` tells its origin.

    Raises:
        FormatError: no AES key, or an XTS key whose halves are equal.
    """
    check_clear_key(len(clear), is_xts=is_xts)
    if not is_xts:
        return SecureKey(_wrap_one(key_type, clear, master_key, is_random=is_random).pack())
    check_halves(clear)
    half = len(clear) // 2
    with wiped(clear[:half]) as first, wiped(clear[half:]) as second:
        tokens = [
            _wrap_one(key_type, part, master_key, is_random=is_random) for part in (first, second)
        ]
    return SecureKey(b"".join(token.pack() for token in tokens))


def unwrap_key(secure_key: SecureKey, master_key: bytearray) -> bytearray:
    """The clear key (both halves of an XTS key); the caller wipes it.

    Raises:
        FormatError: altered, or not wrapped by this master key.
        CoprocessorError: the token forbids to use it so.
    """
    parts: list[bytearray] = []
    try:
        for token in secure_key.halves:
            part = _unwrap_one(token, master_key)
            parts.append(part)
        if len(parts) == 2 and len(parts[0]) != len(parts[1]):
            raise FormatError("secure key: the halves of the XTS key are of different size")
        clear = bytearray(sum(map(len, parts)))
        offset = 0
        for part in parts:
            clear[offset : offset + len(part)] = part
            offset += len(part)
    finally:
        for part in parts:
            wipe(part)
    try:
        check_clear_key(len(clear), is_xts=secure_key.is_xts)
        if secure_key.is_xts:
            check_halves(clear)
    except FormatError:
        wipe(clear)
        raise
    return clear


def _wrap_one(
    key_type: KeyType, clear: bytearray, master_key: bytearray, *, is_random: bool
) -> Token:
    mkvp = make_mkvp(master_key)
    if key_type is KeyType.CCA_AESDATA:
        with wiped(bytearray(_DATA_SIZE)) as padded:
            padded[: len(clear)] = clear
            cipher = Cipher(algorithms.AES(master_key), modes.CBC(_ZERO_IV))
            with wiped(_crypt(cipher.encryptor(), padded)) as encrypted:
                return AesDataToken(mkvp, _make_lrc(clear), len(clear) * 8, bytes(encrypted))
    size = _PAYLOAD_OVERHEAD + len(clear)
    origin = KMF3_RANDOM if is_random else KMF3_CLEAR_COMPONENTS
    skeleton = AesCipherToken(mkvp, bytes(size), management3=origin)
    description = skeleton.pack_associated_data()
    payload = aeskw.wrap(clear, description, master_key, size)
    return AesCipherToken(mkvp, payload, management3=origin)


def _unwrap_one(token: Token, master_key: bytearray) -> bytearray:
    mkvp = make_mkvp(master_key)
    if token.mkvp != mkvp:
        raise FormatError(
            f"secure key: wrapped by master key MKVP {token.mkvp.hex()}, not by {mkvp.hex()}"
        )
    if isinstance(token, AesCipherToken):
        return _unwrap_cipher(token, master_key)
    cipher = Cipher(algorithms.AES(master_key), modes.CBC(_ZERO_IV))
    with wiped(_crypt(cipher.decryptor(), token.encrypted_key)) as padded:
        size = token.clear_bits // 8
        if any(padded[size:]) or _make_lrc(padded) != token.lrc:
            raise FormatError("secure key: CCA-AESDATA token altered, its LRC is not the key's")
        return padded[:size]


def _unwrap_cipher(token: AesCipherToken, master_key: bytearray) -> bytearray:
    if not token.management1 & KMF1_EXPORT_CPACF:
        raise CoprocessorError("secure key: it may not become a protected key (XPRTCPAC is off)")
    both = KUF1_ENCRYPT | KUF1_DECRYPT
    if token.usage1 & both != both:
        raise CoprocessorError("secure key: it may not both encipher and decipher")
    if token.management2 & KMF2_INCOMPLETE:
        raise CoprocessorError("secure key: parts of the key are missing")
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
