"""``fusecrypt table``: open a device by a raw table, or show a table."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import Final

from ...dmcrypt.dm_table import parse_table
from ...keystore.errors import ConfigError, PolicyError
from ..config import Settings
from ..control.answers import Volume
from ..control.client import ControlClient
from ..control.fields import PassedFds
from ..control.messages import KeyInput, PassedFile
from ..control.table_requests import (
    OpenTableRequest,
    ShowKeyRequest,
    ShownLine,
    parse_lines,
)
from ..control.volume_requests import StatusRequest
from ..exitcodes import ExitCode
from ..volume_name import check_volume_name
from .arguments import Arguments
from .open import check_free
from .output import Output
from .passphrase import Passphrase, read_stream
from .source import READONLY_HINT, SourceFile, open_for_reading, open_source
from .start import connect_or_start
from .table_text import TableText, take_apart

#: A block device as dm names it.
_NUMBERS: Final = re.compile(r"([0-9]+):([0-9]+)")
_ON_COMMAND_LINE: Final = (
    "a key on the command line can be read by everybody on this machine; wanted: the table in a "
    "file, --table FILE, or - for standard input"
)


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Open with a table; without one, show that of an open volume.

    Raises:
        ConfigError: a table that is none, or two of them.
        PolicyError: a table on the command line has a key.
    """
    name = args.positionals[0]
    check_volume_name(name)
    file = args.text("table")
    if file is None and len(args.positionals) == 1:
        return _show(args, settings, output, name)
    if args.has("show-keys"):
        raise ConfigError("--show-keys: shows the table of an open volume; wanted: no other table")
    if file is not None and len(args.positionals) > 1:
        raise ConfigError("--table: not beside a table on the command line")
    check_free(settings, name)
    with _read(args.positionals[1]) if file is None else _read_file(file) as text:
        table = take_apart(text)
    with table.keys:
        if file is None and table.keys.length:
            raise PolicyError(_ON_COMMAND_LINE)
        return _open(args, settings, output, name, table)


def _read(words: str) -> Passphrase:
    text = words.encode("utf-8", "surrogateescape")
    passphrase = Passphrase(len(text))
    passphrase.append(text)
    return passphrase


def _read_file(spec: str) -> Passphrase:
    if spec == "-":
        return read_stream(0, "standard input", to_newline=False, offset=0, size=0)
    with open_for_reading(spec, "table") as file:
        return read_stream(file.fd, f"table {spec}", to_newline=False, offset=0, size=0)


def _open(
    args: Arguments, settings: Settings, output: Output, name: str, table: TableText
) -> ExitCode:
    lines = parse_table(table.lines)
    with contextlib.ExitStack() as stack:
        files: dict[str, tuple[int, SourceFile]] = {}
        texts: list[str] = []
        for line in lines:
            if line.device and line.device not in files:
                source = stack.enter_context(
                    open_source(
                        _resolve(line.device), read_only=args.has("readonly"), hint=READONLY_HINT
                    )
                )
                files[line.device] = (len(files), source)
            if line.device:
                line = dataclasses.replace(line, device=str(files[line.device][0]))
            texts.append(line.format(f":{line.key_size}:" if line.key_size else "-"))
        sources = [source for _, source in files.values()]
        request = OpenTableRequest(
            name,
            tuple(texts),
            tuple(PassedFile(source.fd, source.path) for source in sources),
            read_only=args.has("readonly") or any(source.is_read_only for source in sources),
        )
        if table.keys.length:
            pipe = stack.enter_context(table.keys.pipe())
            request = dataclasses.replace(request, key=KeyInput(pipe, "all", keyfile=True))
        fds = PassedFds()
        parameters = request.pack(fds)
        with connect_or_start(settings) as client:
            reply = client.call("OpenTable", parameters, fds.fds)
    if not output.is_quiet:
        output.line(Volume.parse(reply).path)
    output.json(reply)
    return ExitCode.OK


def _resolve(device: str) -> str:
    numbers = _NUMBERS.fullmatch(device)
    return f"/dev/block/{device}" if numbers else device


def _show(args: Arguments, settings: Settings, output: Output, name: str) -> ExitCode:
    if args.has("readonly"):
        raise ConfigError("--readonly: only with a table")
    show_keys = args.has("show-keys")
    if show_keys and output.json_mode != "off":
        raise ConfigError("--show-keys: not with --json")
    with ControlClient(settings.control_socket) as client:
        reply = client.call("Table", StatusRequest(name).pack())
        lines = parse_lines(reply)
        output.json(reply)
        if show_keys:
            _write_with_keys(client, name, lines)
            return ExitCode.OK
    for line in lines:
        output.line(f"{line.head}{'00' * line.key_size}{line.tail}")
    return ExitCode.OK


def _write_with_keys(client: ControlClient, name: str, lines: Sequence[ShownLine]) -> None:
    """The engine writes each key to our standard output itself."""
    for number, line in enumerate(lines):
        sys.stdout.write(line.head)
        sys.stdout.flush()
        if line.key_size:
            fds = PassedFds()
            client.call("ShowKey", ShowKeyRequest(name, number, 1).pack(fds), fds.fds)
        sys.stdout.write(f"{line.tail}\n")
        sys.stdout.flush()
