"""``fusecrypt luksFormat``: a new LUKS volume, made in an engine of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path

from ...dmcrypt.luks1 import format as luks1
from ...dmcrypt.luks2 import format as luks2
from ...dmcrypt.luks_header import LuksHeader
from ...dmcrypt.units import SECTOR_SIZE
from ...keystore.errors import AccessError, ConfigError
from ..backing import get_data_area, lock_data_area
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .ask_yes import ask_capitals
from .format_options import Params, make_params
from .found_content import describe_content, find_content
from .key_input import KeyOptions, make_key_options, make_prompt, provide_key
from .output import Output
from .own_engine import load_secret, run_engine
from .passphrase import is_terminal
from .source import SourceFile, check_length, open_parameter, open_source


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be made; sizes and places in bytes."""

    type: str
    header_end: int
    data_offset: int
    sector_size: int
    notes: tuple[str, ...]


def run(args: Arguments, _settings: Settings, output: Output) -> ExitCode:
    """Format what the command line names.

    Raises:
        MapperError: why not; unless the engine failed in the middle, nothing has been changed.
    """
    params = make_params(args)
    key = _make_key_options(args)
    spec = args.positionals[0]
    with contextlib.ExitStack() as stack:
        is_dry = args.has("dry-run")
        source = stack.enter_context(open_source(spec, read_only=is_dry))
        header: SourceFile | None = None
        header_spec = args.text("header")
        if header_spec is None and not source.size:  # as cryptsetup, which makes others longer
            raise ConfigError(f"{spec}: is too small: it has 0 bytes")
        if header_spec is not None:
            opened = _open_future_header(header_spec) if is_dry else _open_header(header_spec)
            header = stack.enter_context(opened)
        header_fd = None if header is None else header.fd
        if not is_dry:
            _lock(source)
        plan = _plan(params, source.fd, header_fd)
        for note in plan.notes:
            output.warn(f"{spec}: {note}")
        if is_dry:
            _show_plan(params, plan, header_spec or spec, header or source, output)
            return ExitCode.OK
        if not output.is_quiet:
            if is_terminal() and key.key_file != "-":
                _confirm(header_spec or spec, header or source)
            elif (found := find_content(header or source)) is not None:
                output.warn(describe_content(header_spec or spec, found))
        formatted = _format(args, params, key, source, header_fd)
    output.note(f"Key slot {params.key_slot} created.")
    output.json({"uuid": formatted.uuid, "keyslot": params.key_slot, "device": source.path})
    return ExitCode.OK


def _plan(params: Params, fd: int, header_fd: int | None) -> Plan:
    """Where what of the volume would lie."""
    if isinstance(params, luks1.FormatParams):
        layout = luks1.plan_format(params, fd, header_fd)
        return Plan("LUKS1", layout.end, layout.payload_offset, SECTOR_SIZE, layout.notes)
    planned = luks2.plan_format(params, fd, header_fd)
    end = planned.keyslots.end
    return Plan("LUKS2", end, planned.data_offset, planned.sector_size, planned.notes)


def _show_plan(params: Params, plan: Plan, spec: str, file: SourceFile, output: Output) -> None:
    """What a dry run says."""
    found = find_content(file)
    output.line(f"{spec}: holds {found or 'nothing that is known'}.")
    output.line(f"Its first {plan.header_end} bytes would become the header of {plan.type}.")
    output.line(
        f"The data would begin at byte {plan.data_offset}, with {params.spec.dm_name}, a key of "
        f"{params.key_size * 8} bits and sectors of {plan.sector_size} bytes."
    )
    output.line("Dry run: nothing was written.")
    output.json({"dry_run": True, "device": file.path, "found": found, **asdict(plan)})


def _make_key_options(args: Arguments) -> KeyOptions:
    """As cryptsetup: --key-file beats the second argument; who types, types twice, unless -q."""
    is_verified = args.has("verify-passphrase") or not args.has("batch-mode")
    key = make_key_options(args, is_verified=is_verified)
    if key.key_file is None and len(args.positionals) > 1:
        key = KeyOptions(
            args.positionals[1], key.offset, key.size, key.tries, key.timeout, is_verified
        )
    return key


@contextlib.contextmanager
def _open_header(spec: str) -> Generator[SourceFile, None, None]:
    """The file for a detached header; made if there is none, and removed again after a failure."""
    try:
        os.close(os.open(spec, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        with open_source(spec, read_only=False) as file:
            _lock(file)
            yield file
        return
    except OSError as error:
        raise AccessError(f"header {spec}: cannot make it: {error.strerror}") from None
    try:
        with open_source(spec, read_only=False) as file:
            yield file
    except BaseException:
        Path(spec).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _open_future_header(spec: str) -> Generator[SourceFile, None, None]:
    """The file for a detached header, to be looked at; an empty one where there is none yet."""
    if not os.path.lexists(spec):
        fd = os.memfd_create("header", os.MFD_CLOEXEC)
        try:
            yield SourceFile(fd, spec, is_read_only=True)
        finally:
            os.close(fd)
        return
    with open_source(spec, read_only=True) as file:
        yield file


def _lock(file: SourceFile) -> None:
    """Refuse a file that a daemon serves, or that another luksFormat works at."""
    if file.is_read_only:
        raise AccessError(f"{file.path}: is write-protected; wanted: a device to be written")
    lock_data_area(file.fd, get_data_area(file.fd, 0, 0, is_read_only=False), file.path)


def _confirm(spec: str, file: SourceFile) -> None:
    found = find_content(file)
    before = "" if found is None else f"WARNING: {describe_content(spec, found)}\n"
    if not ask_capitals(f"This will overwrite data on {spec} irrevocably.", before=before):
        raise ConfigError(f"{spec}: not formatted; wanted: YES")


def _format(
    args: Arguments,
    params: Params,
    key: KeyOptions,
    source: SourceFile,
    header_fd: int | None,
) -> LuksHeader:
    with contextlib.ExitStack() as stack:
        volume_key_file: SourceFile | None = None
        if (path := args.text("volume-key-file")) is not None:
            volume_key_file = stack.enter_context(open_parameter(path, "volume key file"))
            check_length(volume_key_file, "volume key file", offset=0, size=params.key_size)
        given = stack.enter_context(provide_key(key, make_prompt(args.positionals[0])))
        engine = stack.enter_context(run_engine())
        secret = stack.enter_context(load_secret(engine, given))
        volume_key = None
        if volume_key_file is not None:
            is_xts = params.spec.is_xts
            volume_key = engine.load_key(volume_key_file.fd, params.key_size, xts=is_xts)
        if isinstance(params, luks1.FormatParams):
            return luks1.format_volume(
                engine, source.fd, secret, params, header_fd=header_fd, volume_key=volume_key
            )
        return luks2.format_volume(
            engine, source.fd, secret, params, header_fd=header_fd, volume_key=volume_key
        ).header
