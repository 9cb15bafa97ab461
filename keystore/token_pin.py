"""The PIN of a PKCS#11 token as it is sealed: where other adapters have master keys."""

from __future__ import annotations

from typing import Final

from .adapter import MASTER_KEYS_SIZE, MasterKeys
from .errors import ConfigError, FormatError

PIN_MAX: Final = MASTER_KEYS_SIZE - 1


def pack_pin(pin: bytearray) -> MasterKeys:
    """A byte with its length, the PIN, zeros; the caller wipes both.

    Raises:
        ConfigError: empty, or longer than what is sealed.
    """
    if not 0 < len(pin) <= PIN_MAX:
        raise ConfigError(f"PIN: {len(pin)} bytes; wanted: 1 to {PIN_MAX}")
    content = bytearray(MASTER_KEYS_SIZE)
    content[0] = len(pin)
    content[1 : 1 + len(pin)] = pin
    return MasterKeys(content)


def copy_pin(keys: MasterKeys, where: str) -> bytearray:
    """The PIN; the caller wipes it.

    Raises:
        FormatError: none was packed.
    """
    size = keys.content[0]
    if not 0 < size <= PIN_MAX or any(keys.content[1 + size :]):
        raise FormatError(f"{where}: what is sealed is no PIN")
    return keys.content[1 : 1 + size]
