"""Passphrases: typed without echo, read no further than their line, wiped."""

import os
import pty
import signal
import subprocess
import sys
import termios
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fusecrypt.daemon.cli.passphrase import MAX_TYPED, Passphrase, read_stream
from fusecrypt.keystore.errors import AccessError, ConfigError


@contextmanager
def stream(data: bytes) -> Iterator[int]:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    yield reader
    os.close(reader)


def read(data: bytes, *, to_newline: bool = False, offset: int = 0, size: int = 0) -> bytes:
    with (
        stream(data) as fd,
        read_stream(fd, "here", to_newline=to_newline, offset=offset, size=size) as passphrase,
        passphrase.pipe() as out,
    ):
        return os.read(out, 65536)


def test_a_line_ends_at_the_newline_and_leaves_the_rest() -> None:
    with stream(b"one\ntwo\n") as fd:
        with read_stream(fd, "here", to_newline=True, offset=0, size=0) as passphrase:
            assert passphrase.length == 3
        assert os.read(fd, 100) == b"two\n"


def test_all_of_a_stream_keeps_its_newlines() -> None:
    assert read(b"one\ntwo\n") == b"one\ntwo\n"


def test_a_line_may_end_with_the_file_and_may_be_empty() -> None:
    assert read(b"one", to_newline=True) == b"one"
    assert read(b"\n", to_newline=True) == b""


def test_offset_and_size_choose_a_part() -> None:
    assert read(b"0123456789", offset=2, size=3) == b"234"
    assert read(b"0123456789\n", to_newline=True, offset=8) == b"89"


@pytest.mark.parametrize(
    ("data", "kwargs", "message"),
    [
        (b"", {}, "nothing to read"),
        (b"", {"to_newline": True}, "nothing to read"),
        (b"ab", {"offset": 5}, "nothing to read"),
        (b"ab", {"size": 3}, "ends after 2 bytes; wanted: 3"),
    ],
)
def test_too_little_is_refused(data: bytes, kwargs: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=f"here: {message}"):
        read(data, **kwargs)  # type: ignore[arg-type]


def test_an_endless_key_file_is_refused() -> None:
    with Path("/dev/zero").open("rb") as file, pytest.raises(ConfigError, match="--keyfile-size"):
        read_stream(file.fileno(), "zero", to_newline=False, offset=0, size=0)


def test_a_descriptor_that_cannot_be_read_is_refused() -> None:
    fd = os.open("/tmp", os.O_RDONLY)
    try:
        with pytest.raises(AccessError, match="cannot read it"):
            read_stream(fd, "dir", to_newline=False, offset=0, size=0)
    finally:
        os.close(fd)


def test_more_than_a_pipe_holds_goes_through_the_pipe() -> None:
    data = os.urandom(300_000)
    with stream(b"") as _, Passphrase(len(data)) as passphrase:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.write(writer, data[:65536])
            view = memoryview(data)[65536:]
            while view:
                view = view[os.write(writer, view) :]
            os._exit(0)
        os.close(writer)
        passphrase.read_all(reader)
        os.close(reader)
        os.waitpid(pid, 0)
        with passphrase.pipe() as out, os.fdopen(os.dup(out), "rb") as file:
            assert file.read() == data


def test_a_reader_who_wants_no_more_stops_the_feeder() -> None:
    with Passphrase(200_000) as passphrase:
        passphrase.length = 200_000
        with passphrase.pipe() as out:
            os.read(out, 10)


def test_a_passphrase_is_wiped_and_prints_nothing() -> None:
    with (
        stream(b"topsecret") as fd,
        read_stream(fd, "here", to_newline=False, offset=0, size=0) as passphrase,
    ):
        assert "topsecret" not in repr(passphrase)
        buffer = passphrase._buffer
    assert not any(buffer)


TYPING = """
    import sys
    from fusecrypt.daemon.cli.passphrase import read_typed, read_verified
    from fusecrypt.keystore.errors import MapperError
    ask = read_verified if "verify" in sys.argv else read_typed
    timeout = 0.2 if "timeout" in sys.argv else None
    try:
        with ask("Say: ", timeout=timeout) as p, p.pipe() as fd:
            import os
            print("GOT", os.read(fd, 1000))
    except MapperError as error:
        print("REFUSED", error)
    except KeyboardInterrupt:
        print("INTERRUPTED")
"""


class Terminal:
    """A program at a terminal of its own, and what it shows."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-c", textwrap.dedent(TYPING), *arguments])
        self.shown = b""

    def wait_for(self, text: bytes) -> None:
        while text not in self.shown:
            try:
                data = os.read(self.fd, 1000)
            except OSError:
                data = b""
            assert data, self.shown
            self.shown += data
        self.shown = self.shown.partition(text)[2]

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def has_echo(self) -> bool:
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def close(self) -> None:
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    one = Terminal(*arguments)
    try:
        yield one
    finally:
        one.close()


def test_typing_shows_nothing_and_the_terminal_is_restored() -> None:
    with terminal() as t:
        t.wait_for(b"Say: ")
        assert not t.has_echo()
        t.type(b"pass word\n")
        t.wait_for(b"GOT b'pass word'")
        assert t.has_echo()


def test_an_empty_passphrase_may_be_typed() -> None:
    with terminal() as t:
        t.wait_for(b"Say: ")
        t.type(b"\n")
        t.wait_for(b"GOT b''")


def test_typed_twice_alike_is_taken_and_otherwise_refused() -> None:
    for second, answer in ((b"one", b"GOT b'one'"), (b"two", b"REFUSED passphrase: the two")):
        with terminal("verify") as t:
            t.wait_for(b"Say: ")
            t.type(b"one\n")
            t.wait_for(b"Verify passphrase: ")
            t.type(second + b"\n")
            t.wait_for(answer)


def test_an_interrupt_restores_the_terminal() -> None:
    with terminal() as t:
        t.wait_for(b"Say: ")
        t.type(b"half")
        os.kill(t.pid, signal.SIGINT)
        t.wait_for(b"INTERRUPTED")
        assert t.has_echo()


def test_nobody_types_in_time() -> None:
    with terminal("timeout") as t:
        t.wait_for(b"REFUSED passphrase: nothing typed in time")


def test_the_end_of_input_is_no_passphrase() -> None:
    with terminal() as t:
        t.wait_for(b"Say: ")
        t.type(b"\x04")
        t.wait_for(b"REFUSED passphrase: end of input")


def test_more_than_cryptsetup_takes_is_refused() -> None:
    with terminal() as t:
        t.wait_for(b"Say: ")
        t.type(b"x" * (MAX_TYPED + 1) + b"\n")
        t.wait_for(b"REFUSED passphrase: more than 512 bytes")


def test_status_loads_neither_trio_nor_cryptography() -> None:
    code = (
        "import sys; from fusecrypt.daemon.cli import main; main(['list', '--runtime-dir', '/x']);"
        "print([m for m in sys.modules if m in"
        " {'trio', 'pyfuse3', 'cryptography', 'ctypes', 'argparse', 'subprocess'}])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert shown == "[]\n"
