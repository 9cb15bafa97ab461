"""``fusecrypt adapter create --mode pkcs11``: a PKCS#11 token as an adapter, and its PIN."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator
from typing import TYPE_CHECKING

from ...keystore.errors import AccessError, ConfigError
from ...keystore.pkcs11_uri import TokenUri
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from ..keystored.messages import describe_adapter
from .arguments import Arguments
from .output import Output
from .passphrase import Passphrase, is_terminal, read_stream, read_typed
from .source import open_for_reading

if TYPE_CHECKING:
    from ...keystore.coprocessor import AdapterInfo, Apqn


def create_token(args: Arguments, apqn: Apqn, settings: Settings, output: Output) -> ExitCode:
    """Make an adapter of a token, and say what it can and cannot do."""
    text = args.text("uri")
    if text is None:
        raise ConfigError("--mode pkcs11: wanted: --uri pkcs11:token=…?module-path=…")
    uri = TokenUri.parse(text)
    if args.text("card-type") is not None:
        raise ConfigError("--card-type: a PKCS#11 token is no card")
    has_master_key = not args.has("no-master-key")
    with _provide_pin(uri) as fd:
        adapter = Keystore(settings).create_token(
            apqn,
            str(uri),
            fd,
            with_master_key=has_master_key,
            is_clear_allowed=args.has("allow-clear-in-keystored"),
            is_control_only=args.has("control-only"),
        )
    output.json(describe_adapter(adapter))
    if adapter.current.mkvp is None:
        output.line(f"Adapter {apqn} is a token without a master key: it cannot make or use keys.")
    else:
        output.line(f"Adapter {apqn} is a token with the master key {adapter.current}.")
        output.warn(
            f"the master key of {apqn} is in its token only, and cannot leave it. If the token is"
            " lost, all data of all volumes under it is lost: have the token itself backed up, as"
            " its maker provides for, or keep another way into the volumes"
        )
    for limit in adapter.limits:
        output.warn(f"{apqn}: {limit}")
    return ExitCode.OK


def describe_token(adapter: AdapterInfo) -> list[str]:
    """What ``adapter show`` says of a token beyond what it says of all adapters."""
    clear = "allowed in fusecrypt-keystored" if adapter.is_clear_allowed else "nowhere but in it"
    lines = [f"  token:       {adapter.uri}", f"  clear keys:  {clear}, and in the engine"]
    if adapter.problem:
        lines.append(f"  problem:     {adapter.problem}")
    lines += [f"  limit:       {limit}" for limit in adapter.limits]
    return lines


@contextlib.contextmanager
def _provide_pin(uri: TokenUri) -> Generator[int, None, None]:
    """A descriptor that yields the PIN, for keystored to read."""
    with _read_pin(uri) as pin:
        if pin.length == 0:
            raise ConfigError("PIN: nothing; wanted: a PIN")
        with pin.pipe() as fd:
            yield fd


def _read_pin(uri: TokenUri) -> Passphrase:
    if uri.pin_source:
        with open_for_reading(uri.pin_source, "pin-source") as file:
            mode = stat.S_IMODE(os.fstat(file.fd).st_mode)
            if mode & 0o077:
                raise AccessError(
                    f"pin-source {uri.pin_source}: mode {mode:04o} lets others at it, wanted 0600"
                )
            return read_stream(file.fd, "pin-source", to_newline=True, offset=0, size=0)
    if is_terminal():
        return read_typed(f"Enter the user PIN of {uri}: ")
    return read_stream(0, "PIN", to_newline=True, offset=0, size=0)
