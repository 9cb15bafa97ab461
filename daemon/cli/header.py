"""``luksDump``, ``luksUUID``, ``isLuks``: a header is looked at, never written, never repaired."""

from __future__ import annotations

from typing import Final

from ...dmcrypt.luks1 import Luks1Header
from ...dmcrypt.luks2 import Luks2Header
from ...keystore.errors import ConfigError, MapperError, UnsupportedError
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .luks_source import read_luks
from .output import Output
from .source import open_volume_file

_OF_KEYS: Final = (
    "key-file",
    "keyfile-offset",
    "keyfile-size",
    "timeout",
    "key-slot",
    "volume-key-file",
)


def run_dump(args: Arguments, _settings: Settings, output: Output) -> ExitCode:
    """Print the header as cryptsetup does, or its JSON area."""
    spec, kind = _get_spec(args), _parse_kind(args)
    is_about_key = args.has("dump-volume-key") or args.has("unbound")
    for name in _OF_KEYS:
        if args.has(name) and not is_about_key:
            raise ConfigError(f"--{name}: only with --dump-volume-key or --unbound")
    with open_volume_file(spec) as file:
        header = read_luks(file, output, kind)
        for note in header.notes:
            output.warn(f"{file.path}: {note}")
        if is_about_key:
            from .dump_key import run

            return run(args, header, file, output)
    if isinstance(header, Luks1Header):
        _dump_luks1(args, header, spec, output)
    else:
        _dump_luks2(args, header, output)
        _warn_of_clear_key(header, spec, output)
    return ExitCode.OK


def _dump_luks1(args: Arguments, header: Luks1Header, spec: str, output: Output) -> None:
    from ...dmcrypt.luks1.dump import dump_fields, dump_text

    if args.has("dump-json-metadata"):
        raise UnsupportedError("--dump-json-metadata: a LUKS1 header has no JSON area; try --json")
    output.json(dump_fields(header))
    output.line(dump_text(header, spec).removesuffix("\n"))


def _dump_luks2(args: Arguments, header: Luks2Header, output: Output) -> None:
    import json

    from ...dmcrypt.luks2.dump import dump_json, dump_text

    if output.json_mode != "off":
        output.json(json.loads(dump_json(header)))
    show = dump_json if args.has("dump-json-metadata") else dump_text
    output.line(show(header).removesuffix("\n"))


def _warn_of_clear_key(header: Luks2Header, spec: str, output: Output) -> None:
    from ...dmcrypt.header_check import find_clear_size

    if (text := find_clear_size(header)) is not None:
        output.warn(f"{spec}: {text}; 'fusecrypt check --key-file FILE' tells which")


def run_uuid(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Print the UUID, or set it."""
    if args.has("uuid"):
        from .header_config import run_set_uuid

        return run_set_uuid(args, settings, output)
    kind = _parse_kind(args)
    with open_volume_file(_get_spec(args)) as file:
        header = read_luks(file, output, kind)
    output.line(header.uuid)
    output.json({"uuid": header.uuid})
    return ExitCode.OK


def run_is_luks(args: Arguments, _settings: Settings, output: Output) -> ExitCode:
    """Whether it is a LUKS volume; says so by the exit code, and with -v or --json."""
    from ...dmcrypt.probe import probe

    wanted = _parse_kind(args)
    with open_volume_file(_get_spec(args)) as file:
        kind = probe(file.pread, file.size)
        if kind is not None:
            try:
                read_luks(file, output)
            except MapperError as error:  # as cryptsetup: what cannot be loaded is none
                output.note(str(error))
                kind = None
    is_luks = kind is not None and wanted in {"luks", kind}
    output.json({"is_luks": is_luks, "type": kind})
    return ExitCode.OK if is_luks else ExitCode.WRONG_PARAMETERS


def _parse_kind(args: Arguments) -> str:
    wanted = args.text("type") or "luks"
    if wanted not in {"luks", "luks1", "luks2"}:
        raise ConfigError(f"--type: got {wanted!r}; wanted: luks, luks1 or luks2")
    return wanted


def _get_spec(args: Arguments) -> str:
    """As cryptsetup: with --header, the header's file is looked at."""
    return args.text("header") or args.positionals[0]
