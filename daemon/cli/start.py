"""The daemon of a runtime directory: found, or started."""

from __future__ import annotations

import os

from ..config import Settings
from ..control.client import ControlClient
from ..start_on_demand import connect_or_start as connect_or_start_program


def connect_or_start(settings: Settings, *, crypttab: str | None = None) -> ControlClient:
    """A connection to the daemon, which is started if none runs.

    A daemon started so opens no crypttab entry by itself.

    Raises:
        MapperError: there is none and it cannot be started.
    """
    arguments = ["--no-crypttab"]
    if crypttab is not None:
        arguments += ["--crypttab", os.path.abspath(crypttab)]  # noqa: PTH100 - keeps symlinks
    return connect_or_start_program(
        settings,
        lambda: ControlClient(settings.control_socket),
        settings.start_lock,
        "fusecryptd",
        arguments,
    )
