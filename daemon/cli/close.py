"""``fusecrypt close``."""

from __future__ import annotations

from ...keystore.errors import NotFoundError
from ..config import Settings
from ..control.client import ControlClient, NoDaemonError
from ..control.volume_requests import CloseRequest
from ..exitcodes import ExitCode
from ..volume_name import check_volume_name
from .arguments import Arguments
from .output import Output


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Close a volume.

    Raises:
        NotFoundError: it is not open.
        ReportedError: it is in use, or its last writes failed.
    """
    (name,) = args.positionals
    name = name.removeprefix(f"{settings.mapper_dir}/")  # cryptsetup takes a path too
    check_volume_name(name)
    try:
        with ControlClient(settings.control_socket) as client:
            client.call("Close", CloseRequest(name, args.has("deferred")).pack())
    except NoDaemonError as error:
        raise NotFoundError(f"{name}: is not active: {error}") from None
    output.json({"name": name, "deferred": args.has("deferred")})
    return ExitCode.OK
