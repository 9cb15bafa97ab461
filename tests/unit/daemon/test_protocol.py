"""Framing of the control socket: what bytes and descriptors become messages."""

import json
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.daemon.control.protocol import (
    MAX_FDS,
    MAX_MESSAGE,
    Decoder,
    ProtocolError,
    Reply,
    Request,
)

NAMES = st.text(max_size=20).filter(lambda s: s.isprintable())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def make_fds(count: int) -> list[int]:
    return [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(count)]


@given(NAMES.filter(bool), st.dictionaries(NAMES, VALUES, max_size=4), st.data())
def test_a_request_comes_back_however_it_is_cut(
    method: str, parameters: dict[str, object], data: st.DataObject
) -> None:
    raw = Request(method, parameters).pack()
    decoder = Decoder()
    messages = []
    while raw:
        cut = data.draw(st.integers(1, len(raw)))
        messages += decoder.feed(raw[:cut])
        raw = raw[cut:]
    (message,) = messages
    assert Request.parse(message) == Request(method, parameters)
    assert not decoder.has_partial()


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.none() | NAMES)
def test_a_reply_comes_back(parameters: dict[str, object], error: str | None) -> None:
    (message,) = Decoder().feed(Reply(parameters, error).pack())
    assert Reply.parse(message) == Reply(parameters, error)


@given(st.lists(st.binary(max_size=200)))
def test_hostile_bytes_are_messages_or_a_protocol_error(chunks: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for chunk in chunks:
            for message in decoder.feed(chunk):
                Request.parse(message)
    except ProtocolError:
        pass


@given(st.text(alphabet='{}[]",:\\u0d8 truefalsn1.eE-+\x00', max_size=60))
def test_almost_json_is_a_message_or_a_protocol_error(text: str) -> None:
    try:
        for message in Decoder().feed(text.encode() + b"\0"):
            Reply.parse(message)
            Request.parse(message)
    except ProtocolError:
        pass


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"1",
        b'{"a":1,"a":2}',
        b'{"a":1.5}',
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',
        b'{"a":' + b"9" * 5000 + b"}",
        b"[" * 100000,
        b'{"a":"\xff"}',
        b'{"a":18446744073709551616}',
    ],
)
def test_what_is_not_an_exact_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(raw + b"\0")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"method": 5},
        {"method": ""},
        {"method": "a", "parameters": []},
        {"method": "a", "more": True},
        {"method": "a", "oneway": True},
        {"method": "a", "other": 1},
    ],
)
def test_what_is_no_plain_call_is_refused(content: dict[str, object]) -> None:
    (message,) = Decoder().feed(json.dumps(content).encode() + b"\0")
    with pytest.raises(ProtocolError):
        Request.parse(message)


def test_a_message_without_end_is_refused_at_the_limit() -> None:
    decoder = Decoder()
    decoder.feed(b" " * MAX_MESSAGE)
    with pytest.raises(ProtocolError, match="longer than"):
        decoder.feed(b" ")


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        Request("a", {"b": "c" * MAX_MESSAGE}).pack()


def test_descriptors_belong_to_the_last_message_that_starts_in_their_data() -> None:
    fds = make_fds(2)
    one, two = Request("a", {}).pack(), Request("b", {}).pack()
    decoder = Decoder()
    messages = decoder.feed(one + two[:3], fds)
    assert [m.fds for m in messages] == [()]
    (message,) = decoder.feed(two[3:])
    assert message.fds == tuple(fds)
    for fd in fds:
        os.close(fd)


def test_surplus_descriptors_are_closed() -> None:
    fds = make_fds(MAX_FDS + 2)
    (message,) = Decoder().feed(Request("a", {}).pack(), fds)
    assert message.fds == tuple(fds[:MAX_FDS])
    assert not any(is_open(fd) for fd in fds[MAX_FDS:])
    for fd in message.fds:
        os.close(fd)


def test_descriptors_amid_a_message_are_refused_and_closed() -> None:
    fds = make_fds(1)
    decoder = Decoder()
    decoder.feed(b'{"method"')
    with pytest.raises(ProtocolError, match="amid"):
        decoder.feed(b':"a"}\0', fds)
    assert not is_open(fds[0])


def test_descriptors_of_a_bad_message_and_of_those_before_it_are_closed() -> None:
    good, bad = make_fds(1), make_fds(1)
    decoder = Decoder()
    decoder.feed(Request("a", {}).pack()[:-1], good)
    with pytest.raises(ProtocolError):
        decoder.feed(b"\0nonsense\0", bad)
    assert not is_open(good[0])
    assert not is_open(bad[0])


def test_closing_closes_what_was_not_delivered() -> None:
    fds = make_fds(1)
    decoder = Decoder()
    decoder.feed(b"{", fds)
    decoder.close()
    assert not is_open(fds[0])


def test_the_kernel_delivers_descriptors_as_the_decoder_expects() -> None:
    ours, theirs = socket.socketpair()
    fds = make_fds(2)
    with ours, theirs:
        for number, passed in enumerate(([], fds[:1], [], fds[1:], [])):
            socket.send_fds(ours, [Request(f"m{number}", {}).pack()], passed)
        ours.shutdown(socket.SHUT_WR)
        decoder, messages = Decoder(), []
        while True:
            data, received, _, _ = socket.recv_fds(theirs, 65536, 8)
            if not data:
                break
            messages += decoder.feed(data, received)
    assert [len(m.fds) for m in messages] == [0, 1, 0, 1, 0]
    for fd in [*fds, *(fd for m in messages for fd in m.fds)]:
        os.close(fd)
