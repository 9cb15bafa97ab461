"""``fusecrypt open``: from the caller's files and passphrase to a volume of the daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping

from ...dmcrypt.open_volume import get_key_size
from ...dmcrypt.plain import PlainParams
from ...keystore.errors import BusyError, ConfigError
from ..backing import get_data_length
from ..config import Settings
from ..control.answers import Listing, Volume
from ..control.client import ControlClient, NoDaemonError, PassphraseRequiredError
from ..control.fields import PassedFds
from ..control.messages import (
    KeyInput,
    OpenEntryRequest,
    OpenRequest,
    PassedFile,
    VolumeKeyInput,
    VolumeType,
)
from ..control.volume_requests import RefreshRequest
from ..exitcodes import ExitCode, ReportedError
from ..volume_name import NAME_TAKEN, check_volume_name
from .arguments import Arguments
from .found_content import confirm_plain
from .key_input import make_key_options, make_prompt, try_keys
from .keyring_tokens import try_tokens_and_keys
from .luks_source import check_keyslots, check_openable, parse_key_slot, read_luks
from .memory_hard_lock import serialize_memory_hard
from .open_options import (
    check_luks_options,
    make_loopaes_params,
    make_plain_params,
    pack_params,
    parse_type,
)
from .options import COMMON
from .output import Output
from .persistent_flags import check_persistent, keep_flags
from .source import (
    READONLY_HINT,
    SourceFile,
    check_length,
    open_for_reading,
    open_parameter,
    open_source,
)
from .start import connect_or_start

_ENTRY_OPTIONS = COMMON | {
    "key-file",
    "keyfile-offset",
    "keyfile-size",
    "tries",
    "timeout",
    "verify-passphrase",
}


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Open what the command line names."""
    if args.has("test-passphrase"):
        from .try_passphrase import run as run_trial

        for option in ("lease", "idle"):
            if args.has(option):
                raise ConfigError(f"--{option}: not with --test-passphrase, which opens nothing")
        return run_trial(args, settings, output)
    if len(args.positionals) == 1:
        return _open_entry(args, settings, output)
    _, name = args.positionals
    check_volume_name(name)
    kind = parse_type(args.text("type"))
    check_free(settings, name)
    if kind in ("plain", "loopaes"):
        return _open_headerless(args, settings, output, kind)
    check_luks_options(args)
    code = _open_luks(args, settings, output, kind)
    if args.has("persistent"):
        with connect_or_start(settings) as client:  # what the header said before does not count
            again = RefreshRequest(name, args.has("allow-discards"), becomes_flag=True)
            client.call("Refresh", again.pack())
        keep_flags(args, settings, output)
    return code


def _open_headerless(
    args: Arguments, settings: Settings, output: Output, kind: VolumeType
) -> ExitCode:
    """Open a plain or loop-AES volume; every key opens it."""
    spec, name = args.positionals
    key = make_key_options(args)
    is_plain = kind == "plain"
    params = make_plain_params(args, key, output) if is_plain else make_loopaes_params(args, key)
    is_exclusive = not args.has("shared")
    with open_source(
        spec, read_only=args.has("readonly"), is_exclusive=is_exclusive, hint=READONLY_HINT
    ) as source:
        get_data_length(params, source.size, source.path)
        if is_plain:
            confirm_plain(args, spec, source, output)
        request = OpenRequest(
            name=name,
            type=kind,
            source=_pass(source),
            read_only=source.is_read_only,
            plain=pack_params(params),
            allow_discards=args.has("allow-discards"),
            lease=args.number("lease"),
            idle=args.number("idle"),
        )
        exact_size = 0
        if isinstance(params, PlainParams) and (key.is_file or params.hash_name in {None, "plain"}):
            exact_size = params.key_bits // 8
        with connect_or_start(settings) as client:

            def attempt(given: KeyInput) -> Mapping[str, object]:
                return _call(client, dataclasses.replace(request, key=given))

            return _show(try_keys(key, make_prompt(spec), attempt, exact_size=exact_size), output)


