"""The PIN of a PKCS#11 token as it is sealed: where other adapters have master keys."""

from __future__ import annotations

from typing import Final

from .adapter import MASTER_KEYS_SIZE, MasterKeys
from .clear_bytes import wipe
from .errors import ConfigError, CoprocessorError, FormatError
from .token_parts import PARTS_AT, has_parts

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
        CoprocessorError: it was forgotten.
        FormatError: none was packed.
    """
    size = keys.content[0]
    if size == 0:
        raise CoprocessorError(
            f"{where}: its token refused the PIN, which was forgotten, since a token locks itself "
            "after some wrong ones; remove the adapter, and create it with the right one: the "
            "token keeps its keys"
        )
    end = PARTS_AT if has_parts(keys) else MASTER_KEYS_SIZE
    if size > PIN_MAX or any(keys.content[1 + size : end]):
        raise FormatError(f"{where}: what is sealed is no PIN")
    return keys.content[1 : 1 + size]


def forget_pin(keys: MasterKeys) -> None:
    """Have none any more."""
    size = keys.content[0]
    with memoryview(keys.content) as view:
        wipe(view[: 1 + size])
