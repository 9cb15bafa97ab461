"""Open volumes suspended, resumed, resized, and with holes punched, as people do it."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusecrypt.daemon.control.client import ControlClient
from fusecrypt.daemon.control.volume_requests import ResizeRequest, SuspendRequest
from tests.fuse.test_engine_changes import KEEP_SIZE, PUNCH_HOLE, fallocate
from tests.fuse.test_paes import adapter, make_key, real_format  # noqa: F401 (a fixture)
from tests.fuse.test_tree import SIZE, make_plain, raises
from tests.fuse.waiting import wait_until_waiting
from tests.lab import cryptsetup
from tests.product import wait_for

pytestmark = pytest.mark.fuse

PASSPHRASE = b"a passphrase"
MIB = 1 << 20
HEADER = 512 << 10


@pytest.fixture
def key(instance):
    return instance.write_file("key", PASSPHRASE)


def make_luks(instance, key, name="image", *options):
    return cryptsetup.luks_format(instance.directory / name, key, SIZE + HEADER, *options)


def fill(instance, name):
    """Random bytes on the volume; what they are."""
    text = random.Random(name).randbytes(SIZE)
    with instance.device(name).open("r+b") as device:
        device.write(text)
        os.fsync(device.fileno())
    return text


def start_reading(device, direct=False):
    """A process that reads the device and prints how much it got."""
    code = (
        "import os, sys, mmap; flags = os.O_DIRECT if sys.argv[2] == 'True' else 0\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY | flags); print('open', flush=True)\n"
        "try: print(os.preadv(fd, [mmap.mmap(-1, 4096)], 0))\n"
        "except OSError as error: print(error.errno)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", code, str(device), str(direct)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "open\n"
    wait_until_waiting(process)
    return process


@pytest.mark.parametrize("kind", ["detached", "luks1", "paes"])
def test_io_of_a_suspended_volume_waits_for_its_key(instance, key, kind, request):
    words = [key]
    if kind == "paes":
        request.getfixturevalue("adapter")
        secure = make_key(instance, "k", os.urandom(64))
        image = real_format(instance.directory / "image", key, secure, 1024)
    elif kind == "luks1":
        image = instance.directory / "image"
        image.write_bytes(bytes(SIZE + (4 << 20)))
        cryptsetup.cryptsetup(
            *("luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000"),
            *("--key-file", key, image),
        )
    else:
        header = ["--header", instance.directory / "header"] if kind == "detached" else []
        image = make_luks(instance, key, "image", *header)
        words += header
    instance.cli("open", "--key-file", *words, image, "v")
    before = instance.device("v").read_bytes()
    used = instance.cli("status", "--json").json["arena"]["used"]
    assert instance.cli("luksSuspend", "v").stdout == ""
    assert instance.cli("status", "--json").json["arena"]["used"] < used
    status = instance.cli("status", "v")
    assert "is active" in status.stdout
    assert "  mode:    read/write (suspended)\n" in status.stdout
    assert instance.cli("status", "v", "--json").json["state"] == "suspended"
    assert instance.cli("list").stdout.splitlines()[1].split()[:2] == ["v", "suspended"]
    # The kernel has no page of it either: a read waits.
    reader = start_reading(instance.device("v"))
    assert instance.run("luksSuspend", "v").status == 1
    wrong = instance.run("luksResume", "v", stdin=b"wrong")
    assert (wrong.status, "no key available" in wrong.stderr) == (2, True)
    assert reader.poll() is None
    instance.cli("luksResume", "v", "--key-file", key)
    assert reader.communicate(timeout=10)[0] == "4096\n"
    assert instance.device("v").read_bytes() == before
    assert instance.run("luksResume", "v", stdin=PASSPHRASE).status == 1
    instance.cli("luksSuspend", "v")
    instance.cli("luksResume", instance.device("v"), "--key-slot", "0", stdin=PASSPHRASE)
    assert instance.cli("status", "v", "--json").json["state"] == "active"
    instance.cli("close", "v")
    assert instance.stop() == 0


def test_a_volume_is_not_resumed_with_the_key_of_another(instance, key):
    image = make_luks(instance, key)
    other = make_luks(instance, key, "other")
    instance.cli("open", "--key-file", key, image, "v")
    text = fill(instance, "v")
    instance.cli("luksSuspend", "v")
    before = image.read_bytes()
    result = instance.run("luksResume", "--header", other, "v", "--key-file", key)
    assert (result.status, "does not match" in result.stderr) == (2, True)
    # Nor when the other lies where the volume's file was.
    os.rename(other, image)
    assert instance.run("luksResume", "v", "--key-file", key).status == 2
    image.unlink()
    assert instance.run("luksResume", "v", "--key-file", key).status == 4
    backup = instance.write_file("backup", before)
    instance.cli("luksResume", "--header", backup, "v", "--key-file", key)
    assert instance.device("v").read_bytes() == text


def test_io_fails_where_that_is_asked_for_and_a_suspended_volume_closes(instance, key):
    image = make_luks(instance, key)
    instance.cli("open", "--key-file", key, image, "v")
    text = fill(instance, "v")
    instance.cli("luksSuspend", "--fail-io", "v")
    with raises(5):
        instance.device("v").read_bytes()
    fd = os.open(instance.device("v"), os.O_RDWR)
    with raises(5):
        os.pwrite(fd, b"x", 0)
    os.close(fd)
    instance.cli("close", "v")
    assert not instance.device("v").exists()
    instance.cli("open", "--key-file", key, image, "v")
    assert instance.device("v").read_bytes() == text


def test_waiting_can_be_ended_and_then_a_deferred_close_comes_true(instance, key):
    image = make_luks(instance, key)
    instance.cli("open", "--key-file", key, image, "v")
    instance.cli("luksSuspend", "v")
    killed, waiting = (start_reading(instance.device("v")) for _ in range(2))
    assert instance.run("close", "v").status == 5
    instance.cli("close", "--deferred", "v")
    # The kernel's own reading ahead outlives who was killed, and has the file open.
    killed.kill()
    killed.communicate(timeout=10)
    assert waiting.poll() is None
    instance.cli("luksSuspend", "--fail-io", "v")
    assert waiting.communicate(timeout=10)[0] == "5\n"
    wait_for(lambda: not instance.device("v").exists(), "deferred close", 10)


def test_the_end_of_the_daemon_is_the_end_of_waiting(instance, key):
    image = make_luks(instance, key)
    instance.cli("open", "--key-file", key, image, "v")
    instance.cli("luksSuspend", "v")
    readers = [start_reading(instance.device("v"), direct) for direct in (False, True)]
    start = time.monotonic()
    instance.signal(instance.pid("fusecryptd"), signal.SIGTERM)
    assert [reader.communicate(timeout=10)[0] for reader in readers] == ["5\n", "5\n"]
    instance.wait_gone()
    assert time.monotonic() - start < 8


def test_plain_volumes_and_closed_ones_are_not_suspended(instance):
    instance.start(make_plain(instance, "p"))
    for verb in ("luksSuspend", "luksResume"):
        result = instance.run(verb, "p", stdin=b"x")
        assert (result.status, "only for LUKS" in result.stderr) == (1, True)
        assert instance.run(verb, "none").status == 4
    assert instance.run("resize", "none").status == 4
    assert instance.stop() == 0
    assert instance.run("luksSuspend", "p").status == 4


def size_of(instance, name):
    fd = os.open(instance.device(name), os.O_RDONLY)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def test_a_volume_takes_another_size_within_its_file(instance, key):
    image = make_luks(instance, key)
    instance.cli("open", "--key-file", key, image, "v")
    text = fill(instance, "v")
    instance.cli("resize", "--device-size", "1M", "v")
    assert size_of(instance, "v") == instance.device("v").stat().st_size == MIB
    assert instance.device("v").read_bytes() == text[:MIB]
    status = instance.cli("status", "v").stdout
    assert f"  size:    {MIB // 512} [512-byte units] ({MIB} [bytes])\n" in status
    instance.cli("resize", "--size", "4096", "v")
    assert instance.device("v").read_bytes() == text[: 2 * MIB]
    instance.cli("resize", "v")
    assert instance.device("v").read_bytes() == text
    os.truncate(image, image.stat().st_size + 3 * MIB + 100)
    instance.cli("resize", "-b", "0", "v")
    assert size_of(instance, "v") == SIZE + 3 * MIB
    too_large = instance.run("resize", "--device-size", "100M", "v")
    assert (too_large.status, "too small" in too_large.stderr) == (1, True)
    assert instance.run("resize", "--device-size", "1000", "v").status == 1
    instance.cli("luksSuspend", "v")
    assert instance.run("resize", "v").status == 1
    # What the real tool reads at the new end is what was written there.
    instance.cli("luksResume", "--key-file", key, "v")
    with instance.device("v").open("r+b") as device:
        device.seek(SIZE + 2 * MIB)
        device.write(b"written after growing")
    instance.cli("close", "v")
    os.truncate(image, HEADER + SIZE + 3 * MIB)
    clear = cryptsetup.decrypt(image, key)
    assert clear[:SIZE] == text
    assert clear[SIZE + 2 * MIB :].startswith(b"written after growing")


def test_volumes_do_not_grow_into_each_other(instance):
    first = make_plain(instance, "a") + ",offset=0"
    instance.start(first)
    instance.cli("resize", "--device-size", "1M", "a")
    image, key = instance.directory / "a.img", instance.directory / "a.key"
    instance.cli(
        *("open", "--type", "plain", "-c", "aes-xts-plain64", "-s", "512", "-d", key),
        *("--offset", "2048", "--device-size", "1M", image, "b"),
    )
    for name in ("a", "b"):
        result = instance.run("resize", "--device-size", "1537K", name)
        assert (result.status, result.stderr) == (1, result.stderr) if name == "a" else (0, "")
    busy = instance.run("resize", "--device-size", "2M", "a")
    assert (busy.status, "as volume b" in busy.stderr) == (5, True)
    instance.cli("close", "b")
    instance.cli("resize", "--device-size", "2M", "a")
    assert size_of(instance, "a") == 2 * MIB
    assert instance.stop() == 0


def test_changes_at_the_same_time_wait_for_nothing_and_break_nothing(instance, key):
    """Sizes under a stream of direct reads and writes, over one connection."""
    image = make_luks(instance, key)
    instance.cli("open", "--key-file", key, image, "v")
    reader = subprocess.Popen(
        ["dd", f"if={instance.device('v')}", "of=/dev/null", "iflag=direct", "bs=64K", "count=4"],
        stderr=subprocess.DEVNULL,
    )
    with ControlClient(instance.runtime_dir / "control") as client:
        for size in [SIZE, MIB, SIZE // 2, None] * 10:
            client.call("Resize", ResizeRequest("v", size).pack())
            client.call("Suspend", SuspendRequest("v", fail_io=False).pack())
            instance_key = os.open(key, os.O_RDONLY)
            file = os.open(image, os.O_RDONLY)
            parameters = {
                "name": "v",
                "header": {"fd": 0, "path": str(image)},
                "key": {"fd": 1, "mode": "all", "keyfile": True},
            }
            client.call("Resume", parameters, [file, instance_key])
            os.close(file)
            os.close(instance_key)
    assert reader.wait(10) == 0
    assert size_of(instance, "v") == SIZE
    instance.cli("close", "v")


def blocks(path):
    return path.stat().st_blocks


def punch(instance, name, length=4 * MIB):
    with instance.device(name).open("r+b") as device:
        fallocate(device.fileno(), KEEP_SIZE | PUNCH_HOLE, MIB, length)


def test_discards_reach_the_file_only_where_they_are_allowed(instance, key):
    image = make_luks(instance, key)
    line = make_plain(instance, "p", "discard")
    instance.start(line, f"never {image} {key} luks,discard,read-only,noauto")
    plain = instance.directory / "p.img"
    fill(instance, "p")
    assert "  flags:   discards\n" in instance.cli("status", "p").stdout
    before = blocks(plain)
    punch(instance, "p")
    assert blocks(plain) == before - 4 * MIB // 512
    instance.cli("open", "--key-file", key, image, "v")
    text = fill(instance, "v")
    before = blocks(image)
    punch(instance, "v")
    assert blocks(image) == before
    assert "flags" not in instance.cli("status", "v").stdout
    instance.cli("close", "v")
    clear = cryptsetup.decrypt(image, key)
    assert clear == text[:MIB] + bytes(4 * MIB) + text[5 * MIB :]
    instance.cli("open", "--allow-discards", "--key-file", key, image, "v")
    punch(instance, "v")
    assert blocks(image) == before - 4 * MIB // 512
    instance.cli("close", "v")
    # Who cannot write cannot discard.
    instance.cli("open", "never")
    assert instance.cli("status", "never", "--json").json["flags"] == []
    assert instance.stop() == 0


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="no mkfs.ext4")
def test_who_takes_holes_for_zeros_is_right(instance, key):
    """mkfs punches a regular file, and then writes no zeros where its inodes will be."""
    image = make_luks(instance, key)
    instance.cli("open", "--allow-discards", "--key-file", key, image, "v")
    fill(instance, "v")
    before = blocks(image)
    device = instance.device("v")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", device], check=True)
    assert blocks(image) < before - 4 * MIB // 512
    found = subprocess.run(["e2fsck", "-fn", device], capture_output=True, check=False)
    assert found.returncode == 0, found.stdout
    table = int(re.search(rb"Inode table at (\d+)", dumpe2fs(device))[1])
    block = int(re.search(rb"Block size: +(\d+)", dumpe2fs(device))[1])
    # Inodes 1 to 11 are in use; all others of this table were never written.
    assert device.read_bytes()[table * block + 4096 : table * block + 65536] == bytes(61440)


def dumpe2fs(device):
    return subprocess.run(["dumpe2fs", device], capture_output=True, check=True).stdout


def test_discards_are_allowed_and_forbidden_while_a_volume_is_in_use(instance, key):
    image = make_luks(instance, key)
    instance.cli("open", "--key-file", key, image, "v")
    text = bytearray(fill(instance, "v"))
    before = blocks(image)
    fd = os.open(instance.device("v"), os.O_RDWR)
    instance.cli("refresh", "--allow-discards", "v")
    assert instance.cli("status", "v", "--json").json["flags"] == ["discards"]
    fallocate(fd, KEEP_SIZE | PUNCH_HOLE, MIB, MIB)
    text[MIB : 2 * MIB] = bytes(MIB)
    assert blocks(image) == before - MIB // 512
    instance.cli("refresh", "v")
    assert instance.cli("status", "v", "--json").json["flags"] == []
    fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 4 * MIB, MIB)
    text[4 * MIB : 5 * MIB] = bytes(MIB)
    assert blocks(image) == before - MIB // 512
    assert os.pread(fd, SIZE, 0) == text
    os.close(fd)
    instance.cli("luksSuspend", "v")
    assert instance.run("refresh", "v").status == 1
    instance.cli("close", "v")
    instance.cli("open", "--readonly", "--key-file", key, image, "v")
    assert instance.run("refresh", "--allow-discards", "v").status == 1
    assert instance.run("refresh", "none").status == 1


def test_the_flag_that_the_real_tool_keeps_in_the_header_counts(instance, key):
    image = make_luks(instance, key)
    # cryptsetup sets it with `open --persistent`, which needs the device mapper: by a new header.
    import json

    from fusecrypt.dmcrypt.backing import pread_from
    from fusecrypt.dmcrypt.luks2 import read_header
    from fusecrypt.dmcrypt.luks2.update import write_header

    with image.open("r+b") as file:
        header = read_header(pread_from(file.fileno()), image.stat().st_size)
        root = json.loads(json.dumps(header.root))
        root["config"]["flags"] = ["allow-discards", "some-new-flag"]
        write_header(file.fileno(), header.binary, root)
    assert "allow-discards" in cryptsetup.cryptsetup("luksDump", image).decode()
    result = instance.cli("open", "--key-file", key, image, "v")
    assert "some-new-flag is not known, ignored" in result.stderr
    assert instance.cli("status", "v", "--json").json["flags"] == ["discards"]
    fill(instance, "v")
    before = blocks(image)
    punch(instance, "v")
    assert blocks(image) == before - 4 * MIB // 512


needs_loop = pytest.mark.skipif(
    shutil.which("losetup") is None or not os.path.exists("/dev/loop-control"),
    reason="no loop devices",
)


@pytest.mark.root
@needs_loop
def test_a_loop_device_follows_the_size_and_fstrim_frees_the_file(instance, key, tmp_path):
    image = make_luks(instance, key)
    instance.cli("open", "--allow-discards", "--key-file", key, image, "v")
    fill(instance, "v")
    loop = subprocess.run(
        ["losetup", "-f", "--show", instance.device("v")],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    if not loop:
        pytest.skip("no loop device to be had")
    size = Path("/sys/block", os.path.basename(loop), "size")
    try:
        instance.cli("resize", "--device-size", "4M", "v")
        subprocess.run(["losetup", "-c", loop], check=True)
        assert int(size.read_text()) == 4 * MIB // 512
        instance.cli("resize", "v")
        subprocess.run(["losetup", "-c", loop], check=True)
        assert int(size.read_text()) == SIZE // 512
        subprocess.run(["mkfs.ext4", "-q", "-E", "nodiscard", loop], check=True)
        on = tmp_path / "on"
        on.mkdir()
        subprocess.run(["mount", loop, on], check=True)
        try:
            data = os.urandom(4 * MIB)
            (on / "kept").write_bytes(b"kept" * 1000)
            (on / "gone").write_bytes(data)
            os.sync()
            full = blocks(image)
            (on / "gone").unlink()
            os.sync()
            subprocess.run(["fstrim", on], check=True)
            os.sync()
            assert blocks(image) < full - 3 * MIB // 512
            assert (on / "kept").read_bytes() == b"kept" * 1000
        finally:
            subprocess.run(["umount", on], check=True)
        subprocess.run(["e2fsck", "-fn", loop], check=True, capture_output=True)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
    instance.cli("close", "v")
