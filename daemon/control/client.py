"""The control socket as the command line tool sees it: plain blocking calls."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ...dmcrypt.passed_fds import close_fds, get_fds_space, pack_fds, parse_fds
from ...keystore.errors import (
    AccessError,
    ConfigError,
    MapperError,
    NotFoundError,
    UnsupportedError,
)
from ..exitcodes import ReportedError, parse_exit_code
from ..peer import get_peer
from .protocol import (
    FAILED,
    INTERFACE,
    INVALID_PARAMETER,
    METHOD_NOT_FOUND,
    PASSPHRASE_REQUIRED,
    Decoder,
    Reply,
    Request,
)

_CHUNK = 65536
#: Seconds between attempts to get into the queue of a busy server.
_QUEUE_PAUSE = 0.02


class NoDaemonError(NotFoundError):
    """No daemon listens in the runtime directory; the caller may start one."""


class NoAnswerError(AccessError):
    """The call was not answered in time, or the connection ended; it may have been carried out."""


class PassphraseRequiredError(MapperError):
    """The volume needs a passphrase; ``prompt`` is what to ask."""

    def __init__(self, prompt: str, tries: int, timeout: int) -> None:
        super().__init__(prompt)
        self.prompt = prompt
        self.tries = tries  # 0: no end
        self.timeout = timeout  # seconds for each; 0: for ever


class ControlClient:
    """A connection to a daemon, or to another server of its protocol. One call at a time."""

    def __init__(
        self,
        path: Path,
        *,
        interface: str = INTERFACE,
        program: str = "daemon",
        timeout: float | None = None,
    ) -> None:
        """Connect. ``timeout``: seconds for connecting and for each call; None: no end.

        Raises:
            NoDaemonError: nobody listens at ``path``.
            NoAnswerError: so many wait there that connecting took too long.
            AccessError: it belongs to somebody else.
        """
        self._where = f"{program} at {path}"
        self._interface = interface
        self._timeout = timeout
        self._decoder = Decoder()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout)
        try:
            self._connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            self._socket.close()
            raise NoDaemonError(f"no {program} runs in {path.parent}") from None
        except TimeoutError:
            self._socket.close()
            raise self._make_late() from None
        except OSError as error:
            self._socket.close()
            raise AccessError(f"{self._where}: cannot connect: {error.strerror or error}") from None

    def _connect(self, path: str) -> None:
        deadline = time.monotonic() + (self._timeout or 0)
        while True:
            try:
                self._socket.connect(path)
            except BlockingIOError:  # with a time limit, a full queue is not waited for
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                time.sleep(_QUEUE_PAUSE)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. A call that has not been answered may still be carried out."""
        self._socket.close()
        self._decoder.close()

    def get_owner(self) -> int:
        """The user who listens there; for a socket that systemd made, root."""
        return get_peer(self._socket).uid

    def detach(self) -> socket.socket:
        """The connection itself; from now on the caller's to close."""
        self._decoder.close()
        return socket.socket(fileno=self._socket.detach())

    def call(
        self, method: str, parameters: Mapping[str, object], fds: Sequence[int] = ()
    ) -> Mapping[str, object]:
        """Call ``INTERFACE.METHOD``; the descriptors stay the caller's. May take minutes (KDF).

        Raises:
            ReportedError: the daemon's own error, with its exit code.
            PassphraseRequiredError: the method needs a key that was not given.
            UnsupportedError: the daemon, of another version, does not know the method.
            NoAnswerError: the daemon hung up, or does not answer in time.
        """
        try:
            self._send(Request(f"{self._interface}.{method}", parameters).pack(), fds)
            reply = self._receive()
        except TimeoutError:
            raise self._make_late() from None
        except (ConnectionResetError, BrokenPipeError):  # it ended before it read the call
            raise self._make_gone() from None
        except OSError as error:
            raise NoAnswerError(f"{self._where}: {error.strerror or error}") from None
        if reply.error is None:
            return reply.parameters
        raise self._make_error(method, reply)

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        sent = self._socket.sendmsg([data], pack_fds(fds))
        if sent < len(data):  # even nothing cannot be sent to a peer that has answered and left
            self._socket.sendall(data[sent:])

    def _receive(self) -> Reply:
        deadline = time.monotonic() + (self._timeout or 0)
        while True:
            if self._timeout is not None:
                # Zero would mean "do not wait at all", which reports another error.
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data, ancillary, _, _ = self._socket.recvmsg(
                _CHUNK, get_fds_space(1), socket.MSG_CMSG_CLOEXEC
            )
            close_fds(parse_fds(ancillary))  # no reply carries any
            if not data:
                raise self._make_gone()
            messages = self._decoder.feed(data)
            if messages:
                return Reply.parse(messages[0])

    def _make_gone(self) -> NoAnswerError:
        return NoAnswerError(f"{self._where}: hung up without an answer")

    def _make_late(self) -> NoAnswerError:
        return NoAnswerError(f"{self._where}: does not answer within {self._timeout:.0f} s")

    def _make_error(self, method: str, reply: Reply) -> MapperError:
        def text(name: str) -> str:
            value = reply.parameters.get(name)
            return value if isinstance(value, str) else ""

        def number(name: str, default: int) -> int:
            value = reply.parameters.get(name)
            return value if isinstance(value, int) else default

        if reply.error == FAILED:
            code = parse_exit_code(number("exit_code", 1))
            return ReportedError(text("message"), code, text("kind"))
        if reply.error == PASSPHRASE_REQUIRED:
            return PassphraseRequiredError(text("prompt"), number("tries", 3), number("timeout", 0))
        if reply.error == METHOD_NOT_FOUND:
            return UnsupportedError(f"{self._where}: is of another version: no method {method}")
        if reply.error == INVALID_PARAMETER:
            return ConfigError(f"{self._where}: {method}: bad parameter {text('parameter')}")
        return MapperError(f"{self._where}: {method}: {reply.error}")
