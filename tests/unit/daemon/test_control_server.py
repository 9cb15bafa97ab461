"""The control socket: what hostile, clumsy and many clients get."""

import json
import os
import resource
import socket
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from fusecrypt.daemon.control.fields import ParameterError
from fusecrypt.daemon.control.server import RefusedError, serve_control
from fusecrypt.keystore.errors import BusyError, NoKeyError


async def echo(request):
    return {"parameters": dict(request.parameters), "fds": len(request.fds)}


async def read_fd(request):
    return {"text": os.pread(request.fds[0], 100, 0).decode()}


async def fail_busy(_request):
    raise BusyError("v: in use")


async def fail_key(_request):
    raise NoKeyError("no key available with this passphrase")


async def refuse(_request):
    raise RefusedError("io.fusecrypt.PassphraseRequired", {"prompt": "?"})


async def want(_request):
    raise ParameterError("parameters.name", "a string")


async def break_down(_request):
    raise ZeroDivisionError


METHODS = {
    "t.Echo": echo,
    "t.Read": read_fd,
    "t.Busy": fail_busy,
    "t.Key": fail_key,
    "t.Refuse": refuse,
    "t.Want": want,
    "t.Break": break_down,
}


@pytest.fixture
async def path(tmp_path, nursery):
    path = tmp_path / "control"
    await nursery.start(serve_control, path, METHODS)
    return path


async def connect(path):
    return await trio.open_unix_socket(str(path))


async def read_reply(stream):
    data = b""
    while not data.endswith(b"\0"):
        chunk = await stream.receive_some(65536)
        assert chunk
        data += chunk
    return json.loads(data[:-1])


async def call(stream, method, **parameters):
    message = json.dumps({"method": method, "parameters": parameters}).encode() + b"\0"
    await stream.send_all(message)
    return await read_reply(stream)


async def is_hung_up(stream):
    with trio.fail_after(60):
        try:
            return await stream.receive_some(1) == b""
        except trio.BrokenResourceError:
            return True


@contextmanager
def no_descriptor_lost():
    before = os.listdir("/proc/self/fd")
    yield
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_the_socket_is_the_owners_alone_and_goes_with_the_server(tmp_path):
    path = tmp_path / "control"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, METHODS)
        assert path.stat().st_mode & 0o777 == 0o600
        nursery.cancel_scope.cancel()
    assert not path.exists()


async def test_calls_are_answered_in_order(path):
    async with await connect(path) as stream:
        assert (await call(stream, "t.Echo", a=1))["parameters"]["parameters"] == {"a": 1}
        two = b'{"method":"t.Echo","parameters":{"n":1}}\0{"method":"t.Echo"}\0'
        await stream.send_all(two)
        data = b""
        while data.count(b"\0") < 2:
            data += await stream.receive_some(1000)
        first, second = (json.loads(part) for part in data.split(b"\0")[:2])
        assert first["parameters"]["parameters"] == {"n": 1}
        assert second["parameters"]["parameters"] == {}


@pytest.mark.parametrize(
    ("method", "error", "parameters"),
    [
        ("t.Nothing", "org.varlink.service.MethodNotFound", {"method": "t.Nothing"}),
        (
            "t.Busy",
            "io.fusecrypt.Failed",
            {"message": "v: in use", "exit_code": 5, "kind": "BusyError"},
        ),
        (
            "t.Key",
            "io.fusecrypt.Failed",
            {
                "message": "no key available with this passphrase",
                "exit_code": 2,
                "kind": "NoKeyError",
            },
        ),
        ("t.Refuse", "io.fusecrypt.PassphraseRequired", {"prompt": "?"}),
    ],
)
async def test_errors_have_names_and_codes(path, method, error, parameters):
    async with await connect(path) as stream:
        reply = await call(stream, method)
        assert reply == {"parameters": parameters, "error": error}
        # The connection is as good as before.
        assert "error" not in await call(stream, "t.Echo")


async def test_a_bad_parameter_is_named(path):
    async with await connect(path) as stream:
        reply = await call(stream, "t.Want")
        assert reply["error"] == "org.varlink.service.InvalidParameter"
        assert reply["parameters"]["parameter"] == "parameters.name"


async def test_a_bug_costs_one_call(path, caplog):
    async with await connect(path) as stream:
        reply = await call(stream, "t.Break")
        assert reply["error"] == "io.fusecrypt.Failed"
        assert "t.Break failed" in caplog.text
        assert "error" not in await call(stream, "t.Echo")


@pytest.mark.parametrize(
    "data",
    [b"garbage\0", b"[]\0", b"{}\0", b"\0", b'{"method":"t.Echo","more":true}\0', b"\xff\0"],
)
async def test_what_is_no_message_ends_the_connection_alone(path, data):
    async with await connect(path) as good, await connect(path) as bad:
        await bad.send_all(data)
        assert await is_hung_up(bad)
        assert "error" not in await call(good, "t.Echo")


async def test_an_endless_message_is_cut_off(path):
    async with await connect(path) as stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x" * (8 << 20))
        assert await is_hung_up(stream)


async def test_descriptors_reach_the_method_and_are_closed(path, tmp_path):
    (tmp_path / "file").write_text("content")
    async with await connect(path) as stream:
        assert "error" not in await call(stream, "t.Echo")
        with no_descriptor_lost():
            fd = os.open(tmp_path / "file", os.O_RDONLY)
            message = b'{"method":"t.Read"}\0'
            socket.send_fds(stream.socket._sock, [message], [fd])
            os.close(fd)
            assert (await read_reply(stream))["parameters"] == {"text": "content"}


@pytest.mark.parametrize("count", [8, 9, 30])
async def test_surplus_descriptors_are_closed(path, count):
    async with await connect(path) as stream:
        assert "error" not in await call(stream, "t.Echo")
        with no_descriptor_lost():
            fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
            socket.send_fds(stream.socket._sock, [b'{"method":"t.Echo"}\0'], fds)
            for fd in fds:
                os.close(fd)
            assert (await read_reply(stream))["parameters"]["fds"] == 8


async def test_descriptors_of_an_unfinished_message_are_closed(path):
    stream = await connect(path)
    assert "error" not in await call(stream, "t.Echo")
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(stream.socket._sock, [b'{"method":'], [0, 0])
    await trio.testing.wait_all_tasks_blocked()
    await stream.aclose()
    with trio.fail_after(5):
        # Both ends of the connection and both descriptors are gone.
        while len(os.listdir("/proc/self/fd")) > before - 2:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_message_that_is_not_finished_in_time_is_given_up(path, autojump_clock):  # noqa: ARG001
    async with await connect(path) as stream:
        await stream.send_all(b'{"method":')
        assert await is_hung_up(stream)


async def test_no_descriptor_left_is_no_end(path, caplog, autojump_clock):  # noqa: ARG001
    async with await connect(path) as early:
        assert "error" not in await call(early, "t.Echo")
        client = trio.socket.socket(socket.AF_UNIX)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        try:
            await client.connect(str(path))
            await trio.testing.wait_all_tasks_blocked()
            assert "Too many open files" in caplog.text
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        async with trio.SocketStream(client) as late:
            assert "error" not in await call(late, "t.Echo")


async def test_more_clients_than_places_wait_for_their_turn(path):
    streams = [await connect(path) for _ in range(70)]
    replies = []

    async def ask(stream):
        replies.append(await call(stream, "t.Echo"))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(ask, stream)
    assert len(replies) == 70
