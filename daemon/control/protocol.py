"""The framing of the control socket, without I/O: varlink messages with descriptors.

Source: https://varlink.org/Method-Call: a message is one JSON object in UTF-8, ended by a NUL byte.
Descriptors come by SCM_RIGHTS with the first byte of their message; its parameters name them by
index.

A sender hands each message to one `sendmsg`, so that the kernel never merges two messages that
carry descriptors; a `recvmsg` ends after the data that carried some. So descriptors belong to the
last message that starts in the data they came with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, cast

from ...dmcrypt.passed_fds import close_fds
from ...keystore.errors import MapperError

MAX_MESSAGE: Final = 1 << 20  # bytes, the NUL not counted
MAX_FDS: Final = 8

INTERFACE: Final = "io.fusecrypt"
METHOD_NOT_FOUND: Final = "org.varlink.service.MethodNotFound"
INVALID_PARAMETER: Final = "org.varlink.service.InvalidParameter"
FAILED: Final = f"{INTERFACE}.Failed"
PASSPHRASE_REQUIRED: Final = f"{INTERFACE}.PassphraseRequired"

# A JSON number beyond this is not exact in every peer.
MAX_INTEGER: Final = (1 << 64) - 1


class ProtocolError(MapperError):
    """Bytes on the control socket that are no message; the connection must be closed."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call of a method. Who holds the request owns its descriptors."""

    method: str
    parameters: Mapping[str, object]
    fds: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """The message's bytes; the descriptors go with the first of them."""
        return _pack({"method": self.method, "parameters": dict(self.parameters)})

    @classmethod
    def parse(cls, message: Message) -> Request:
        """Read a message as a call.

        Raises:
            ProtocolError: no method, or something that we do not do (``more``, ``oneway``).
        """
        method = message.content.get("method")
        if not isinstance(method, str) or not method:
            raise ProtocolError("control message: no method; wanted: a varlink call")
        for name in message.content.keys() - {"method", "parameters"}:
            if message.content[name] is not False:
                raise ProtocolError(f"control message: {name!r} of a call is not supported")
        return cls(method, _parse_parameters(message.content), message.fds)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: parameters, or an error with parameters."""

    parameters: Mapping[str, object]
    error: str | None = None

    def pack(self) -> bytes:
        """The message's bytes."""
        content: dict[str, object] = {"parameters": dict(self.parameters)}
        if self.error is not None:
            content["error"] = self.error
        return _pack(content)

    @classmethod
    def parse(cls, message: Message) -> Reply:
        """Read a message as an answer.

        Raises:
            ProtocolError: it is not one.
        """
        error = message.content.get("error")
        if error is not None and not isinstance(error, str):
            raise ProtocolError("control message: error is not a string")
        return cls(_parse_parameters(message.content), error)


@dataclass(frozen=True, slots=True)
class Message:
    """One decoded object and the descriptors that came with it."""

    content: Mapping[str, object] = field(repr=False)
    fds: tuple[int, ...] = ()


class Decoder:
    """Turns what a socket yields into messages. Not thread-safe.

    Owns the descriptors it was fed until it returns them in a message; `close` closes the rest.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._fds: tuple[int, ...] = ()  # of the message that the buffer starts with
        self._arrived: tuple[int, ...] = ()  # of a message further on in the data being decoded

    def feed(self, data: bytes, fds: Sequence[int] = ()) -> list[Message]:
        """The messages that ``data`` completes.

        Descriptors beyond `MAX_FDS` of a message are closed.

        Raises:
            ProtocolError: a message too long or not JSON, or descriptors amid a message. Then all
                descriptors have been closed, also those of the messages before it in ``data``.
        """
        messages: list[Message] = []
        try:
            self._decode(data, _cap(fds), messages)
        except ProtocolError:
            for message in messages:
                close_fds(message.fds)
            self.close()
            raise
        return messages

    def _decode(self, data: bytes, fds: tuple[int, ...], messages: list[Message]) -> None:
        last_start = data.rfind(b"\0", 0, max(len(data) - 1, 0)) + 1
        if fds and (not data or (last_start == 0 and self._buffer)):
            close_fds(fds)
            raise ProtocolError("control message: descriptors amid a message")
        self._arrived = fds
        position = 0
        while position < len(data):
            if position == last_start:
                self._fds += self._arrived
                self._arrived = ()
            end = data.find(b"\0", position)
            self._buffer += data[position : end if end >= 0 else len(data)]
            if len(self._buffer) > MAX_MESSAGE:
                raise ProtocolError(f"control message: longer than {MAX_MESSAGE} bytes")
            if end < 0:
                break
            messages.append(Message(_parse_object(bytes(self._buffer)), self._fds))
            self._fds = ()
            self._buffer.clear()
            position = end + 1

    def has_partial(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer)

    def close(self) -> None:
        """Forget a message that has begun, and close its descriptors."""
        close_fds((*self._fds, *self._arrived))
        self._fds = self._arrived = ()
        self._buffer.clear()


def _cap(fds: Sequence[int]) -> tuple[int, ...]:
    close_fds(fds[MAX_FDS:])
    return tuple(fds[:MAX_FDS])


def _pack(content: Mapping[str, object]) -> bytes:
    raw = json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
    if len(raw) > MAX_MESSAGE:
        raise ProtocolError(f"control message: {len(raw)} bytes, more than {MAX_MESSAGE}")
    return raw + b"\0"


def _parse_parameters(content: Mapping[str, object]) -> Mapping[str, object]:
    parameters = content.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise ProtocolError("control message: parameters is not an object")
    return cast(dict[str, object], parameters)


def _parse_object(raw: bytes) -> Mapping[str, object]:
    try:
        text = raw.decode("utf-8")
        content: object = json.loads(
            text,
            object_pairs_hook=_refuse_duplicates,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_parse_integer,
        )
        if "\\u" in text:  # an escape may make half a surrogate pair, which is no character
            json.dumps(content, ensure_ascii=False).encode("utf-8")
    except ProtocolError:
        raise
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"control message: not JSON: {type(error).__name__}") from None
    if not isinstance(content, dict):
        raise ProtocolError("control message: not a JSON object")
    return cast(dict[str, object], content)


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ProtocolError("control message: a name twice in one object")
    return content


def _refuse_number(text: str) -> NoReturn:
    raise ProtocolError(f"control message: the number {text[:32]} is not an integer")


def _parse_integer(text: str) -> int:
    if len(text) > len(str(MAX_INTEGER)) + 1 or abs(int(text)) > MAX_INTEGER:
        raise ProtocolError(f"control message: the number {text[:32]} is too large")
    return int(text)
