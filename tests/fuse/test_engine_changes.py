"""Changes of a device under I/O as the kernel sees them: suspended, resized, holes punched."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import struct
import subprocess
import threading

import pytest

from fusecrypt.daemon.cli.own_engine import run_engine
from fusecrypt.dmcrypt.engine.messages import DeviceSpec, SegmentSpec, TargetKind
from fusecrypt.keystore.errors import AccessError, BusyError, ConfigError, EngineError
from tests.fuse.raw_session import unmount
from tests.fuse.test_engine_io import KEY, MIB, crypt, decipher, load_key
from tests.fuse.test_tree import raises
from tests.fuse.waiting import READ, SYNC, WRITE, start_waiting, wait_until_waiting
from tests.product import wait_for

pytestmark = [pytest.mark.root, pytest.mark.fuse]

KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 0x10
OFD_SETLK = 37


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (READ, signal.SIGKILL),  # no other signal ends the wait for a page
        (WRITE, signal.SIGKILL),
        (WRITE, signal.SIGINT),
        (SYNC, signal.SIGINT),
    ],
    ids=["read-KILL", "write-KILL", "write-INT", "sync-INT"],
)
def test_a_signal_ends_the_wait_for_a_suspended_device(mount, backing, code, number):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    mount.engine.suspend(2, wipe_keys=True)
    process = start_waiting(code, path)
    process.send_signal(number)
    assert process.wait(10) == -number
    process.stderr.close()
    mount.engine.rekey(2, 0, load_key(mount.engine))
    mount.engine.resume(2)
    assert len(path.read_bytes()) == MIB


def test_io_fails_at_once_where_that_is_wanted(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    before = os.pread(backing, MIB, 0)
    fd = os.open(path, os.O_RDWR)
    mount.engine.suspend(2, wipe_keys=True, fail_io=True)
    for action in (
        lambda: os.pread(fd, 10, 0),
        lambda: os.pwrite(fd, b"x", 0),
        lambda: os.fsync(fd),
    ):
        with raises(errno.EIO):
            action()
    assert os.pread(backing, MIB, 0) == before
    mount.engine.rekey(2, 0, load_key(mount.engine))
    mount.engine.resume(2)
    assert os.pread(fd, 4096, 0) == decipher("aes-xts-plain64", KEY, before[:4096], 512, 0)
    # And the next time it waits again.
    mount.engine.suspend(2)
    process = start_waiting(SYNC, path)
    mount.engine.resume(2)
    assert process.wait(10) == 0
    process.stderr.close()
    os.close(fd)


def test_more_than_the_kernel_lets_wait_elsewhere_does_not_stop_the_other_devices(mount, backing):
    """Direct I/O of 32 MiB is 128 requests of the kernel's own, which it counts."""
    size = 32 * MIB
    path, _ = mount.add(2, 512, (SegmentSpec(0, size, TargetKind.ZERO),), [])
    other, _ = mount.add(3, 512, (crypt(mount.engine, 4 * MIB),), [backing])
    mount.engine.suspend(2)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, size)
    got = []
    reader = threading.Thread(target=lambda: got.append(os.preadv(fd, [buffer], 0)))
    reader.start()
    wait_until_waiting(reader)
    seen = []
    other_reader = threading.Thread(target=lambda: seen.append(len(other.read_bytes())))
    other_reader.start()
    other_reader.join(10)
    assert seen == [4 * MIB]
    assert got == []
    mount.engine.resume(2)
    reader.join(10)
    assert got == [size]
    os.close(fd)


@pytest.mark.parametrize("end", ["remove", "terminate", "unmount"])
def test_nobody_waits_for_a_device_that_is_gone(mount, backing, end):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    mount.engine.suspend(2, wipe_keys=True)
    failures = []
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)

    def read():
        try:
            os.preadv(fd, [mmap.mmap(-1, 4096)], 0)
        except OSError as error:
            failures.append(error.errno)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until_waiting(reader)
    if end == "remove":
        mount.engine.remove_device(2)
    else:
        if end == "unmount":
            unmount(mount.path)  # lazily: it stays as long as the file is open
        mount.process.terminate()
        assert mount.process.wait(10) == 0
    reader.join(10)
    assert failures == [errno.EIO]
    with contextlib.suppress(OSError):  # the connection is gone
        os.close(fd)


