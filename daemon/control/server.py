"""The control socket: connections in, calls to methods, answers out."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

import trio

from ...dmcrypt.passed_fds import close_fds, get_fds_space, parse_fds
from ...keystore.errors import MapperError, NotFoundError, UnsupportedError
from ..exitcodes import get_exit_code, get_kind
from ..peer import Peer, get_peer
from .fields import ParameterError
from .protocol import (
    FAILED,
    INVALID_PARAMETER,
    MAX_FDS,
    METHOD_NOT_FOUND,
    Decoder,
    Message,
    ProtocolError,
    Reply,
    Request,
)

log = logging.getLogger(__name__)

#: A method takes a call, whose descriptors stay the server's, and returns the reply's parameters.
Method = Callable[[Request], Awaitable[Mapping[str, object]]]

# The bound keeps a runaway script from taking all descriptors.
MAX_CONNECTIONS: Final = 64
#: Seconds for a message to be complete once its first byte has come.
_MESSAGE_TIMEOUT: Final = 30.0
#: Seconds between attempts to accept a connection when the system is out of descriptors.
_ACCEPT_PAUSE: Final = 0.5
_CHUNK: Final = 64 << 10
_OWN_FILE: Final = (
    "a file of this daemon's own mount cannot be used here;"
    " a daemon with another --runtime-dir can open it"
)

#: What a peer may call as long as its connection lasts. None: it is hung up on.
Session = Callable[[Peer], AbstractContextManager[Mapping[str, Method] | None]]


class OwnFiles(Protocol):
    """The files in the daemon's own mount. All of it blocks."""

    def is_own(self, fd: int) -> bool:
        """Whether only this process answers for the file."""
        ...

    def open_token(self, fd: int) -> int | None:
        """A descriptor of what a file of dev/pkey gives; None for other files.

        Raises:
            MapperError: nobody makes such a key.
        """
        ...


class RefusedError(MapperError):
    """An answer with an error of its own name, which the client acts upon."""

    def __init__(self, name: str, parameters: Mapping[str, object]) -> None:
        super().__init__(name)
        self.reply = Reply(parameters, name)


