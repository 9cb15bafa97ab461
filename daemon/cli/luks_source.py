"""Looking at a LUKS header before anything is asked or started."""

from __future__ import annotations

import contextlib

from ...dmcrypt.luks1 import Luks1Header
from ...dmcrypt.luks2 import Luks2Header
from ...dmcrypt.luks_header import LuksHeader, read_luks_header
from ...keystore.errors import ConfigError, MapperError
from .arguments import Arguments
from .locating import locating
from .output import Output
from .source import SourceFile


def read_luks(file: SourceFile, output: Output, kind: str = "luks") -> Luks1Header | Luks2Header:
    """The header, verified; nothing is repaired. Shown, if --debug-json asks for it.

    Raises:
        ConfigError: not a LUKS volume, or not of the ``kind`` that was asked for.
        UnsupportedError: LUKS of another version.
        FormatError: a damaged header.
    """
    with locating(file.path):
        header = read_luks_header(file.pread, file.size, kind)
    _show_json(header, output)
    return header


def show_json(file: SourceFile, output: Output) -> None:
    """Show the JSON area as it is now, if --debug-json asks for it and there is one to be read."""
    if output.shows_headers:
        with contextlib.suppress(MapperError):
            _show_json(read_luks_header(file.pread, file.size), output)


def check_openable(header: LuksHeader, source: SourceFile, *, read_only: bool) -> tuple[str, ...]:
    """Refuse what cannot be opened with any passphrase; what else is to be said about it.

    Raises:
        MapperError: what of the header, or the device's size, is in the way.
    """
    from ...dmcrypt.open_volume import check_luks

    with locating(source.path):
        return check_luks(header, source.size, read_only=read_only)


def check_keyslots(header: LuksHeader, source: SourceFile) -> None:
    """Refuse, before a passphrase is asked for, a header that has no keyslot at all.

    Raises:
        NoKeyslotError: it has none. Of ignored ones there may be a token.
    """
    if not header.list_keyslots():
        with locating(source.path):
            header.list_candidates()


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


def _show_json(header: LuksHeader, output: Output) -> None:
    if output.shows_headers and isinstance(header, Luks2Header):
        from ...dmcrypt.luks2.dump import dump_json

        output.debug(dump_json(header).removesuffix("\n"))
