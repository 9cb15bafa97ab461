"""Verification patterns: of a master key (MKVP), and of an effective volume key.

Source: CCA Programmer's Guide, "SHA-256 based master key verification method"; zkey's
generate_key_verification_pattern.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .ep11_token import WKVP_SIZE
from .errors import FormatError
from .key_type import MKVP_SIZE

_PLAINTEXT: Final = bytes(32)
_NO_IV: Final = bytes(16)


def make_mkvp(master_key: bytearray) -> bytes:
    """The 8 bytes by which an AES master key is told from others."""
    digest = hashlib.sha256(b"\x01")
    digest.update(master_key)
    return digest.digest()[:MKVP_SIZE]


def make_wkvp(wrapping_key: bytearray) -> bytes:
    """The 16 bytes by which the wrapping key of a virtual EP11 adapter is told from others.

    Of real ones nobody knows how they are made; of ours: see ep11.py.
    """
    digest = hashlib.sha256(b"\x02")
    digest.update(wrapping_key)
    return digest.digest()[:WKVP_SIZE]


def make_check_value(master_key: bytearray) -> bytes:
    """The 8 bytes by which a master key of a PKCS#11 token is told: its check value, but longer.

    Source: PKCS #11, version 3.0, 4.10.2, of which they begin with the 3 bytes.
    """
    encryptor = Cipher(algorithms.AES(master_key), modes.ECB()).encryptor()  # noqa: S305  one block
    return encryptor.update(_NO_IV)[:MKVP_SIZE]


def make_pattern(clear: bytearray, *, is_xts: bool) -> str:
    """64 hexadecimal digits that identify an effective key, whatever wraps it.

    Raises:
        FormatError: no AES key, or an XTS key whose halves are equal.
    """
    check_clear_key(len(clear), is_xts=is_xts)
    if is_xts:
        check_halves(clear)
    mode = modes.XTS(_NO_IV) if is_xts else modes.CBC(_NO_IV)
    encryptor = Cipher(algorithms.AES(clear), mode).encryptor()
    return (encryptor.update(_PLAINTEXT) + encryptor.finalize()).hex()


def check_clear_key(size: int, *, is_xts: bool) -> None:
    """That a clear AES key may have this many bytes.

    Raises:
        FormatError: it may not.
    """
    wanted = (32, 64) if is_xts else (16, 24, 32)
    if size not in wanted:
        kind = "an XTS key" if is_xts else "a key"
        sizes = ", ".join(map(str, wanted))
        raise FormatError(f"clear key: {size} bytes, wanted one of {sizes} for {kind}")


def check_halves(clear: bytearray) -> None:
    """That the halves of an XTS key differ (FIPS 140-3 IG, C.I).

    Raises:
        FormatError: they are equal.
    """
    half = len(clear) // 2
    view = memoryview(clear)
    if hmac.compare_digest(view[:half], view[half:]):
        raise FormatError("clear key: both halves of the XTS key are the same")
