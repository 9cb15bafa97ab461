"""Calls to the keystored: one connection each, errors as what they were there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from ...keystore.coprocessor import AdapterInfo, Apqn
from ...keystore.errors import CoprocessorError, MapperError
from ..control.client import ControlClient, NoAnswerError, NoDaemonError
from ..control.protocol import ProtocolError
from ..exitcodes import ReportedError, find_error_class
from ..start_on_demand import connect_or_start
from .messages import INTERFACE, PROGRAM, parse_adapters

if TYPE_CHECKING:
    from ..config import Settings

Result = TypeVar("Result")

#: Seconds that one call may take. An adapter answers in milliseconds; a backup derives a key.
TIMEOUT: Final = 10.0


class KeystoreConnection:
    """What makes calls; any thread may use it."""

    def __init__(self, settings: Settings) -> None:
        """Does nothing yet: the first call connects, and starts the process if nobody runs one."""
        self._settings = settings

    def _change(
        self,
        method: str,
        apqn: Apqn,
        parameters: Mapping[str, object] | None = None,
        fds: Sequence[int] = (),
    ) -> AdapterInfo:
        """Change one adapter; what it is then."""
        content = {"apqn": str(apqn), **(parameters or {})}
        (adapter,) = self._call(method, content, parse_adapters, fds)
        return adapter

    def _call(
        self,
        method: str,
        parameters: Mapping[str, object],
        parse: Callable[[Mapping[str, object]], Result],
        fds: Sequence[int] = (),
    ) -> Result:
        with self._connect() as client:
            reply = self._ask(client, method, parameters, fds)
        try:
            return parse(reply)
        except MapperError as error:
            raise CoprocessorError(f"{PROGRAM}: {method}: not an answer: {error}") from None

    def _ask(
        self,
        client: ControlClient,
        method: str,
        parameters: Mapping[str, object],
        fds: Sequence[int],
    ) -> Mapping[str, object]:
        try:
            return client.call(method, parameters, fds)
        except ReportedError as error:
            raise _make_error(error) from None
        except NoAnswerError as error:
            hint = f"its log tells why (of the service: journalctl -u {PROGRAM})"
            raise CoprocessorError(f"{error}; {hint}") from None
        except ProtocolError as error:
            raise CoprocessorError(str(error)) from None

    def _connect(self) -> ControlClient:
        settings = self._settings
        try:
            if settings.named_keystore_socket is not None:
                return self._open()
            lock = settings.runtime_dir / "keystore.start.lock"
            return connect_or_start(settings, self._open, lock, PROGRAM, ())
        except NoDaemonError:
            where = settings.keystore_socket
            raise CoprocessorError(f"{PROGRAM}: nobody listens at {where}; start it") from None
        except MapperError as error:
            raise CoprocessorError(str(error)) from None

    def _open(self) -> ControlClient:
        path = self._settings.keystore_socket
        client = ControlClient(path, interface=INTERFACE, program=PROGRAM, timeout=TIMEOUT)
        # The service's runtime directory is the daemon's: who took that over could listen here, and
        # would be handed passphrases of backups and clear keys.
        owner = client.get_owner()
        if self._settings.named_keystore_socket is None and owner not in (0, os.geteuid()):
            client.close()
            raise CoprocessorError(
                f"{PROGRAM} at {path}: user {owner} listens there; wanted: root, or user"
                f" {os.geteuid()}"
            )
        return client


def _make_error(error: ReportedError) -> MapperError:
    """The error as its own class, so that a caller need not care where it was raised."""
    cls = find_error_class(error.kind)
    return error if cls is None else cls(str(error))
