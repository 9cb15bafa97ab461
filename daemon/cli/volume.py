"""The open volume that an action is about, and the daemon that serves it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from ...keystore.errors import NotFoundError
from ..config import Settings
from ..control.client import ControlClient, NoDaemonError
from ..volume_name import check_volume_name
from .arguments import Arguments


def parse_name(args: Arguments, settings: Settings) -> str:
    """The volume's name, which may be given as its path, as with cryptsetup.

    Raises:
        ConfigError: no name of a volume.
    """
    name = args.positionals[0].removeprefix(f"{settings.mapper_dir}/")
    check_volume_name(name)
    return name


@contextlib.contextmanager
def connect(settings: Settings, name: str) -> Generator[ControlClient, None, None]:
    """The daemon, which is not started: without one no volume is open.

    Raises:
        NotFoundError: none runs.
    """
    try:
        client = ControlClient(settings.control_socket)
    except NoDaemonError as error:
        left = describe_left_engine(settings)
        raise NotFoundError(f"{name}: is not active: {error}{left and f'; {left}'}") from None
    with client:
        yield client


def describe_left_engine(settings: Settings) -> str:
    """What there is to know, without a daemon, of an engine that outlived it; empty: nothing."""
    from ..runtime_dir import find_left_engine  # mounts need more modules than a status does

    pid = find_left_engine(settings)
    if pid is None:
        return ""
    return (
        f"the engine of a daemon that was killed goes on with its keys (pid {pid}): the next start,"
        " by fusecryptd or fusecrypt open, ends it and unmounts"
    )
