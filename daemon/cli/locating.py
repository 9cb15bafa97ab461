"""Errors say which file they are about."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from ...keystore.errors import MapperError


@contextlib.contextmanager
def locating(path: str) -> Generator[None, None, None]:
    """Put the path before what is wrong with a file, if it is not there yet."""
    try:
        yield
    except MapperError as error:
        if str(error).startswith(f"{path}: "):
            raise
        raise type(error)(f"{path}: {error}") from None
