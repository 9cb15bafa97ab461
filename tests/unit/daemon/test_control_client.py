"""The client of the control socket, against a peer that answers as told."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusecrypt.daemon.control.client import (
    ControlClient,
    NoDaemonError,
    PassphraseRequiredError,
)
from fusecrypt.daemon.control.protocol import Decoder, ProtocolError, Reply, Request
from fusecrypt.daemon.exitcodes import ExitCode, ReportedError, get_exit_code, get_kind
from fusecrypt.keystore.errors import AccessError, ConfigError, MapperError, UnsupportedError

Answer = Callable[[Request], bytes]


@contextmanager
def peer(tmp_path: Path, answer: Answer) -> Iterator[Path]:
    """A daemon that answers one call."""
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            decoder = Decoder()
            with connection:
                messages = []
                while not messages:
                    data, fds, _, _ = socket.recv_fds(connection, 65536, 8)
                    messages = decoder.feed(data, fds)
                request = Request.parse(messages[0])
                raw = answer(request)
                for fd in request.fds:
                    os.close(fd)
                for start in range(0, len(raw), 100):
                    connection.sendall(raw[start : start + 100])

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


def call(tmp_path: Path, answer: Answer) -> object:
    with peer(tmp_path, answer) as path, ControlClient(path) as client:
        return client.call("Test", {"a": 1})


def test_a_call_carries_parameters_and_descriptors(tmp_path: Path) -> None:
    seen: list[Request] = []
    texts: list[bytes] = []

    def answer(request: Request) -> bytes:
        seen.append(request)
        texts.extend(os.read(fd, 10) for fd in request.fds)
        return Reply({"long": "x" * 1000}).pack()

    reader, writer = os.pipe()
    os.write(writer, b"hello")
    with peer(tmp_path, answer) as path, ControlClient(path) as client:
        reply = client.call("Test", {"big": "y" * 500_000}, [reader])
    os.close(reader)
    os.close(writer)
    assert reply == {"long": "x" * 1000}
    assert seen[0].method == "io.fusecrypt.Test"
    assert texts == [b"hello"]


def test_a_failure_keeps_message_exit_code_and_kind(tmp_path: Path) -> None:
    content = {"message": "vol: no", "exit_code": 2, "kind": "NoKeyError"}
    with pytest.raises(ReportedError, match="vol: no") as caught:
        call(tmp_path, lambda _: Reply(content, "io.fusecrypt.Failed").pack())
    assert get_exit_code(caught.value) is ExitCode.NO_PERMISSION
    assert get_kind(caught.value) == "NoKeyError"


def test_an_unknown_exit_code_counts_as_1(tmp_path: Path) -> None:
    with pytest.raises(ReportedError) as caught:
        call(tmp_path, lambda _: Reply({"exit_code": 77}, "io.fusecrypt.Failed").pack())
    assert get_exit_code(caught.value) is ExitCode.WRONG_PARAMETERS


@pytest.mark.parametrize(
    ("error", "parameters", "kind", "message"),
    [
        ("io.fusecrypt.PassphraseRequired", {"prompt": "P:"}, PassphraseRequiredError, "P:"),
        ("org.varlink.service.MethodNotFound", {}, UnsupportedError, "another version"),
        ("org.varlink.service.InvalidParameter", {"parameter": "x"}, ConfigError, "parameter x"),
        ("com.example.Other", {}, MapperError, "com.example.Other"),
    ],
)
def test_each_error_has_its_class(
    tmp_path: Path,
    error: str,
    parameters: dict[str, object],
    kind: type[MapperError],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        call(tmp_path, lambda _: Reply(parameters, error).pack())


def test_a_daemon_that_hangs_up_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="hung up without an answer"):
        call(tmp_path, lambda _: b'{"param')


def test_a_peer_that_ended_before_it_read_the_call_is_one_that_hung_up(tmp_path: Path) -> None:
    # As systemd leaves a connection whose service it could not start.
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with ControlClient(path) as client:
            connection, _ = listener.accept()
            client._send(b"x", ())
            connection.close()  # unread: a reset
            with pytest.raises(AccessError, match="hung up without an answer"):
                client.call("Test", {})


def test_nonsense_is_a_protocol_error(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError):
        call(tmp_path, lambda _: b"nonsense\0")


def test_no_socket_and_a_stale_one_mean_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with pytest.raises(NoDaemonError, match="no daemon runs in"):
        ControlClient(path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(NoDaemonError):
        ControlClient(path)