def _open_luks(args: Arguments, settings: Settings, output: Output, kind: VolumeType) -> ExitCode:
    """Open a volume by its header: with a volume key, by a token, or with a passphrase."""
    spec, name = args.positionals
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(
            open_source(spec, read_only=args.has("readonly"), hint=READONLY_HINT)
        )
        header: SourceFile | None = None
        if (header_spec := args.text("header")) is not None:
            header = stack.enter_context(open_for_reading(header_spec, "header"))
        read_only = source.is_read_only
        luks = read_luks(header or source, output, kind)
        check_persistent(args, luks, read_only=read_only)
        for note in check_openable(luks, source, read_only=read_only):
            output.warn(f"{source.path}: {note}")
        request = OpenRequest(
            name=name,
            type=kind,
            source=_pass(source),
            header=None if header is None else _pass(header),
            key_slot=parse_key_slot(args, luks, source),
            read_only=read_only,
            allow_discards=args.has("allow-discards"),
            lease=args.number("lease"),
            idle=args.number("idle"),
            no_locks=args.has("disable-locks"),
        )
        if (volume_key := args.text("volume-key-file")) is not None:
            file = stack.enter_context(open_parameter(volume_key, "volume key file"))
            check_length(file, "volume key file", offset=0, size=get_key_size(luks))
            request = dataclasses.replace(request, volume_key=VolumeKeyInput(file.fd, 0))
            with connect_or_start(settings) as client:
                return _show(_call(client, request), output)
        check_keyslots(luks, source)
        with connect_or_start(settings) as client:

            def attempt(given: KeyInput, number: int | None) -> Mapping[str, object]:
                ready = dataclasses.replace(request, key=given, key_slot=number)
                with serialize_memory_hard(args, settings):
                    return _call(client, ready)

            prompt = make_prompt(spec)
            key_slot = request.key_slot
            reply = try_tokens_and_keys(args, luks, key_slot, prompt, attempt, output)
            return _show(reply, output)


def _pass(file: SourceFile) -> PassedFile:
    return PassedFile(file.fd, file.path)


def check_free(settings: Settings, name: str) -> None:
    """As cryptsetup: a name in use is refused before anything is asked."""
    try:
        with ControlClient(settings.control_socket) as client:
            volumes = Listing.parse(client.call("List", {})).volumes
    except NoDaemonError:
        return
    if any(volume.name == name for volume in volumes):
        raise BusyError(f"{name}: {NAME_TAKEN}")


def _open_entry(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    (name,) = args.positionals
    if "/" in name and os.path.exists(name):  # noqa: PTH110 - the caller's string as it is
        raise ConfigError(f"{name}: NAME is missing; wanted: fusecrypt open SOURCE NAME")
    check_volume_name(name)
    for option in args.options:
        if option not in _ENTRY_OPTIONS:
            raise ConfigError(
                f"--{option}: the crypttab line of {name} decides; is SOURCE missing?"
            )
    key = make_key_options(args)
    if args.has("crypttab"):
        _refuse_running(settings)
    with connect_or_start(settings, crypttab=args.text("crypttab")) as client:

        def attempt(given: KeyInput | None) -> Mapping[str, object]:
            fds = PassedFds()
            parameters = OpenEntryRequest(name, given).pack(fds)
            try:
                return client.call("OpenEntry", parameters, fds.fds)
            except ReportedError as error:
                if "no such entry" in str(error) and os.path.exists(name):  # noqa: PTH110
                    hint = "; of the file, NAME is missing: fusecrypt open SOURCE NAME"
                    raise ReportedError(f"{error}{hint}", error.exit_code, error.kind) from None
                raise

        prompt = make_prompt(name)
        if key.key_file is None:
            try:
                return _show(attempt(None), output)
            except PassphraseRequiredError as required:
                prompt = f"{required.prompt.rstrip()} "
                key = dataclasses.replace(
                    key,
                    tries=key.tries if args.has("tries") else required.tries,
                    timeout=key.timeout or required.timeout or None,
                )
        return _show(try_keys(key, prompt, attempt), output)


def _refuse_running(settings: Settings) -> None:
    """A daemon that runs has its crypttab already."""
    with contextlib.suppress(NoDaemonError), ControlClient(settings.control_socket):
        raise ConfigError(
            f"--crypttab: a daemon runs in {settings.runtime_dir} already, with a crypttab of its"
            " own; wanted: no --crypttab, or another --runtime-dir"
        )


def _call(client: ControlClient, request: OpenRequest) -> Mapping[str, object]:
    fds = PassedFds()
    parameters = request.pack(fds)
    try:
        return client.call("Open", parameters, fds.fds)
    except ReportedError as error:
        message = str(error).removeprefix(f"{request.name}: ")
        raise ReportedError(f"{request.name}: {message}", error.exit_code, error.kind) from None


def _show(reply: Mapping[str, object], output: Output) -> ExitCode:
    volume = Volume.parse(reply)
    if volume.keyslot is not None:
        output.note(f"Key slot {volume.keyslot} unlocked.")
    if not output.is_quiet:
        output.line(volume.path)
    output.json(reply)
    return ExitCode.OK