def test_a_device_grows_and_shrinks_under_io(mount, backing, tmp_path):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB, backing_offset=MIB),), [backing])
    stop = threading.Event()
    failures = []
    places = (0, MIB - 4096)

    def work():
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
        buffer = mmap.mmap(-1, 4096)
        buffer.write(b"w" * 4096)
        while not stop.is_set():
            done = [(os.pwritev(fd, [buffer], at), os.preadv(fd, [buffer], at)) for at in places]
            failures.extend(pair for pair in done if pair != (4096, 4096))
        os.close(fd)

    worker = threading.Thread(target=work)
    worker.start()
    fd = os.open(path, os.O_RDONLY)
    for size in (3 * MIB, MIB + 512, 2 * MIB, MIB, 3 * MIB):
        mount.engine.resize(2, size)
        mount.sizes[2] = size
        mount.engine.invalidate(2)
        # A write that ends just then makes the kernel take the attributes for outdated.
        wait_for(lambda size=size: os.lseek(fd, 0, os.SEEK_END) == size, "the new size", 10)
        assert os.stat(path).st_size == size
        assert os.lseek(fd, 0, os.SEEK_HOLE) == size
        assert len(os.pread(fd, 1024, size - 512)) == 512
    stop.set()
    worker.join()
    assert failures == []
    clear = decipher("aes-xts-plain64", KEY, os.pread(backing, 3 * MIB, MIB), 512, 0)
    assert os.pread(fd, 3 * MIB, 0) == clear
    for size, error in ((3 * MIB + 512, AccessError), (100, ConfigError), (0, ConfigError)):
        with pytest.raises(error):
            mount.engine.resize(2, size)
    assert os.pread(fd, 4096, 3 * MIB - 4096) == clear[-4096:]
    os.truncate(tmp_path / "backing", 5 * MIB)
    mount.engine.resize(2, 4 * MIB)
    mount.engine.suspend(2)
    with pytest.raises(BusyError):
        mount.engine.resize(2, MIB)
    mount.engine.resume(2)
    os.close(fd)


def test_a_device_of_several_targets_keeps_its_size(mount, backing):
    parts = tuple(SegmentSpec(n * MIB, MIB, TargetKind.LINEAR) for n in range(2))
    path, _ = mount.add(2, 512, parts, [backing])
    with pytest.raises(ConfigError, match="several targets"):
        mount.engine.resize(2, MIB)
    assert path.stat().st_size == 2 * MIB


def lock(kind, start, length):
    return struct.pack("hhqqi4x", kind, 0, start, length, 0)


