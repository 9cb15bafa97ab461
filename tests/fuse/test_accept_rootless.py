"""The whole of it as an ordinary user without any privilege: no root, no device mapper."""

import hashlib
import os
import signal

import pytest

from tests.lab import cryptsetup, golden

pytestmark = pytest.mark.fuse

WRITE = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
data = bytes.fromhex(sys.argv[3])
os.pwrite(fd, data, int(sys.argv[2]))
os.fsync(fd)
"""
SHA256 = """
import hashlib, sys
sys.stdout.write(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())
"""


@pytest.fixture
def entry(user_instance):
    key = user_instance.write_file("key", b"a user's passphrase")
    image = cryptsetup.luks_format(user_instance.directory / "image", key, 524288 + (1 << 20))
    user_instance.own(image)
    return f"mine {image} {key} luks"


def sha256(instance, name):
    result = instance.io(SHA256, instance.device(name))
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode()


def test_a_user_opens_writes_closes_and_the_real_cryptsetup_reads_it(user_instance, entry):
    _name, image, key, _type = entry.split()
    user_instance.start()
    user_instance.cli("open", "--key-file", key, image, "mine")
    data = os.urandom(3000)
    written = user_instance.io(WRITE, user_instance.device("mine"), 12_345, data.hex())
    assert written.returncode == 0, written.stderr.decode()
    digest = sha256(user_instance, "mine")
    user_instance.cli("close", "mine")
    assert user_instance.stop() == 0
    plaintext = cryptsetup.decrypt(
        user_instance.directory / "image", user_instance.directory / "key"
    )
    assert plaintext[12_345 : 12_345 + 3000] == data
    assert hashlib.sha256(plaintext).hexdigest() == digest


def test_no_process_of_a_user_has_a_capability_and_the_engine_is_confined(user_instance, entry):
    user_instance.start(entry)
    for pid, words in user_instance.pids().items():
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert int(status["CapEff"], 16) == 0, words
        assert status["Uid"].split()[0] == str(user_instance.uid)
        if "fusecrypt.dmcrypt.engine" in words:
            assert status["Seccomp"].strip() == "2", words
            assert status["NoNewPrivs"].strip() == "1", words
    assert user_instance.stop() == 0


def test_devices_are_the_users_own(user_instance, entry):
    user_instance.start(entry)
    script = "import os, sys; s = os.stat(sys.argv[1]); print(oct(s.st_mode), s.st_uid)"
    result = user_instance.io(script, user_instance.device("mine"))
    assert result.stdout.decode().split() == ["0o100600", str(user_instance.uid)]
    assert user_instance.stop() == 0


def test_kill_and_restart_as_a_user(user_instance, entry):
    user_instance.start(entry)
    digest = sha256(user_instance, "mine")
    user_instance.signal(user_instance.engine_pid, signal.SIGKILL)
    assert user_instance.wait_daemon() == 1
    user_instance.wait_gone()
    user_instance.start(entry)
    assert sha256(user_instance, "mine") == digest
    user_instance.signal(user_instance.daemon_pid, signal.SIGKILL)
    user_instance.wait_daemon()
    for pid in user_instance.pids():
        user_instance.signal(pid, signal.SIGTERM)
    user_instance.wait_gone()
    user_instance.start(entry)
    assert sha256(user_instance, "mine") == digest
    assert user_instance.stop() == 0


def test_open_starts_a_daemon_when_none_runs(user_instance, entry):
    _name, image, key, _type = entry.split()
    user_instance.cli("open", "--key-file", key, image, "mine")
    assert "mine" in user_instance.cli("list").stdout
    user_instance.cli("close", "mine")
    assert user_instance.stop() == 0


@pytest.mark.parametrize(
    "name", ["luks2-aes-xts-plain64-512-s4096", "luks2-kdf-argon2id", "luks2-detached"]
)
def test_a_user_reads_the_corpus(user_instance, name):
    image = golden.find(name)
    files = golden.unpack(image, user_instance.directory)
    for path in files.values():
        user_instance.own(path)
    key = user_instance.write_file(
        "k", (golden.GOLDEN / image["unlock"][0]["keyfile"]).read_bytes()
    )
    user_instance.start()
    words = golden.open_arguments(image, files, "v")
    user_instance.cli(*words, "--readonly", "--key-file", key)
    assert sha256(user_instance, "v") == image["plaintext"]["sha256"]
    assert user_instance.stop() == 0