async def serve_control(
    path: Path,
    methods: Mapping[str, Method],
    *,
    own_files: OwnFiles | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer calls on a socket (0600) at ``path``, which is free, until cancelled.

    ``own_files`` knows the files that only this process itself answers for.
    """

    @contextlib.contextmanager
    def open_session(peer: Peer) -> Generator[Mapping[str, Method] | None, None, None]:
        yield methods if peer.is_owner else None

    with listen(path) as stdlib_listener:
        listener = trio.socket.from_stdlib_socket(stdlib_listener)
        async with trio.open_nursery() as nursery:
            task_status.started()
            slots = trio.Semaphore(MAX_CONNECTIONS)
            while True:
                await slots.acquire()
                connection = await accept(listener)
                nursery.start_soon(_serve, connection, open_session, own_files, slots)


async def accept(listener: trio.socket.SocketType) -> trio.socket.SocketType:
    """The next connection, however long it takes."""
    while True:
        try:
            connection, _ = await listener.accept()
        except OSError as error:
            # No descriptor or memory left: it will be there again when others have finished.
            log.warning("control socket: %s", error.strerror)
            await trio.sleep(_ACCEPT_PAUSE)
        else:
            return connection


@contextlib.contextmanager
def listen(path: Path) -> Generator[socket.socket, None, None]:
    """A socket (0600) at ``path``, which is free, and free again afterwards."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # The umask is 077: nobody else can connect between bind and chmod.
        listener.bind(str(path))
        try:
            path.chmod(0o600)
            listener.listen(MAX_CONNECTIONS)
            yield listener
        finally:
            path.unlink(missing_ok=True)


async def _serve(
    connection: trio.socket.SocketType,
    open_session: Session,
    own_files: OwnFiles | None,
    slots: trio.Semaphore,
) -> None:
    try:
        await serve_connection(connection, open_session, own_files=own_files)
    finally:
        slots.release()


async def serve_connection(
    connection: trio.socket.SocketType, open_session: Session, *, own_files: OwnFiles | None = None
) -> None:
    """Answer the calls of one connection; another of the three places where every error is caught.

    Closes it at the end.
    """
    decoder = Decoder()
    try:
        with connection:
            peer = get_peer(connection)
            with open_session(peer) as methods:
                if methods is None:
                    log.warning(
                        "control connection from user %d (pid %d) refused", peer.uid, peer.pid
                    )
                    return
                await _answer_all(connection, decoder, methods, own_files)
    except (ProtocolError, OSError) as error:
        log.debug("control connection: %s", error)
    except Exception:
        log.exception("control connection failed")
    finally:
        decoder.close()


async def _answer_all(
    connection: trio.socket.SocketType,
    decoder: Decoder,
    methods: Mapping[str, Method],
    own_files: OwnFiles | None,
) -> None:
    """Until the peer hangs up."""
    while (messages := await _receive(connection, decoder)) is not None:
        for message in messages:
            await _send(connection, await _answer(message, methods, own_files))


async def _receive(connection: trio.socket.SocketType, decoder: Decoder) -> list[Message] | None:
    """The next messages; None at the end of the connection."""
    limit = _MESSAGE_TIMEOUT if decoder.has_partial() else float("inf")
    with trio.move_on_after(limit) as patience:
        data, ancillary, _, _ = await connection.recvmsg(
            _CHUNK,
            # Room for more than are allowed: the surplus is closed, not cut off unseen.
            get_fds_space(4 * MAX_FDS),
            socket.MSG_CMSG_CLOEXEC,
        )
        fds = parse_fds(ancillary)
        if not data:
            close_fds(fds)
            return None
        return decoder.feed(data, fds)
    assert patience.cancelled_caught
    raise ProtocolError(f"message not complete after {_MESSAGE_TIMEOUT:.0f} seconds")


async def _answer(
    message: Message, methods: Mapping[str, Method], own_files: OwnFiles | None
) -> Reply:
    name = ""
    is_own = False
    try:
        if message.fds and own_files is not None:
            # In a thread, because an answer to fstat(2) of our own files comes from this one.
            is_own = await trio.to_thread.run_sync(_replace_own, message.fds, own_files)
        request = Request.parse(message)
        name = request.method
        method = methods.get(name)
        if method is None:
            return Reply({"method": name}, METHOD_NOT_FOUND)
        if is_own:
            return _fail(UnsupportedError(_OWN_FILE))
        return Reply(await method(request))
    except RefusedError as error:
        return error.reply
    except ProtocolError:
        raise
    except ParameterError as error:
        return Reply({"parameter": error.parameter, "message": str(error)}, INVALID_PARAMETER)
    except MapperError as error:
        # To ask for what is not there is how clients find out.
        level = logging.DEBUG if isinstance(error, NotFoundError) else logging.INFO
        log.log(level, "%s: %s", name, error)
        return _fail(error)
    except Exception as error:
        log.exception("%s failed", name)
        return _fail(error)
    finally:
        if is_own:
            # Closing waits for an answer to FLUSH, which comes from this thread too.
            threading.Thread(target=close_fds, args=(message.fds,), daemon=True).start()
        else:
            close_fds(message.fds)


def _replace_own(fds: Sequence[int], own_files: OwnFiles) -> bool:
    """Put what we can serve from within in the place of our own files; whether any other is left.

    The number stays, so that whoever closes the message's descriptors need not know. Blocks.
    """
    is_left = False
    for fd in fds:
        if own_files.is_own(fd):
            token = own_files.open_token(fd)
            if token is None:
                is_left = True
                continue
            os.dup2(token, fd, inheritable=False)
            os.close(token)
    return is_left


def _fail(error: Exception) -> Reply:
    parameters = {
        "message": str(error),
        "exit_code": int(get_exit_code(error)),
        "kind": get_kind(error),
    }
    return Reply(parameters, FAILED)


async def _send(connection: trio.socket.SocketType, reply: Reply) -> None:
    data = memoryview(reply.pack())
    while data:
        data = data[await connection.send(data) :]
