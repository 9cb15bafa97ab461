"""``refresh``: an open volume gets other flags."""

from __future__ import annotations

from ..config import Settings
from ..control.volume_requests import RefreshRequest
from ..exitcodes import ExitCode
from .arguments import Arguments
from .output import Output
from .volume import connect, parse_name


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Pass discards on, or no longer."""
    name = parse_name(args, settings)
    with connect(settings, name) as client:
        request = RefreshRequest(name, args.has("allow-discards"))
        output.json(client.call("Refresh", request.pack()))
    return ExitCode.OK
