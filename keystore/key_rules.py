"""What the rules in a CCA-AESCIPHER or EP11-AES token allow that a volume key should not allow.

Source: CCA Programmer's Guide, "AES CIPHER variable-length symmetric key token", key-usage and
key-management fields; which of them zkey warns of: check_aes_cipher_key in zkey/pkey.c.
"""

from __future__ import annotations

from typing import Final

from .ep11_token import DECRYPT, ENCRYPT, EXTRACTABLE, PROTKEY_EXTRACTABLE, Ep11Token
from .keys import SecureKey
from .tokens import (
    KMF1_EXPORT_CPACF,
    KMF2_INCOMPLETE,
    KUF1_DECRYPT,
    KUF1_ENCRYPT,
    AesCipherToken,
)

_KUF1_UDX_ONLY: Final = 0x1000
#: Bits of key-management field 1 that allow an export when they are set, and when they are not.
_EXPORTS: Final = {
    0x8000: "a symmetric key",
    0x4000: "an unauthenticated asymmetric key",
    0x2000: "an authenticated asymmetric key",
    0x1000: "the RAW method",
}
_NO_EXPORTS: Final = {0x0080: "a DES key", 0x0040: "an AES key", 0x0008: "an RSA key"}
_HISTORY: Final = {
    0x0010: "was once under an untrusted key-encrypting key",
    0x0008: "was once in a format without type or usage attributes",
    0x0004: "was once under a weaker key",
    0x0002: "was once in a format that is not CCA's",
    0x0001: "was once enciphered in ECB mode",
}
_CREATION: Final = {
    0x00: "was made by an unknown method",
    0x04: "was made of clear components",
    0x05: "was made of a clear value",
}
_CONVERTED: Final = 0x12


def find_weaknesses(key: SecureKey, *, may_export: bool = False) -> list[str]:
    """Why the key might not be as secure as it should, each once.

    CCA-AESDATA and PKCS11-AES keys have no such rules.

    ``may_export``: exports are meant to be allowed.
    """
    found: dict[str, None] = {}
    for half in key.halves:
        if isinstance(half, AesCipherToken):
            exports = [] if may_export else _list_exports(half)
            found.update(dict.fromkeys(_list_usage(half) + exports + _list_history(half)))
        elif isinstance(half, Ep11Token):
            found.update(dict.fromkeys(_list_attributes(half, may_export=may_export)))
    return list(found)


def _list_attributes(token: Ep11Token, *, may_export: bool) -> list[str]:
    """What the attributes of an EP11 key allow, and do not."""
    wanted = {
        ENCRYPT: "cannot be used to encrypt",
        DECRYPT: "cannot be used to decrypt",
        PROTKEY_EXTRACTABLE: "cannot become a protected key",
    }
    found = [what for bit, what in wanted.items() if not token.attributes & bit]
    if token.attributes & EXTRACTABLE and not may_export:
        found.append("can be exported with another key")
    return found


def _list_usage(token: AesCipherToken) -> list[str]:
    found = [
        f"cannot be used to {what}"
        for bit, what in ((KUF1_ENCRYPT, "encrypt"), (KUF1_DECRYPT, "decrypt"))
        if not token.usage1 & bit
    ]
    if token.usage1 & _KUF1_UDX_ONLY:
        found.append("can be used in UDXs only")
    return found


def _list_exports(token: AesCipherToken) -> list[str]:
    rules = token.management1
    found = [f"can be exported with {what}" for bit, what in _EXPORTS.items() if rules & bit]
    found += [
        f"can be exported under {what}" for bit, what in _NO_EXPORTS.items() if not rules & bit
    ]
    return found


def _list_history(token: AesCipherToken) -> list[str]:
    found: list[str] = []
    if not token.management1 & KMF1_EXPORT_CPACF:
        found.append("cannot become a protected key")
    if token.management2 & KMF2_INCOMPLETE:
        found.append("is incomplete")
    found += [what for bit, what in _HISTORY.items() if token.management2 & bit]
    original, present = token.management3 >> 8, token.management3 & 0xFF
    if original in _CREATION:
        found.append(_CREATION[original])
    if present == _CONVERTED:
        found.append("was converted without export control")
    return found
