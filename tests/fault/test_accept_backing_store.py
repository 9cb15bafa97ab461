"""The backing file goes bad under an open volume: errors reach the caller, never wrong data."""

import contextlib
import errno
import hashlib
import mmap
import os
import shutil
import subprocess

import pytest

from tests.lab import cryptsetup
from tests.product import mounts_below, wait_for

pytestmark = pytest.mark.fuse

HEADER = 524288
DATA = 2 << 20
IO_ERROR = os.strerror(errno.EIO)
NO_SPACE = os.strerror(errno.ENOSPC)


@pytest.fixture
def volume(instance):
    """An open LUKS2 volume full of known data; (device, image, plaintext)."""
    key = instance.write_file("key", b"passphrase")
    image = cryptsetup.luks_format(instance.directory / "image", key, HEADER + DATA)
    instance.start(f"v {image} {key} luks")
    plaintext = os.urandom(DATA)
    with instance.device("v").open("r+b") as file:
        file.write(plaintext)
        os.fsync(file.fileno())
    return instance.device("v"), image, plaintext


def fill(fd, size):
    for offset in range(0, size, 65536):
        os.pwrite(fd, os.urandom(65536), offset)


def direct_read(path, offset, length):
    """A read that no page cache answers."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, length) as buffer:
            done = os.preadv(fd, [buffer], offset)
            return bytes(buffer[:done])
    finally:
        os.close(fd)


def test_truncated_backing_file_gives_errors_behind_its_end(instance, volume):
    device, image, plaintext = volume
    os.truncate(image, HEADER + DATA // 2)
    assert direct_read(device, 0, 65536) == plaintext[:65536]
    with pytest.raises(OSError, match=IO_ERROR):
        direct_read(device, DATA - 65536, 65536)
    # A request across the new end may be short, but holds nothing wrong.
    with contextlib.suppress(OSError):
        across = direct_read(device, DATA // 2 - 4096, 8192)
        assert plaintext[DATA // 2 - 4096 :].startswith(across)
    instance.run("close", "v")
    instance.stop()


def test_deleted_backing_file_goes_on_or_fails_but_never_lies(instance, volume):
    device, image, plaintext = volume
    image.unlink()
    with contextlib.suppress(OSError):
        assert direct_read(device, 0, DATA) == plaintext
    assert instance.cli("status", "v", "--json").json["deleted"] is True
    assert instance.stop() == 0


def test_replaced_backing_file_is_not_touched(instance, volume):
    device, image, plaintext = volume
    other = instance.write_file("other", os.urandom(HEADER + DATA))
    before = hashlib.sha256(other.read_bytes()).digest()
    other.replace(image)
    with contextlib.suppress(OSError):
        assert direct_read(device, 0, DATA) == plaintext
    with contextlib.suppress(OSError), device.open("r+b") as file:
        file.write(bytes(4096))
        os.fsync(file.fileno())
    assert instance.stop() == 0
    assert hashlib.sha256(image.read_bytes()).digest() == before


@pytest.mark.root
def test_a_full_backing_store_is_reported_by_write_and_by_fsync(instance, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", store], check=True)
    try:
        image = store / "image"
        with image.open("wb") as file:
            file.truncate(8 << 20)  # sparse: the store has 1 MiB
        key = instance.write_file("key", os.urandom(64))
        instance.start(f"v {image} {key} plain,cipher=aes-xts-plain64,size=512")
        fd = os.open(instance.device("v"), os.O_RDWR)
        try:
            with pytest.raises(OSError, match=f"{NO_SPACE}|{IO_ERROR}"):
                fill(fd, 8 << 20)
            with pytest.raises(OSError, match=f"{NO_SPACE}|{IO_ERROR}"):
                os.fsync(fd)
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)
        assert instance.cli("status", "v", "--json").json["stats"]["errors"] > 0
        instance.run("close", "v")
        instance.stop()
    finally:
        instance.destroy()
        subprocess.run(["umount", "-l", store], check=True)


@pytest.fixture
def failing_store(instance, tmp_path):
    """A file whose reads and writes fail while a switch exists; (file, switch)."""
    for word in ("nbdkit", "nbdfuse"):
        if shutil.which(word) is None:
            pytest.skip(f"{word} is not installed (tests/lab/install.sh)")
    image = instance.write_file("disk.img", bytes(4 << 20))
    place = tmp_path / "store"
    place.mkdir()
    switch = instance.directory / "inject"
    server = subprocess.Popen(
        [
            *(
                "nbdfuse",
                place / "disk",
                "--command",
                "nbdkit",
                "-s",
                "--filter=error",
                "file",
                image,
            ),
            *("error=EIO", "error-rate=100%", f"error-file={switch}"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: (place / "disk").exists(), "nbdfuse shows its file")
        yield place / "disk", switch
    finally:
        # Ours first: it holds the other mount's file open.
        instance.destroy()
        server.terminate()
        server.wait(30)
        for mountpoint in mounts_below(place):
            subprocess.run(["umount", "-l", mountpoint], check=False)


@pytest.mark.root
def test_an_io_error_reaches_the_caller_and_the_next_fsync_and_recovery_is_seen(
    instance, failing_store
):
    disk, switch = failing_store
    key = instance.write_file("key", os.urandom(64))
    instance.start(f"v {disk} {key} plain,cipher=aes-xts-plain64,size=512")
    device = instance.device("v")
    data = os.urandom(1 << 20)
    with device.open("r+b") as file:
        file.write(data)
        os.fsync(file.fileno())
    fd = os.open(device, os.O_RDWR)
    try:
        switch.touch()
        with pytest.raises(OSError, match=IO_ERROR):
            # Not what was just written: the store's own page cache would answer.
            direct_read(device, 3 << 20, 65536)
        with pytest.raises(OSError, match=IO_ERROR):
            os.pwrite(fd, bytes(4096), 2 << 20)
        switch.unlink()
        # What failed is told once more by fsync, even after the store has recovered.
        with pytest.raises(OSError, match=IO_ERROR):
            os.fsync(fd)
        assert direct_read(device, 0, 1 << 20) == data
        os.pwrite(fd, b"again", 2 << 20)
        os.fsync(fd)
        assert os.pread(fd, 5, 2 << 20) == b"again"
    finally:
        with contextlib.suppress(OSError):
            os.close(fd)
    instance.cli("close", "v")
    assert instance.stop() == 0


def test_another_writer_of_the_same_image_is_refused(instance, volume):
    _device, image, _plaintext = volume
    key = instance.directory / "key"
    result = instance.run("open", "--key-file", key, image, "again")
    assert result.status == 5, result
    hard_link = instance.directory / "link"
    hard_link.hardlink_to(image)
    assert instance.run("open", "--key-file", key, hard_link, "again").status == 5
    assert instance.stop() == 0
