"""What daemon and mountd say to each other: one JSON object a packet, descriptors beside it.

The socket is of SOCK_SEQPACKET: a packet is whole or not there. Only mountd sends descriptors. A
request is ``{"call": NAME, …}``; a reply has what was asked for, or ``{"error": {…}}``.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from typing import Final, cast

from ...dmcrypt.passed_fds import close_fds, get_fds_space, pack_fds, parse_fds
from ...keystore.errors import (
    AccessError,
    BusyError,
    ConfigError,
    EngineError,
    MapperError,
    NotFoundError,
    PolicyError,
    UnlockError,
    UnsupportedError,
)

MAX_PACKET: Final = 64 << 10  # bytes
#: Descriptors of one packet: the kernel's SCM_MAX_FD is 253.
MAX_FDS: Final = 250

# Those on which the daemon acts differently; any other comes as a MapperError.
_KINDS: Final[dict[str, type[MapperError]]] = {
    cls.__name__: cls
    for cls in (
        AccessError,
        BusyError,
        ConfigError,
        EngineError,
        NotFoundError,
        PolicyError,
        UnlockError,
        UnsupportedError,
    )
}


class PacketError(MapperError):
    """A packet that is none of ours; the connection is closed."""


def pack(content: Mapping[str, object]) -> bytes:
    """The packet's bytes.

    Raises:
        PacketError: it would be too long.
    """
    data = json.dumps(content, separators=(",", ":")).encode()
    if len(data) > MAX_PACKET:
        raise PacketError(f"packet of {len(data)} bytes, at most {MAX_PACKET}")
    return data


def parse(data: bytes) -> dict[str, object]:
    """The object in a packet.

    Raises:
        PacketError: it is too long, or not a JSON object.
    """
    if len(data) > MAX_PACKET:
        raise PacketError(f"packet longer than {MAX_PACKET} bytes")
    try:
        content: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise PacketError(f"packet is not JSON: {type(error).__name__}") from None
    if not isinstance(content, dict):
        raise PacketError("packet is not a JSON object")
    return cast("dict[str, object]", content)


def pack_error(error: MapperError) -> bytes:
    """A reply that says why there is no other."""
    kind = next((c.__name__ for c in type(error).__mro__ if c.__name__ in _KINDS), "")
    message = str(error).encode("utf-8", "backslashreplace").decode()
    return pack({"error": {"kind": kind, "message": message[:4096]}})


def parse_reply(data: bytes) -> dict[str, object]:
    """A reply's content.

    Raises:
        MapperError: the error that it carries, in its own class.
        PacketError: it is no reply.
    """
    content = parse(data)
    error = content.get("error")
    if error is None:
        return content
    if not isinstance(error, dict):
        raise PacketError("packet: error is not an object")
    fields = cast("dict[str, object]", error)
    raise _KINDS.get(str(fields.get("kind")), MapperError)(str(fields.get("message")))


def send(connection: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packet; the descriptors stay the caller's."""
    connection.sendmsg([data], pack_fds(fds))


def receive(connection: socket.socket, *, max_fds: int = 0) -> tuple[bytes, list[int]]:
    """The next packet and its descriptors, which become the caller's; empty at the end.

    Raises:
        PacketError: descriptors were lost.
    """
    space = get_fds_space(max_fds) if max_fds else 0
    # One byte more than allowed, so that what is too long is seen to be.
    data, ancillary, flags, _ = connection.recvmsg(MAX_PACKET + 1, space, socket.MSG_CMSG_CLOEXEC)
    fds = parse_fds(ancillary)
    if max_fds and flags & socket.MSG_CTRUNC:
        close_fds(fds)
        raise PacketError("packet: descriptors were lost")
    return data, fds
