"""Options of cryptsetup that change what the daemon does: one real mount each."""

import fcntl
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.fuse.test_tree import make_plain
from tests.lab import cryptsetup
from tests.lab.keyring import why_no_keyring, with_keys
from tests.product import command, wait_for

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup"),
]

SIZE = 1 << 20
MEMORY_HARD = ("--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "32")


@pytest.fixture
def key(instance):
    return instance.write_file("key", b"a passphrase")


@pytest.fixture
def image(instance, key):
    made = cryptsetup.luks_format(instance.directory / "image", key, SIZE + (512 << 10))
    instance.own(made)
    instance.start()
    return made


def state(instance):
    return instance.cli("status", "v", "--json").json["state"]


def flags(instance):
    return instance.cli("status", "v", "--json").json["flags"]


def header_flags(image):
    text = cryptsetup.cryptsetup("luksDump", image).decode()
    return next(line.split(None, 1)[1].strip() for line in text.splitlines() if "Flags:" in line)


def test_a_deferred_close_is_taken_back(instance):
    instance.start(make_plain(instance, "v"))
    device = instance.device("v")
    fd = os.open(device, os.O_RDWR)
    assert instance.run("close", "--deferred", "--cancel-deferred", "v").status == 1
    instance.cli("close", "--deferred", "v")
    assert state(instance) == "closing"
    instance.cli("close", "--cancel-deferred", "v")
    assert state(instance) == "active"
    os.close(fd)
    os.close(os.open(device, os.O_RDONLY))
    instance.cli("close", "--cancel-deferred", "v")  # none was deferred, which is no fault
    assert state(instance) == "active"
    instance.cli("close", "v")
    assert instance.run("close", "--cancel-deferred", "v").status == 4


def test_a_refresh_is_remembered_and_forgotten_by_the_header(instance, image, key):
    instance.cli("open", "--key-file", key, image, "v")
    instance.cli("open", "--refresh", "--allow-discards", "--persistent", image, "v")
    assert (flags(instance), header_flags(image)) == (["discards"], "allow-discards")
    instance.cli("refresh", "v")
    assert flags(instance) == ["discards"]
    instance.cli("refresh", "--persistent", "--perf-same_cpu_crypt", "v")
    assert (flags(instance), header_flags(image)) == ([], "same-cpu-crypt")
    instance.cli("refresh", "v")
    assert flags(instance) == []
    instance.cli("close", "v")
    instance.cli("open", "--key-file", key, image, "v", "--persistent", "--allow-discards")
    instance.cli("close", "v")
    instance.cli("open", "--key-file", key, image, "v", "--persistent")
    assert (flags(instance), header_flags(image)) == ([], "(no flags)")
    instance.cli("close", "v")
    instance.cli("open", "--readonly", "--key-file", key, image, "v")
    before = image.read_bytes()
    assert instance.run("refresh", "--persistent", "v").status == 1
    assert image.read_bytes() == before


def test_a_lock_that_somebody_holds_is_passed_over(instance, image, key):
    unlocking = ("--disable-locks", "--key-file", key)
    with image.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        instance.cli("config", "--disable-locks", "--label", "ours", image)
        assert "ours" in cryptsetup.cryptsetup("luksDump", "--disable-locks", image).decode()
        instance.cli("open", *unlocking, image, "v")
        instance.cli("luksSuspend", "--disable-locks", "v")
        instance.cli("luksResume", *unlocking, "v")
        instance.cli("close", "--disable-locks", "v")


def test_only_a_luks2_header_remembers(instance):
    instance.start(make_plain(instance, "v"))
    assert instance.run("luksOpen", "--refresh", "v").status == 1
    assert instance.run("plainOpen", "--refresh", "v").status == 0
    assert instance.run("refresh", "--persistent", "--allow-discards", "v").status == 1
    assert flags(instance) == []


@pytest.mark.skipif(why_no_keyring() is not None, reason=why_no_keyring() or "")
def test_a_token_opens_and_resumes_a_volume(instance, image):
    cryptsetup.cryptsetup("token", "add", image, "--key-description", "k", "-S", "0")

    def run(*words, passphrase=b"a passphrase"):
        line = with_keys({"k": passphrase}, [*command("fusecrypt"), *words])
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, env=instance.environment
        )
        return done.returncode

    assert run("open", image, "v", "--token-only", passphrase=b"another") == 2
    assert run("open", image, "v") == 0
    text = instance.device("v").read_bytes()
    instance.cli("luksSuspend", "v")
    assert run("luksResume", "--type", "luks1", "v") == 1
    assert run("luksResume", "--token-id", "1", "--token-only", "v") == 1
    assert run("luksResume", "--token-only", "v") == 0
    assert instance.device("v").read_bytes() == text


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/loop-control"), reason="no loop devices"
)
def test_parts_of_one_device_are_shared(instance):
    key = instance.write_file("key", os.urandom(64))
    file = instance.write_file("file", bytes(2 * SIZE))
    instance.start()
    options = ("--type", "plain", "-c", "aes-xts-plain64", "-s", "512", "--key-file", key)
    loop = subprocess.run(
        ["losetup", "-f", "--show", file], capture_output=True, check=True, text=True
    ).stdout.strip()
    try:
        first = ("open", *options, "--size", "1024", loop, "first")
        assert instance.cli(*first).status == 0
        rest = ("open", *options, "--offset", "1024", "--skip", "1024", loop, "rest")
        assert instance.run(*rest).status == 5
        assert instance.run(*rest, "--shared", "--test-args").status == 0
        instance.cli(*rest, "--shared")
        assert instance.run("open", *options, "--shared", loop, "all").status == 5
        for name in ("first", "rest"):
            instance.cli("close", name)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
    assert instance.run("open", "--shared", file, "v").status == 1


@pytest.mark.parametrize("action", [("open", "IMAGE", "v"), ("open", "--test-passphrase", "IMAGE")])
def test_a_memory_hard_kdf_waits_for_its_turn(instance, key, action):
    """Its lock is cryptsetup's: that of root in /run, of others in their runtime directory."""
    image = instance.directory / "image"
    cryptsetup.luks_format(image, key, SIZE + (512 << 10), *MEMORY_HARD)
    instance.own(image)
    instance.start()
    path = instance.runtime_dir / "memory-hard.lock"
    if os.geteuid() == 0 and instance.uid is None:
        path = Path("/run/cryptsetup/LN_memory-hard-access")
        path.parent.mkdir(mode=0o700, exist_ok=True)
    words = ["--key-file", key, *[image if word == "IMAGE" else word for word in action]]
    done = []

    def run() -> None:
        done.append(instance.run(*words, "--serialize-memory-hard-pbkdf").status)

    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert instance.run(*words, "--serialize-memory-hard-pbkdf", "--test-args").status == 0
        thread = threading.Thread(target=run)
        thread.start()
        wait_for(lambda: _is_waited_for(path), "somebody who waits for the lock")
        assert done == []
        fcntl.flock(lock, fcntl.LOCK_UN)
        thread.join()
    assert done == [0]


def _is_waited_for(path) -> bool:
    inode = f":{path.stat().st_ino} "
    with open("/proc/locks") as locks:
        return any("->" in line and inode in line for line in locks)
