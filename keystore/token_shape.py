"""What can be told of any secure key of zkey's, also of kinds that no adapter here can use.

Source: zkey/pkey.h and pvsecrets.h of s390-tools; zcrypt_ep11misc.h of the kernel. Integers are
big-endian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .errors import FormatError
from .keys import SecureKey

# Type and version at bytes 0 and 4.
_EP11_OVERLAID: Final = (0x00, 0x03)  # the header lies over the session field
_EP11_WITH_HEADER: Final = (0x00, 0x06)
_PVSECRET: Final = (0x00, 0x09)

_EP11_SIZE: Final = 320  # padded; a real blob has 256
_EP11_HEADER_SIZE: Final = 16
_EP11_WKVP: Final = slice(32, 48)  # of the blob
_EP11_MAGIC: Final = slice(64, 66)
_EP11_MAGIC_VALUE: Final = b"\x12\x34"
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
    if kind in (_EP11_OVERLAID, _EP11_WITH_HEADER):
        return _describe_ep11(token, _EP11_HEADER_SIZE if kind == _EP11_WITH_HEADER else 0)
    if kind == _PVSECRET:
        return _describe_pvsecret(token)
    key = SecureKey.parse(token)
    return TokenShape(str(key.key_type), key.size, key.is_xts, key.clear_bits, key.mkvp)


def _describe_ep11(token: bytes, header: int) -> TokenShape:
    size = _EP11_SIZE + header
    if len(token) not in (size, 2 * size):
        raise FormatError(f"EP11-AES key: {len(token)} bytes, wanted {size}, or {2 * size} for XTS")
    halves = [token[i : i + size] for i in range(0, len(token), size)]
    for half in halves:
        if half[header:][_EP11_MAGIC] != _EP11_MAGIC_VALUE:
            raise FormatError(f"EP11-AES key: no blob version 1234 at byte {header + 64}")
    bits = int.from_bytes(token[6:8], "big")
    wkvp = token[header:][_EP11_WKVP]
    return TokenShape(
        "EP11-AES", len(token), len(halves) == 2, bits * len(halves) if bits else None, wkvp
    )


def _describe_pvsecret(token: bytes) -> TokenShape:
    secret = int.from_bytes(token[8:10], "big")
    if len(token) != _PVSECRET_SIZE or secret not in _PVSECRETS:
        raise FormatError(
            f"PVSECRET key: {len(token)} bytes of type {secret}, wanted 44 of 4 to 10"
        )
    name, bits, is_xts = _PVSECRETS[secret]
    return TokenShape(name, len(token), is_xts, bits, None)
