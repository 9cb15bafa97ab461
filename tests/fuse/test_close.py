"""Closing volumes: who still has them open, what stays cached, what a new one may see."""

import contextlib
import errno
import mmap
import os
import time

import pytest

from fusecrypt.daemon.control.client import ControlClient
from tests.fuse.test_tree import SIZE, make_plain, raises
from tests.product import wait_for

pytestmark = pytest.mark.fuse


@pytest.fixture
def device(instance):
    instance.start(make_plain(instance, "v"))
    yield instance.device("v")
    assert instance.stop() == 0


def test_an_open_handle_keeps_a_volume_open(instance, device):
    fd = os.open(device, os.O_RDWR)
    start = time.monotonic()
    result = instance.run("close", "v")
    assert result.status == 5
    assert "in use" in result.stderr
    assert time.monotonic() - start >= 2
    # It is as it was before.
    os.pwrite(fd, b"still here", 0)
    os.fsync(fd)
    assert instance.cli("status", "v", "--json").json["state"] == "active"
    os.close(os.open(device, os.O_RDONLY))
    os.close(fd)
    instance.cli("close", "v")
    assert not device.exists()


def test_a_release_on_its_way_is_waited_for(instance, device):
    with ControlClient(instance.runtime_dir / "control") as client:
        for _ in range(100):
            fd = os.open(device, os.O_RDONLY)
            os.close(fd)
            client.call("Close", {"name": "v"})
            client.call("OpenEntry", {"name": "v"})


def test_a_deferred_close_happens_with_the_last_release(instance, device):
    first = os.open(device, os.O_RDWR)
    instance.cli("close", "--deferred", "v")
    assert instance.cli("status", "v", "--json").json["state"] == "closing"
    # As with the device mapper, who comes meanwhile is let in.
    second = os.open(device, os.O_RDWR)
    os.close(first)
    os.pwrite(second, b"x", 0)
    os.close(second)
    wait_for(lambda: not device.exists(), "deferred close")
    assert instance.cli("list", "--json").json["volumes"] == []


def test_a_mapping_keeps_its_volume_open_and_loses_nothing(instance, device):
    fd = os.open(device, os.O_RDWR)
    mapping = mmap.mmap(fd, SIZE)
    os.close(fd)
    mapping[100:107] = b"written"
    assert instance.run("close", "v").status == 5
    mapping.close()
    instance.cli("close", "v")
    instance.cli("open", "v")
    with device.open("rb") as file:
        assert file.read(107)[100:] == b"written"


def test_a_shared_mapping_is_written_back_by_a_stop(instance):
    instance.start(make_plain(instance, "v"))
    fd = os.open(instance.device("v"), os.O_RDWR)
    mapping = mmap.mmap(fd, SIZE)
    for offset in range(0, SIZE, mmap.PAGESIZE):
        mapping[offset : offset + 7] = b"written"
    assert instance.stop() == 0
    with contextlib.suppress(OSError):
        os.close(fd)
    instance.start()
    data = instance.device("v").read_bytes()
    assert {data[at : at + 7] for at in range(0, SIZE, mmap.PAGESIZE)} == {b"written"}
    assert instance.stop() == 0


def test_a_reopened_name_shows_no_old_page(instance, device):
    # Two volumes take turns under one name; both times the same pages are asked for.
    lines = instance.crypttab.read_text().split()
    image, key = lines[1], lines[2]
    other = instance.write_file("other.img", bytes(SIZE))
    options = ["--type", "plain", "--cipher", "aes-xts-plain64", "--key-size", "512"]
    with device.open("r+b") as file:
        file.write(b"first volume")
    with device.open("rb") as file:
        assert file.read(12) == b"first volume"
    inode = device.stat().st_ino
    instance.cli("close", "v")
    instance.cli("open", *options, "--key-file", key, other, "v")
    assert device.stat().st_ino != inode
    with device.open("rb") as file:
        assert file.read(12) != b"first volume"
    instance.cli("close", "v")
    instance.cli("open", *options, "--sector-size", "4096", "--key-file", key, image, "v")
    with device.open("rb") as file:
        assert file.read(12) == b"first volume"


def test_a_closed_volume_leaves_nothing_in_the_page_cache(instance, device):
    secret = os.urandom(32)
    with device.open("r+b") as file:
        file.write(secret * 1000)
    handle = os.open(device, os.O_PATH)
    instance.cli("close", "v")
    # A reference that outlives the volume names nothing any more.
    with raises(errno.ESTALE):
        os.stat(f"/proc/self/fd/{handle}")
    os.close(handle)


def test_the_image_of_a_closed_volume_can_be_opened_again_at_once(instance, device):
    with ControlClient(instance.runtime_dir / "control") as client:
        for _ in range(200):
            client.call("Close", {"name": "v"})
            client.call("OpenEntry", {"name": "v"})
    assert device.stat().st_size == SIZE


def test_numbers_of_devices_are_reused_and_node_ids_are_not(instance, device):
    seen = set()
    for _ in range(3):
        assert instance.cli("status", "v", "--json").json["dm_path"].endswith("/dm-0")
        seen.add(device.stat().st_ino)
        instance.cli("close", "v")
        instance.cli("open", "v")
    assert len(seen) == 3
