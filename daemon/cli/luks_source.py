"""Looking at a LUKS header before anything is asked or started."""

from __future__ import annotations

from ...dmcrypt.luks1 import Luks1Header
from ...dmcrypt.luks2 import Luks2Header
from ...dmcrypt.luks_header import LuksHeader, read_luks_header
from ...keystore.errors import ConfigError, MapperError
from .arguments import Arguments
from .source import SourceFile


def read_luks(file: SourceFile, kind: str = "luks") -> Luks1Header | Luks2Header:
    """The header, verified; nothing is repaired.

    Raises:
        ConfigError: not a LUKS volume, or not of the ``kind`` that was asked for.
        UnsupportedError: LUKS of another version.
        FormatError: a damaged header.
    """
    try:
        return read_luks_header(file.pread, file.size, kind)
    except MapperError as error:
        raise _locate(file, error) from None


def check_openable(header: LuksHeader, source: SourceFile, *, read_only: bool) -> tuple[str, ...]:
    """Refuse what cannot be opened with any passphrase; what else is to be said about it.

    Raises:
        MapperError: what of the header, or the device's size, is in the way.
    """
    from ...dmcrypt.open_volume import check_luks

    try:
        return check_luks(header, source.size, read_only=read_only)
    except MapperError as error:
        raise _locate(source, error) from None


def parse_key_slot(args: Arguments, header: LuksHeader, source: SourceFile) -> int | None:
    """The keyslot that ``--key-slot`` names; None when any will do.

    Raises:
        ConfigError: the header has no such keyslot.
    """
    number = args.number("key-slot")
    if number is not None and number not in header.list_keyslots():
        have = ", ".join(map(str, header.list_keyslots())) or "none"
        raise ConfigError(f"--key-slot: {source.path}: no keyslot {number}; it has {have}")
    return number


def _locate(file: SourceFile, error: MapperError) -> MapperError:
    return type(error)(f"{file.path}: {error}")
