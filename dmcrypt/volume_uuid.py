"""The UUID of a LUKS volume, as its header spells it."""

from __future__ import annotations

import uuid

from ..keystore.errors import ConfigError


def make_uuid(text: str | None = None) -> str:
    """A new UUID, or the one that ``text`` names.

    Raises:
        ConfigError: not a UUID.
    """
    return str(uuid.uuid4()) if text is None else parse_uuid(text)


def parse_uuid(text: str) -> str:
    """A UUID in any of its usual forms, in the one that headers have.

    Raises:
        ConfigError: not a UUID.
    """
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise ConfigError(
            f"UUID {text!r}: wanted such as 01234567-89ab-cdef-0123-456789abcdef"
        ) from error
