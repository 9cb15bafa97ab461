"""What can be told of any secure key of zkey's, also of kinds that no adapter here can use.

Source: zkey/pkey.h and pvsecrets.h of s390-tools. Integers are big-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .errors import FormatError
from .keys import SecureKey

_PVSECRET: Final = (0x00, 0x09)  # type and version at bytes 0 and 4
_PVSECRET_SIZE: Final = 44
#: Secret type: name, bits, for XTS.
_PVSECRETS: Final = {
    4: ("PVSECRET-AES", 128, False),
    5: ("PVSECRET-AES", 192, False),
    6: ("PVSECRET-AES", 256, False),
    7: ("PVSECRET-AES", 256, True),
    8: ("PVSECRET-AES", 512, True),
    9: ("PVSECRET-HMAC", 512, False),
    10: ("PVSECRET-HMAC", 1024, False),
}


@dataclass(frozen=True, slots=True)
class TokenShape:
    """A secure key as it is listed."""

    kind: str  # spelt as zkey does
    size: int  # bytes
    is_xts: bool
    clear_bits: int | None  # of the whole key; None: the token hides them
    mkvp: bytes | None  # of the master key; None: none wraps it


def describe_token(token: bytes) -> TokenShape:
    """What the bytes of a .skey file are.

    Raises:
        FormatError: no key that zkey makes.
    """
    kind = (token[0], token[4]) if len(token) >= 8 else None
    if kind == _PVSECRET:
        return _describe_pvsecret(token)
    key = SecureKey.parse(token)
    return TokenShape(str(key.key_type), key.size, key.is_xts, key.clear_bits, key.mkvp)


def _describe_pvsecret(token: bytes) -> TokenShape:
    secret = int.from_bytes(token[8:10], "big")
    if len(token) != _PVSECRET_SIZE or secret not in _PVSECRETS:
        raise FormatError(
            f"PVSECRET key: {len(token)} bytes of type {secret}, wanted 44 of 4 to 10"
        )
    name, bits, is_xts = _PVSECRETS[secret]
    return TokenShape(name, len(token), is_xts, bits, None)
