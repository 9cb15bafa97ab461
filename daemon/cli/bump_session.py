"""``fusecrypt adapter bump-session``: all protected keys are void, as after a migration."""

from __future__ import annotations

from ...keystore.errors import NotFoundError
from ..config import Settings
from ..control.answers import SessionAnswer
from ..control.client import ControlClient, NoDaemonError
from ..exitcodes import ExitCode
from .arguments import Arguments
from .output import Output


def run(_args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Have the engine of the running daemon begin another session.

    Raises:
        NotFoundError: no daemon runs, and so no session.
    """
    try:
        with ControlClient(settings.control_socket) as client:
            reply = client.call("BumpSession", {})
    except NoDaemonError as error:
        raise NotFoundError(f"no session: {error}") from None
    output.json(reply)
    answer = SessionAnswer.parse(reply)
    count = len(answer.derived_again)
    output.note(
        "Another session has begun: all protected keys of the one before are void; "
        f"{count} volume{'' if count == 1 else 's'} will have theirs derived again."
    )
    for name in answer.lost:
        output.warn(
            f"{name}: its random key is lost, and I/O fails; close it, and open it again for a new"
            " one, without the data"
        )
    return ExitCode.OK
