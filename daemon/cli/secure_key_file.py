"""Secure keys in files of their own, as ``zkey generate FILE`` makes them."""

from __future__ import annotations

from typing import Final

from ...keystore.errors import FormatError
from ...keystore.keys import SecureKey
from .source import open_for_reading

#: What zkey takes for a secure key: up to three times the largest token.
_MAX_SIZE: Final = 1008  # bytes


def read_secure_key(path: str) -> SecureKey:
    """The key of a file.

    Raises:
        FormatError: the file is not exactly a secure key.
        NotFoundError, AccessError: it cannot be read.
    """
    with open_for_reading(path, "secure key") as file:
        token = file.pread(0, _MAX_SIZE + 1)
    try:
        return SecureKey.parse(token)
    except FormatError as error:
        raise FormatError(f"secure key {path}: {error}") from None
