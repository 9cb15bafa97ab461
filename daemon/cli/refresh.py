"""``refresh``: an open volume gets other flags."""

from __future__ import annotations

from dataclasses import replace

from ...keystore.errors import ConfigError, MapperError, NotFoundError
from ..config import Settings
from ..control.answers import Volume
from ..control.volume_requests import RefreshRequest, StatusRequest
from ..exitcodes import ExitCode, get_kind
from .arguments import Arguments
from .open_options import parse_type
from .output import Output
from .persistent_flags import check_volume, keep_flags
from .volume import connect, parse_name


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Pass discards on, or no longer; have the header remember it, if it is to.

    Raises:
        MapperError: why not; ConfigError where the volume is not open: cryptsetup ends with 1.
    """
    try:
        return _refresh(args, settings, output)
    except MapperError as error:
        if get_kind(error) != NotFoundError.__name__:
            raise
        raise ConfigError(str(error)) from None


def _refresh(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    name = parse_name(args, settings)
    is_persistent = args.has("persistent")
    with connect(settings, name) as client:
        volume = Volume.parse(client.call("Status", StatusRequest(name).pack()))
        _check_type(args, volume)
        if is_persistent:
            check_volume(volume)
        request = RefreshRequest(name, args.has("allow-discards"), is_persistent)
        reply = client.call("Refresh", request.pack())
    if is_persistent:
        place = volume.header or volume.source
        keep_flags(replace(args, positionals=(place,)), settings, output)
    output.json(reply)
    return ExitCode.OK


def _check_type(args: Arguments, volume: Volume) -> None:
    """Refuse a volume of another type than --type says.

    Raises:
        ConfigError: it is.
    """
    if not args.has("type"):
        return
    wanted = parse_type(args.text("type"))
    if not volume.type.lower().startswith(wanted):
        raise ConfigError(f"--type {wanted}: {volume.name} is {volume.type}")
