"""``fusecrypt luksFormat``: a new LUKS volume, made in an engine of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from ...dmcrypt.luks1 import format as luks1
from ...dmcrypt.luks2 import format as luks2
from ...dmcrypt.luks_header import LuksHeader
from ...dmcrypt.probe import find_superblock, probe
from ...keystore.errors import AccessError, ConfigError
from ..backing import get_data_area, lock_data_area
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .format_options import Params, make_params
from .key_input import KeyOptions, make_key_options, make_prompt, provide_key
from .output import Output
from .own_engine import load_secret, run_engine
from .passphrase import ask_terminal, is_terminal
from .source import SourceFile, check_length, open_for_reading, open_source


def run(args: Arguments, _settings: Settings, output: Output) -> ExitCode:
    """Format what the command line names.

    Raises:
        MapperError: why not; unless the engine failed in the middle, nothing has been changed.
    """
    params = make_params(args)
    key = _make_key_options(args)
    spec = args.positionals[0]
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(spec, read_only=False))
        header: SourceFile | None = None
        if (header_spec := args.text("header")) is not None:
            header = stack.enter_context(_open_header(header_spec))
        _lock(source)
        header_fd = None if header is None else header.fd
        for note in _plan(params, source.fd, header_fd):
            output.warn(f"{spec}: {note}")
        if is_terminal() and not output.is_quiet and key.key_file != "-":
            _confirm(header_spec or spec, header or source)
        formatted = _format(args, params, key, source, header_fd)
    output.note(f"Key slot {params.key_slot} created.")
    output.json({"uuid": formatted.uuid, "keyslot": params.key_slot, "device": source.path})
    return ExitCode.OK


def _plan(params: Params, fd: int, header_fd: int | None) -> tuple[str, ...]:
    """What a user should know of the volume that would be made."""
    if isinstance(params, luks1.FormatParams):
        return luks1.plan_format(params, fd, header_fd).notes
    return luks2.plan_format(params, fd, header_fd).notes


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


def _lock(file: SourceFile) -> None:
    """Refuse a file that a daemon serves, or that another luksFormat works at."""
    if file.is_read_only:
        raise AccessError(f"{file.path}: is write-protected; wanted: a device to be written")
    lock_data_area(file.fd, get_data_area(file.fd, 0, 0, is_read_only=False), file.path)


def _confirm(spec: str, file: SourceFile) -> None:
    found = find_superblock(file.pread, file.size)
    if (kind := probe(file.pread, file.size)) is not None:
        found = f"crypto_LUKS ({kind})"
    warning = ""
    if found is not None:
        warning = f"WARNING: Device {spec} already contains a '{found}' superblock signature.\n"
    answer = ask_terminal(
        f"{warning}\nWARNING!\n========\nThis will overwrite data on {spec} irrevocably.\n\n"
        "Are you sure? (Type 'yes' in capital letters): "
    )
    if answer != b"YES":
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
            volume_key_file = stack.enter_context(open_for_reading(path, "volume key file"))
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
