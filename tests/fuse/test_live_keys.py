"""Keys of open volumes that end with a session or a lease, and come again."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.fuse.test_paes import DATA_SIZE, OFFSET, adapter, make_key, real_format  # noqa: F401
from tests.fuse.test_tree import raises
from tests.fuse.waiting import wait_until_waiting
from tests.lab import cryptsetup, sectors
from tests.product import wait_for

pytestmark = pytest.mark.fuse

PASSPHRASE = b"a passphrase"
CLEAR = random.Random(20).randbytes(64)

# Writes pages where chance wants them, with O_DIRECT and without, syncs, reads back what it wrote;
# tells how many it wrote when it is told to end. Its chance, and so what it leaves, is known.
WRITER = """
import mmap, os, random, sys
from select import select
path, seed = sys.argv[1:]
chance, size = random.Random(seed), os.stat(path).st_size
fds = [os.open(path, os.O_RDWR), os.open(path, os.O_RDWR | os.O_DIRECT)]
page = mmap.mmap(-1, 4096)
count = 0
while not (os.read(0, 1) if select([0], [], [], 0)[0] else b''):
    at, fd = chance.randrange(size // 4096) * 4096, fds[count % 2]
    data = chance.randbytes(4096)
    page[:] = data
    assert os.pwritev(fd, [page], at) == 4096
    if count % 7 == 0:
        os.fsync(fd)
    assert os.preadv(fd, [page], at) == 4096 and page[:] == data, at
    count += 1
os.fsync(fds[0])
print(count)
"""


@pytest.fixture
def passphrase(instance):
    return instance.write_file("passphrase", PASSPHRASE)


@pytest.fixture
def paes(adapter, passphrase):  # noqa: F811
    """An instance with a paes image that is not open yet."""
    key = make_key(adapter, "k", CLEAR)
    real_format(adapter.directory / "image", passphrase, key, 1024)
    return adapter


def open_paes(instance, *options):
    words = ["open", "-d", instance.directory / "passphrase", *options]
    instance.cli(*words, instance.directory / "image", "v")


def key_of(instance, name="v"):
    return instance.cli("status", name, "--json").json["key"]


def stored(instance, name="image"):
    """What is on disk, deciphered by another AES."""
    data = (instance.directory / name).read_bytes()[OFFSET : OFFSET + DATA_SIZE]
    return sectors.crypt(data, "aes-xts-plain64", CLEAR, sector_size=512, encrypt=False)


def read(instance, at=0, name="v"):
    """Bytes from the engine, not from the kernel's cache."""
    fd = os.open(instance.device(name), os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(fd, 4096, at)
    finally:
        os.close(fd)


def start_writer(instance, name):
    return subprocess.Popen(
        [sys.executable, "-I", "-c", WRITER, str(instance.device(name)), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def replay(before, seed, count):
    """What the writer left."""
    content, chance = bytearray(before), random.Random(seed)
    for _ in range(count):
        at = chance.randrange(len(content) // 4096) * 4096
        content[at : at + 4096] = chance.randbytes(4096)
    return bytes(content)


def test_writers_notice_nothing_of_five_bumps(paes, passphrase):
    open_paes(paes)
    clear = cryptsetup.luks_format(paes.directory / "clear", passphrase, 1 << 20)
    paes.cli("open", "-d", passphrase, clear, "c")
    names = ("v", "c")
    before = {name: paes.device(name).read_bytes() for name in names}
    writers = {name: start_writer(paes, name) for name in names}
    for _ in range(5):
        time.sleep(0.3)
        answer = paes.cli("adapter", "bump-session", "--json").json
        assert answer == {"derived_again": ["v"], "lost": []}
    time.sleep(0.3)
    for name in names:
        said, _ = writers[name].communicate(b"x", timeout=30)
        assert writers[name].returncode == 0
        count = int(said)
        assert count > 50
        assert paes.device(name).read_bytes() == replay(before[name], name, count)
        if name == "v":
            assert stored(paes) == replay(before[name], name, count)
    key = key_of(paes)
    assert (key["state"], key["derivations"]) == ("present", 6)
    assert key_of(paes, "c")["derivations"] == 1
    paes.cli("close", "v")
    paes.cli("close", "c")
    open_paes(paes)
    assert paes.device("v").read_bytes() == stored(paes)
    assert paes.stop() == 0


def test_without_its_adapter_io_waits_fails_and_recovers_by_itself(paes):
    open_paes(paes)
    text = read(paes)
    paes.cli("chzcrypt", "-d", "03.0039")
    paes.cli("adapter", "bump-session")
    assert key_of(paes)["state"] == "forgotten"
    began = time.monotonic()
    with raises(errno.EIO):
        read(paes)
    assert 2.9 < time.monotonic() - began < 12  # 200, 400, 800 and 1600 ms
    with raises(errno.EIO):  # at once
        read(paes)
    key = key_of(paes)
    assert key["state"] == "unavailable"
    assert paes.cli("list").stdout.splitlines()[1].split()[:2] == ["v", "unavailable"]
    assert "is active, but its key is unavailable." in paes.cli("status", "v").stdout
    assert "is not suspended" in paes.run("luksResume", "v").stderr
    assert "03.0039" in key["reason"] or "adapter" in key["reason"]
    assert f"key state:    unavailable: {key['reason']}" in paes.cli("status", "v").stdout
    assert "v: I/O fails: its key cannot be derived" in paes.read_log()
    paes.cli("chzcrypt", "-e", "03.0039")

    def goes_on():
        with contextlib.suppress(OSError):
            return read(paes)
        return None

    assert wait_for(goes_on, "I/O goes on", 15) == text
    key = key_of(paes)
    assert (key["state"], key["reason"], key["derivations"]) == ("present", None, 2)
    assert "I/O goes on" in paes.read_log()
    # An adapter that comes back in time is not missed.
    paes.cli("chzcrypt", "-d", "03.0039")
    paes.cli("adapter", "bump-session")
    code = "import os, sys; print(len(os.pread(os.open(sys.argv[1], os.O_RDONLY), 9, 65536)))"
    words = [sys.executable, "-I", "-c", code, paes.device("v")]
    reader = subprocess.Popen(words, stdout=subprocess.PIPE)
    wait_until_waiting(reader)
    paes.cli("chzcrypt", "-e", "03.0039")
    assert reader.communicate(timeout=20)[0] == b"9\n"
    assert paes.stop() == 0


def test_a_keystored_that_was_killed_is_started_for_the_next_derivation(paes):
    open_paes(paes)
    text = read(paes)
    killed = paes.pid("keystored")
    os.kill(killed, signal.SIGKILL)
    paes.cli("adapter", "bump-session")
    assert read(paes) == text
    assert paes.pid("keystored") != killed
    assert paes.stop() == 0


def test_random_keys_are_lost_with_their_session_and_that_is_said(paes):
    image = paes.write_file("swap", os.urandom(DATA_SIZE))
    token = paes.runtime_dir / "dev" / "pkey" / "protkey" / "protkey_aes_256_xts"
    paes.start(f"swap {image} {token} plain,cipher=paes-xts-plain64,size=1280")
    open_paes(paes)
    assert "random protected key, present" in paes.cli("status", "swap").stdout
    result = paes.cli("adapter", "bump-session")
    assert "swap: its random key is lost" in result.stderr
    for action in (lambda: read(paes, name="swap"), lambda: paes.device("swap").write_bytes(b"x")):
        with raises(errno.EIO):
            action()
    assert "swap: its random key is lost" in paes.read_log()
    status = paes.cli("status", "swap")
    assert "is active, but its key is lost." in status.stdout
    assert "random protected key, lost" in status.stdout
    lines = {line.split()[0]: line.split()[1] for line in paes.cli("list").stdout.splitlines()}
    assert (lines["swap"], lines["v"]) == ("lost", "active")
    assert paes.run("resize", "swap").status == 1
    assert paes.cli("adapter", "bump-session", "--json").json["lost"] == []
    paes.cli("close", "swap")
    paes.cli("open", "swap")
    header = paes.write_file("header", bytes(20 << 20))
    words = ["luksFormat", "-q", "--cipher", "paes-xts-plain64", "--key-size", "1280"]
    copy = paes.write_file("token", token.read_bytes())
    result = paes.run(*words, "--volume-key-file", copy, header, paes.directory / "passphrase")
    assert result.status == 6, result
    assert not any(header.read_bytes())
    assert len(read(paes, name="swap")) == 4096
    assert paes.stop() == 0


def test_changes_of_a_volume_whose_key_was_forgotten(paes, passphrase):
    open_paes(paes)
    text = read(paes)
    paes.cli("adapter", "bump-session")
    paes.cli("resize", "--device-size", str(DATA_SIZE // 2), "v")
    assert read(paes) == text
    paes.cli("adapter", "bump-session")
    paes.cli("luksSuspend", "v")
    assert key_of(paes)["state"] == "suspended"
    assert paes.cli("adapter", "bump-session", "--json").json["derived_again"] == []
    # The volume key is another one meanwhile, and the master key that it was under before is gone.
    for number in range(2):
        paes.cli("adapter", "master-key", "generate", "03.0039")
        paes.cli("adapter", "master-key", "set", "-q", "03.0039")
        if number == 0:
            words = ["zkey-cryptsetup", "reencipher", "--from-old", "--key-file", passphrase]
            paes.cli(*words, paes.directory / "image")
    mkvp = key_of(paes)["mkvp"]
    key = make_key(paes, "other", os.urandom(64))
    real_format(paes.directory / "other", passphrase, key, 1024)
    words = ["luksResume", "v", "--key-file", passphrase]
    result = paes.run(*words, "--header", paes.directory / "other")
    assert (result.status, "the header is another's" in result.stderr) == (2, True)
    paes.cli(*words)
    assert key_of(paes)["mkvp"] != mkvp
    paes.cli("adapter", "bump-session")
    assert read(paes) == text
    paes.cli("chzcrypt", "-d", "03.0039")
    paes.cli("adapter", "bump-session")
    assert paes.run("refresh", "--allow-discards", "v").status == 6
    paes.cli("close", "v")
    assert paes.stop() == 0


def use_for_two_seconds(paes, text):
    """A volume whose key may be idle for one keeps it, unless this machine made a longer pause."""
    open_paes(paes, "--idle", "1")
    pauses, last = [], time.monotonic()
    for _ in range(8):
        time.sleep(0.25)
        assert read(paes) == text
        now = time.monotonic()
        pauses.append(now - last)
        last = now
    derivations = key_of(paes)["derivations"]
    assert derivations <= 1 + sum(pause > 0.9 for pause in pauses)
    return derivations


def test_a_lease_ends_under_io_and_after_idle_time(paes):
    open_paes(paes, "--lease", "1")
    text = read(paes)
    limit = time.monotonic() + 20
    while key_of(paes)["derivations"] < 3:
        assert read(paes) == text
        assert time.monotonic() < limit
    status = paes.cli("status", "v").stdout
    assert "key lease:    1 [seconds]" in status
    assert "CCA-AESDATA, master key" in status
    paes.cli("close", "v")
    derivations = use_for_two_seconds(paes, text)
    wait_for(lambda: key_of(paes)["state"] == "forgotten", "forgotten", 10)
    assert "no I/O for 1 s" in paes.cli("status", "v").stdout
    assert read(paes) == text
    key = key_of(paes)
    assert (key["state"], key["lease"], key["idle"]) == ("present", 0, 1)
    assert key["derivations"] == derivations + 1
    assert key["adapter"] == "03.0039"
    assert key["mkvp"] == (paes.directory / "k.skey").read_bytes()[8:16].hex()
    assert paes.stop() == 0


def test_leases_by_crypttab_and_settings(paes, passphrase):
    config = paes.directory / "config" / "fusecrypt"
    config.mkdir()
    paes.own(config)
    (config / "fusecrypt.toml").write_text("key-lease = 70\nkey-idle = 80\n")
    clear = cryptsetup.luks_format(paes.directory / "clear", passphrase, 1 << 20)
    image = paes.directory / "image"
    paes.start(
        f"v {image} {passphrase} luks,x-fusecrypt-lease=2min,x-fusecrypt-idle=0",
        f"c {clear} {passphrase} luks,nofail,x-fusecrypt-idle=5",
    )
    key = key_of(paes)
    assert (key["lease"], key["idle"]) == (120, 0)
    states = {entry["name"]: entry for entry in paes.cli("list", "--json").json["entries"]}
    assert "only for a volume whose key is a secure key" in states["c"]["error"]
    result = paes.run("open", "-d", passphrase, "--lease", "9", clear, "d")
    assert (result.status, "this one has a clear key" in result.stderr) == (1, True)
    assert paes.stop() == 0
