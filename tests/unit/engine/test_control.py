"""What the engine makes of requests that no daemon of ours would send."""

import os
import random
import socket
import struct
from pathlib import Path

import pytest

from fusecrypt.dmcrypt.engine import messages
from fusecrypt.dmcrypt.engine.channel import Channel
from fusecrypt.dmcrypt.engine.messages import MessageType, SecretMode
from fusecrypt.dmcrypt.engine.process import spawn_engine
from fusecrypt.keystore.errors import EngineError, MapperError, UnlockError, UnsupportedError

BODIES = {
    MessageType.HELLO: messages.KEY_SIZE,
    MessageType.ADD_DEVICE: messages.DEVICE,
    MessageType.REMOVE_DEVICE: messages.NODE,
    MessageType.SUSPEND: messages.NODE,
    MessageType.RESUME: messages.NODE,
    MessageType.RESIZE: messages.RESIZE,
    MessageType.BENCHMARK_CIPHER: messages.CIPHER_BENCHMARK,
    MessageType.READ: messages.READ,
    MessageType.REFRESH: messages.NODE,
    MessageType.REKEY: messages.REKEY,
    MessageType.FLUSH: messages.NODE,
    MessageType.INVALIDATE: messages.INVALIDATE,
    MessageType.DROP_SECRET: messages.SECRET,
    MessageType.OPEN_KEYSLOT: messages.OPEN_KEYSLOT,
    MessageType.GENERATE_KEY: messages.KEY_SIZE,
    MessageType.PLAIN_KEY: messages.PLAIN_KEY,
    MessageType.MAKE_DIGEST: messages.MAKE_DIGEST,
    MessageType.IMPORT_KEY: messages.BLOB,
    MessageType.EXPORT_KEY: messages.TOKEN,
    MessageType.MAKE_PKEY: messages.KEY_SIZE,
    MessageType.RSA_KEY: messages.KEY_SIZE,
    MessageType.FORGET_KEY: messages.NODE,
    MessageType.RENEW_KEY: messages.REKEY,
    MessageType.DENY_KEY: messages.NODE,
    MessageType.BUMP_SESSION: messages.KEY_SIZE,
}


@pytest.fixture
def channel(process) -> Channel:
    return process.engine._channel


def pipe_of(data):
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


@pytest.mark.parametrize("kind", list(BODIES))
def test_requests_of_random_bytes_are_answered_and_harm_nothing(process, channel, kind):
    chance = random.Random(kind)
    for _ in range(20):
        channel.call(kind, chance.randbytes(BODIES[kind].size))
    for length in (0, 1, BODIES[kind].size - 1, BODIES[kind].size + 1, 9000):
        channel.call(kind, chance.randbytes(length))
    assert process.engine.status().protocol == messages.PROTOCOL


def test_messages_that_are_no_requests_are_answered(process, channel):
    assert channel.call(77).status == -38  # ENOSYS
    assert channel.call(0).status == -38
    assert channel.call(MessageType.OPEN_KEYSLOT, b"").status == -74  # EBADMSG
    channel._sock.send(b"x")
    channel._sock.send(messages.HEADER.pack(1, 5000, 0, 99) + b"short")
    assert process.engine.status().protocol == messages.PROTOCOL


def test_more_descriptors_than_may_come_are_closed(process, channel):
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
    before = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    for _ in range(10):
        channel.call(MessageType.STATUS, b"", fds)
    assert len(list(Path(f"/proc/{process.pid}/fd").iterdir())) == before
    for fd in fds:
        os.close(fd)


def test_secrets_come_by_line_or_whole(process):
    engine = process.engine
    cases = [
        (b"secret\nrest", SecretMode.LINE, {}, 6),
        (b"secret", SecretMode.LINE, {}, 6),
        (b"\n", SecretMode.LINE, {}, 0),
        (b"a\nb\n", SecretMode.ALL, {}, 4),
        (b"0123456789", SecretMode.ALL, {"offset": 3}, 7),
        (b"0123456789", SecretMode.ALL, {"offset": 3, "size": 4}, 4),
    ]
    for data, mode, options, length in cases:
        fd = pipe_of(data)
        with engine.load_secret(fd, mode, **options) as secret:
            assert secret.length == length
        os.close(fd)
    fd = pipe_of(b"short")
    with pytest.raises(UnlockError, match="ends too early, wanted 6 bytes"):
        engine.load_secret(fd, SecretMode.ALL, size=6)
    os.close(fd)


def test_a_key_longer_than_8_mib_is_refused(process, tmp_path):
    (tmp_path / "key").write_bytes(bytes((8 << 20) + 1))
    # Where RLIMIT_MEMLOCK is as small, that limit is met first.
    refusal = "8388608|key memory is full"
    with (tmp_path / "key").open("rb") as file, pytest.raises(MapperError, match=refusal):
        process.engine.load_secret(file.fileno(), SecretMode.ALL)


def test_a_dropped_secret_cannot_be_used(process):
    fd = pipe_of(b"secret")
    secret = process.engine.load_secret(fd, SecretMode.ALL)
    secret.drop()
    with pytest.raises(EngineError, match="No such file"):
        process.engine.plain_key(secret, key_size=32, hash_name="sha256", xts=False)
    os.close(fd)


def test_hashes_that_do_not_exist_are_named(process):
    fd = pipe_of(b"secret")
    with (
        process.engine.load_secret(fd, SecretMode.ALL) as secret,
        pytest.raises(UnsupportedError, match="hash foo9: not supported"),
    ):
        process.engine.plain_key(secret, key_size=32, hash_name="foo9", xts=False)
    os.close(fd)


def test_sizes_of_keys_have_bounds(process):
    for size in (0, 2081, 1 << 31):
        with pytest.raises(UnlockError, match="possible are 1 to 2080"):
            process.engine.generate_key(size, xts=False)


def test_calls_to_a_dead_engine_fail_at_once():
    process = spawn_engine()
    process.kill()
    process.wait(10)
    with pytest.raises(EngineError, match="gone"):
        process.engine.status()
    process.close()


def test_an_engine_without_its_daemon_and_without_a_mount_ends():
    process = spawn_engine()
    process.engine.close()
    assert process.wait(10) == 0


def test_the_sandbox_is_closed(process):
    assert process.engine.hello.sandbox & 0b1101 == 0b1101
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) == 0
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "1"


def test_a_reply_that_nobody_waits_for_is_dropped():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours)
    theirs.send(messages.HEADER.pack(20, 99, 0, 0))
    theirs.send(struct.pack("=I", 1))
    theirs.close()
    channel.close()
    with pytest.raises(EngineError, match="gone"):
        channel.call(MessageType.STATUS)