def test_the_lock_of_the_data_area_follows_its_size(mount, backing, tmp_path):
    fcntl.fcntl(backing, OFD_SETLK, lock(fcntl.F_WRLCK, MIB, MIB))
    mount.add(2, 512, (crypt(mount.engine, MIB, backing_offset=MIB),), [backing])
    other = os.open(tmp_path / "backing", os.O_RDWR)
    fcntl.fcntl(other, OFD_SETLK, lock(fcntl.F_WRLCK, 3 * MIB, MIB))
    with pytest.raises(BusyError):
        mount.engine.resize(2, 3 * MIB)
    mount.engine.resize(2, 2 * MIB)
    with pytest.raises(BlockingIOError):
        fcntl.fcntl(other, OFD_SETLK, lock(fcntl.F_WRLCK, 3 * MIB - 1, 1))
    mount.engine.resize(2, MIB // 2)
    fcntl.fcntl(other, OFD_SETLK, lock(fcntl.F_WRLCK, MIB + MIB // 2, 2 * MIB))
    os.close(other)


def test_an_engine_that_serves_a_mount_hands_its_daemon_no_plaintext(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    with pytest.raises(EngineError, match="not permitted"):
        mount.engine.read(2, 0, 512)
    with run_engine() as engine:
        segment = crypt(engine, MIB)
        engine.add_device(DeviceSpec(2, MIB, 512, read_only=True, segments=(segment,)), [backing])
        assert engine.read(2, 100, 8192) == path.read_bytes()[100:8292]
        assert engine.read(2, MIB - 10, 512) == path.read_bytes()[-10:]
        with pytest.raises(EngineError, match="Invalid"):
            engine.read(2, 0, 8193)
        with pytest.raises(EngineError, match="No such device"):
            engine.read(3, 0, 512)


def fallocate(fd, mode, offset, length):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_hole_is_punched_where_that_is_allowed_and_is_read_as_zeros(mount, backing, sector_size):
    path, _ = mount.add(2, sector_size, (crypt(mount.engine, 4 * MIB),), [backing], discards=True)
    before = os.fstat(backing).st_blocks
    with path.open("r+b", buffering=0) as device:
        fd = device.fileno()
        model = bytearray(device.read())
        start, length = 5000, 2 * MIB + 777
        fallocate(fd, KEEP_SIZE | PUNCH_HOLE, start, length)
        model[start : start + length] = bytes(length)
        assert os.pread(fd, 4 * MIB, 0) == model
        assert before * 512 - os.fstat(backing).st_blocks * 512 >= 2 * MIB - 2 * 4096
        # Within one sector, and of none.
        fallocate(fd, KEEP_SIZE | PUNCH_HOLE, 3 * MIB + 100, 50)
        model[3 * MIB + 100 : 3 * MIB + 150] = bytes(50)
        # Into the hole, over sectors in part.
        os.pwrite(fd, b"new" * 3000, MIB + 77)
        model[MIB + 77 : MIB + 77 + 9000] = b"new" * 3000
        # What is told to be zeros is zeros for the kernel's dm-crypt, too.
        fallocate(fd, KEEP_SIZE | ZERO_RANGE, 3 * MIB + MIB // 2, 8192)
        model[3 * MIB + MIB // 2 : 3 * MIB + MIB // 2 + 8192] = bytes(8192)
        os.fsync(fd)
    mount.engine.invalidate(2)
    assert path.read_bytes() == model
    on_disk = os.pread(backing, 4 * MIB, 0)
    clear = decipher("aes-xts-plain64", KEY, on_disk, sector_size, 0)
    assert on_disk[8192 : MIB - 4096] == bytes(MIB - 4096 - 8192)
    assert clear[3 * MIB :] == model[3 * MIB :]
    assert clear[MIB + 4096 : MIB + 8192] == model[MIB + 4096 : MIB + 8192]


def test_a_backing_store_without_holes_says_so(mount, tmp_path):
    (tmp_path / "on").mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "ramfs", tmp_path / "on"], check=False).returncode:
        pytest.skip("no ramfs here")
    try:
        (tmp_path / "on/backing").write_bytes(bytes(MIB))
        fd = os.open(tmp_path / "on/backing", os.O_RDWR)
        path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [fd], discards=True)
        os.close(fd)
        with path.open("r+b", buffering=0) as device:
            with raises(errno.EOPNOTSUPP):
                fallocate(device.fileno(), KEEP_SIZE | PUNCH_HOLE, 0, 4096)
            fallocate(device.fileno(), KEEP_SIZE | ZERO_RANGE, 0, 4096)
            assert device.read(4096) == bytes(4096)
        mount.engine.remove_device(2)
    finally:
        subprocess.run(["umount", "-l", tmp_path / "on"], check=True)


def test_reads_of_parked_pages_are_seen_by_all_who_wait(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    mount.engine.suspend(2)
    waiting = [start_waiting(READ, path) for _ in range(3)]
    waiting[0].kill()
    assert waiting[0].wait(10) == -signal.SIGKILL
    mount.engine.resume(2)
    assert [process.wait(10) for process in waiting[1:]] == [0, 0]
    for process in waiting:
        process.stderr.close()
    wait_for(lambda: len(path.read_bytes()) == MIB, "all pages", 10)
