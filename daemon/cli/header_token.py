"""``token add``, ``import``, ``export``, ``remove``, ``unassign``."""

from __future__ import annotations

import os
from typing import Final

from ...dmcrypt.luks2 import Luks2Header, token_edit
from ...dmcrypt.luks2.change import read_locked
from ...keystore.errors import ConfigError
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .header_change import HeaderAction, open_header, run_edit
from .locating import locating
from .output import Output
from .passphrase import read_stream
from .source import open_parameter

_SIZE_MAX: Final = 4 << 20  # bytes; more than any JSON area holds


def run_add(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Add a token that names a key of the kernel's keyring.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    description, keyslot = args.get_text("key-description"), args.number("key-slot")
    is_unbound = args.has("unbound")
    if is_unbound and keyslot is not None:
        raise ConfigError("--unbound: not with --key-slot")
    with open_header(args, settings, output, only_luks2=True) as action:

        def add(header: Luks2Header) -> tuple[Luks2Header, int]:
            token = token_edit.make_keyring_token(
                header, description, keyslot=keyslot, is_unbound=is_unbound
            )
            return token_edit.add_token(
                header, token, number=args.number("token-id"), replace=args.has("token-replace")
            )

        return _add(action, add)


def run_import(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Add a token of any type, as JSON has it.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    token = token_edit.parse_token(_read_json(args.text("json-file")))
    with open_header(args, settings, output, only_luks2=True) as action:

        def add(header: Luks2Header) -> tuple[Luks2Header, int]:
            return token_edit.add_token(
                header,
                token,
                number=args.number("token-id"),
                replace=args.has("token-replace"),
                keyslot=args.number("key-slot"),
            )

        return _add(action, add)


def run_export(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Write a token's JSON to a file or to standard output.

    Raises:
        MapperError: there is no such token; the file cannot be written.
    """
    number = args.get_number("token-id")
    with (
        open_header(args, settings, output, read_only=True, only_luks2=True) as action,
        locating(action.file.path),
    ):
        text = token_edit.get_token_text(read_locked(action.file.fd), number)
    path = args.text("json-file")
    if path is None or path == "-":
        output.line(text)
        output.json({"token": number, "json": text})
    else:
        _write_json(path, text)
        output.json({"token": number, "json_file": path})
    return ExitCode.OK


def run_remove(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Remove a token.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    number = args.get_number("token-id")
    with open_header(args, settings, output, only_luks2=True) as action:
        return _edit(action, number, lambda header: token_edit.remove_token(header, number))


def run_unassign(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Have a token be for a keyslot no more.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    number, keyslot = args.get_number("token-id"), args.get_number("key-slot")

    def change(header: Luks2Header) -> Luks2Header:
        return token_edit.unassign_token(header, number, keyslot)

    with open_header(args, settings, output, only_luks2=True) as action:
        return _edit(action, number, change)


def _add(action: HeaderAction, add: token_edit.Add) -> ExitCode:
    numbers: list[int] = []

    def change(header: Luks2Header) -> Luks2Header:
        changed, number = add(header)
        numbers.append(number)
        return changed

    if run_edit(action, change) is not None:
        action.output.note(f"Token {numbers[-1]} created.")
        action.finish({"token": numbers[-1]})
    return ExitCode.OK


def _edit(action: HeaderAction, number: int, change: token_edit.Edit) -> ExitCode:
    if run_edit(action, change) is not None:
        action.finish({"token": number})
    return ExitCode.OK


def _read_json(path: str | None) -> bytes:
    if path is None or path == "-":
        with read_stream(0, "standard input", to_newline=False, offset=0, size=0) as text:
            return _check_size(text.get_bytes())
    with open_parameter(path, "token") as file:
        return _check_size(file.pread(0, _SIZE_MAX + 1))


def _check_size(text: bytes) -> bytes:
    if len(text) > _SIZE_MAX:
        raise ConfigError(f"token: more than {_SIZE_MAX} bytes, which no header holds")
    return text


def _write_json(path: str, text: str) -> None:
    """Over what is there, as cryptsetup does."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode("utf-8"))
    except OSError as error:
        raise ConfigError(f"token {path}: cannot write it: {error.strerror}") from None
