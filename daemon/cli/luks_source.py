"""Looking at a LUKS header before anything is asked or started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...keystore.errors import ConfigError, UnsupportedError
from .source import SourceFile

if TYPE_CHECKING:
    from ...dmcrypt.luks2 import Luks2Header


def check_luks(file: SourceFile) -> None:
    """Refuse what is no LUKS volume of ours. Does not verify the header.

    Raises:
        ConfigError: not a LUKS volume.
        UnsupportedError: LUKS1.
    """
    from ...dmcrypt.probe import probe

    kind = probe(file.pread, file.size)
    if kind is None:
        raise ConfigError(f"{file.path}: is not a valid LUKS device; wanted: a LUKS2 header")
    if kind == "luks1":
        raise UnsupportedError(f"{file.path}: LUKS1 is not supported; wanted: LUKS2")


def read_luks(file: SourceFile) -> Luks2Header:
    """The header, verified; nothing is repaired.

    Raises:
        ConfigError, UnsupportedError: as `check_luks`.
        FormatError: a damaged header.
    """
    from ...dmcrypt.luks2 import read_header

    check_luks(file)
    return read_header(file.pread, file.size)
