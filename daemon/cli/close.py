"""``fusecrypt close``."""

from __future__ import annotations

from ..config import Settings
from ..control.volume_requests import CloseRequest, StatusRequest
from ..exitcodes import ExitCode
from .arguments import Arguments
from .output import Output
from .volume import connect, parse_name


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Close a volume, or have one stay open whose close was deferred.

    Raises:
        NotFoundError: it is not open.
        ReportedError: it is in use, or its last writes failed.
    """
    args.refuse_both("deferred", "cancel-deferred")
    is_deferred = args.has("deferred")
    name = parse_name(args, settings)
    with connect(settings, name) as client:
        if args.has("cancel-deferred"):
            client.call("CancelDeferredClose", StatusRequest(name).pack())
        else:
            client.call("Close", CloseRequest(name, is_deferred).pack())
    output.json({"name": name, "deferred": is_deferred})
    return ExitCode.OK
