"""The kinds of secure key, and the sizes of what they hold."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from .errors import UnsupportedError

MKVP_SIZE: Final = 8
KEY_BITS: Final = (128, 192, 256)
#: Halves of an XTS key; AES-192-XTS does not exist.
XTS_KEY_BITS: Final = (128, 256)


class KeyType(StrEnum):
    """The kinds of secure key: three spelt as zkey spells them, and that of a PKCS#11 token."""

    CCA_AESDATA = "CCA-AESDATA"
    CCA_AESCIPHER = "CCA-AESCIPHER"
    EP11_AES = "EP11-AES"
    PKCS11_AES = "PKCS11-AES"


#: Bytes of one token in a file as it is made here; an XTS key is two of them.
TOKEN_SIZES: Final = {
    KeyType.CCA_AESDATA: 64,
    KeyType.CCA_AESCIPHER: 136,
    KeyType.EP11_AES: 336,
    KeyType.PKCS11_AES: 96,
}
#: What CCA coprocessors make.
CCA_KEY_TYPES: Final = (KeyType.CCA_AESDATA, KeyType.CCA_AESCIPHER)


def check_key_bits(key_type: KeyType, key_bits: int, *, is_xts: bool) -> None:
    """That a random key, of XTS each half of it, may have this many bits.

    Raises:
        UnsupportedError: it may not.
    """
    wanted = XTS_KEY_BITS if is_xts else KEY_BITS
    if key_bits not in wanted:
        sizes = " or ".join(map(str, wanted))
        kind = "half of an XTS key" if is_xts else "key"
        raise UnsupportedError(f"{key_type}: a {kind} of {key_bits} bits, wanted {sizes}")
