"""``luksSuspend`` and ``luksResume``: the key of an open volume goes and comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from ...keystore.errors import ConfigError
from ..config import Settings
from ..control.answers import Volume
from ..control.fields import PassedFds
from ..control.messages import KeyInput, PassedFile
from ..control.volume_requests import ResumeRequest, StatusRequest, SuspendRequest
from ..exitcodes import ExitCode
from .arguments import Arguments
from .key_input import make_prompt
from .keyring_tokens import try_tokens_and_keys
from .luks_source import parse_key_slot, read_luks
from .open_options import parse_type
from .output import Output
from .source import open_for_reading
from .volume import connect, parse_name


def run_suspend(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Have the engine forget the key."""
    name = parse_name(args, settings)
    with connect(settings, name) as client:
        reply = client.call("Suspend", SuspendRequest(name, args.has("fail-io")).pack())
    output.json(reply)
    return ExitCode.OK


def run_resume(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Ask for a passphrase, and give the engine its key again."""
    name = parse_name(args, settings)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(connect(settings, name))
        volume = Volume.parse(client.call("Status", StatusRequest(name).pack()))
        if not volume.type.startswith("LUKS"):
            raise ConfigError(f"{name}: this operation is supported only for LUKS device")
        if volume.state in {"active", "lost", "unavailable"}:
            raise ConfigError(f"{name}: is not suspended")
        place = args.text("header") or volume.header or volume.source
        file = stack.enter_context(open_for_reading(place, "header"))
        header = read_luks(file, output, parse_type(args.text("type")))
        key_slot = parse_key_slot(args, header, file)

        def attempt(given: KeyInput, number: int | None) -> Mapping[str, object]:
            fds = PassedFds()
            header_file = PassedFile(file.fd, file.path)
            no_locks = args.has("disable-locks")
            request = ResumeRequest(name, header_file, given, number, no_locks)
            return client.call("Resume", request.pack(fds), fds.fds)

        prompt = make_prompt(volume.source)
        output.json(try_tokens_and_keys(args, header, key_slot, prompt, attempt, output))
    return ExitCode.OK
