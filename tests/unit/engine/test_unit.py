"""An engine that is a unit of systemd: how it is started, and what it says of its public keys."""

import os
import socket
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.dmcrypt.engine.process import connect_engine
from fusecrypt.dmcrypt.engine.start import CLAIM_NAME, StartOptions, parse_start
from fusecrypt.keystore.errors import EngineError
from tests.unit.engine.engine_units import engine_units

WHOLE = StartOptions(
    control_fd=10, kdf_memory_kib=1 << 20, threads=2, fuse_fd=11, session_fd=12, lifetime_fd=13,
    clone_fds=(14, 15), claim_fd=9,
)  # fmt: skip


@pytest.fixture
def units():
    with engine_units() as made:
        yield made


@pytest.fixture
def process(units):
    started = connect_engine(units.socket, StartOptions(kdf_memory_kib=1 << 16))
    yield started
    started.close()


def ask(units, question: bytes, number: int = 0) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(5)
        connection.connect(str(units.engines / str(number) / CLAIM_NAME))
        connection.send(question)
        return connection.recv(16)


@pytest.mark.parametrize(
    "options",
    [WHOLE, WHOLE._replace(lifetime_fd=-1), WHOLE._replace(clone_fds=()), StartOptions(10, 5)],
)
def test_a_start_packet_says_what_was_packed(options):
    data, fds = options.pack()
    assert parse_start(data, fds, options.claim_fd) == options


@given(data=st.binary(max_size=24), fds=st.lists(st.integers(3, 100), max_size=24))
def test_a_hostile_start_packet_is_refused_or_names_only_what_came(data, fds):
    try:
        options = parse_start(data, fds, -1)
    except ValueError:
        return
    named = [options.control_fd, options.fuse_fd, options.session_fd, options.lifetime_fd]
    assert {fd for fd in (*named, *options.clone_fds) if fd >= 0} <= set(fds)


@pytest.mark.parametrize("count", [0, 3, 21])
def test_descriptors_that_were_not_announced_are_refused(count):
    data, _ = WHOLE.pack()
    with pytest.raises(ValueError, match=f"{count} descriptors"):
        parse_start(data, range(3, 3 + count), -1)


def test_a_units_engine_serves_and_ends_by_message(units, process):
    assert process.is_unit
    assert process.pid == units.processes[0].pid
    assert process.engine.hello.sandbox == process.engine.status().sandbox
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.terminate()
    assert process.wait(10) is None
    assert units.processes[0].wait() == 0


def test_a_units_engine_ends_with_its_connection(units, process):
    process.close()
    assert units.processes[0].wait(10) == 0


def test_an_engine_owns_up_to_its_keys_and_to_no_others(units, process):
    public_key, modulus = process.engine.hello.public_key, b"\xff" * 384
    assert ask(units, public_key) == b"\1"
    assert ask(units, public_key + modulus) == b"\0"
    modulus = process.engine.get_rsa_modulus()
    assert ask(units, public_key + modulus) == b"\1"
    assert ask(units, public_key + bytes(384)) == b"\0"
    assert ask(units, bytes(32) + modulus) == b"\0"
    for size in (0, 1, 31, 33, 415, 417, 4096):
        assert ask(units, (public_key + modulus + bytes(4096))[:size]) in {b"\0", b""}, size
    other = bytes([public_key[0] ^ 1]) + public_key[1:]
    assert ask(units, other) == b"\0"


def test_keys_of_the_session_before_are_not_owned_up_to(units, process):
    before = process.engine.hello.public_key
    modulus = process.engine.get_rsa_modulus()
    process.engine.bump_session()
    now = process.engine.status().public_key
    assert (ask(units, before), ask(units, now)) == (b"\0", b"\1")
    assert ask(units, now + modulus) == b"\0"
    assert ask(units, now + process.engine.get_rsa_modulus()) == b"\1"


def test_who_asks_nothing_keeps_the_next_waiting_a_second_at_most(units, process):
    public_key = process.engine.hello.public_key
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.connect(str(units.engines / "0" / CLAIM_NAME))
        assert ask(units, public_key) == b"\1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as rude:
        rude.connect(str(units.engines / "0" / CLAIM_NAME))
        rude.send(public_key)  # and does not wait for an answer
    assert ask(units, public_key) == b"\1"
    assert process.engine.status().public_key == public_key


def test_only_the_engines_user_and_group_may_ask(units, process):
    status = (units.engines / "0" / CLAIM_NAME).stat()
    assert status.st_mode & 0o777 == 0o660
    assert process.pid > 0


def test_an_engine_that_cannot_start_says_why(units, tmp_path):
    with pytest.raises(EngineError, match=r"engine at .*: No such file"):
        connect_engine(tmp_path / "nobody")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(str(units.socket))
        connection.send(struct.pack("=4I", 2, 0, 0, 0))
        connection.settimeout(10)
        assert b"different installations" in connection.recv(4096)
    place = units.engines / "1" / CLAIM_NAME
    place.parent.mkdir()
    place.touch()
    with pytest.raises(EngineError, match=r"did not start: .*Address already in use"):
        connect_engine(units.socket)


def test_nobody_else_than_systemd_starts_it(tmp_path):
    for environment in ({}, {"LISTEN_FDS": "1", "LISTEN_PID": "1"}):
        result = subprocess.run(
            [sys.executable, "-I", "-m", "fusecrypt.dmcrypt.engine.unit"],
            env={**os.environ, "RUNTIME_DIRECTORY": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert "fusecrypt-engine.socket" in result.stderr
