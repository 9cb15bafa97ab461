"""``fusecrypt pvsecret``: association secrets, which sessions of EP11 adapters are made of."""

from __future__ import annotations

import contextlib
from typing import Final

from ...keystore.add_secret_request import SIZE_MAX
from ...keystore.ep11_session import SECRET_SIZE
from ...keystore.errors import ConfigError, FormatError
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.guest_client import GuestKeystore
from ..keystored.messages import pack_secrets
from .arguments import Arguments
from .new_file import make_new_file, write_new_file
from .output import Output
from .passphrase import is_handed_on
from .source import open_for_reading

_REQUEST: Final = "add-secret request"
_WHAT: Final = "association secret"


def run_create(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Make a request to add a secret, or leave no file."""
    (name,) = args.positionals
    path, target = args.text("output"), args.text("output-secret")
    if path is None:
        raise ConfigError("--output: wanted: a file for the request")
    with contextlib.ExitStack() as stack:
        source = args.text("input-secret")
        input_fd = None if source is None else _open_secret(stack, source)
        output_fd = None if target is None else stack.enter_context(make_new_file(target, _WHAT))
        request, secret_id = GuestKeystore(settings).create_secret(
            name, input_fd=input_fd, output_fd=output_fd
        )
        write_new_file(path, request, _REQUEST)
    output.json({"name": name, "id": secret_id.hex(), "request": path, "secret": target})
    output.line(f"{secret_id.hex()} {name}")
    if target is not None:
        output.warn(f"{target} is the secret itself: take it to another place, or destroy it")
    return ExitCode.OK


def run_add(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Add the secret of a request."""
    (path,) = args.positionals
    with open_for_reading(path, _REQUEST) as file:
        request = file.pread(0, SIZE_MAX + 1)
    if len(request) > SIZE_MAX:
        raise FormatError(f"{_REQUEST} {path}: over {SIZE_MAX} bytes")
    secrets = GuestKeystore(settings).add_secret(request)
    output.json(pack_secrets(secrets))
    output.note(f"Secret {len(secrets.secrets) - 1} added: {secrets.secrets[-1].id.hex()}")
    return ExitCode.OK


def run_list(_args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """What may be told of the secrets; they themselves are nobody's to see."""
    secrets = GuestKeystore(settings).list_secrets()
    output.json(pack_secrets(secrets))
    output.line(f"Total number of secrets: {len(secrets.secrets)}")
    if secrets.is_locked:
        output.line("No more are taken until the next boot.")
    for index, secret in enumerate(secrets.secrets):
        output.line("")
        output.line(f"{index} Association:")
        output.line(f"  {secret.id.hex()}")
        output.line(f"  EP11 session {secret.session_id.hex()}")
    return ExitCode.OK


def run_lock(_args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Take no more secrets until the next boot."""
    output.json(pack_secrets(GuestKeystore(settings).lock_secrets()))
    output.note("No more association secrets are taken until the next boot.")
    return ExitCode.OK


def _open_secret(stack: contextlib.ExitStack, path: str) -> int:
    file = stack.enter_context(open_for_reading(path, _WHAT))
    if not is_handed_on(file.fd) or file.size != SECRET_SIZE:
        raise ConfigError(f"{_WHAT} {path}: wanted: a regular file of {SECRET_SIZE} bytes")
    return file.fd
