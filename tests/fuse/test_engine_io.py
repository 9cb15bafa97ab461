"""The engine's data path on a real mount, against a model in memory and another AES."""

import errno
import fcntl
import hashlib
import mmap
import os
import random
import threading

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fusecrypt.dmcrypt.engine.messages import DeviceSpec, SegmentSpec, TargetKind
from fusecrypt.keystore.errors import EngineError, UnlockError, UnsupportedError
from tests.fuse.raw_session import raw_mount, unmount

pytestmark = [pytest.mark.root, pytest.mark.fuse]

KEY = hashlib.sha512(b"a key for tests").digest()
MIB = 1 << 20


def load_key(engine, key=KEY, *, xts=True):
    reader, writer = os.pipe()
    os.write(writer, key)
    os.close(writer)
    try:
        return engine.load_key(reader, len(key), xts=xts)
    finally:
        os.close(reader)


def crypt(engine, length, cipher="aes-xts-plain64", key=KEY, **fields):
    token = load_key(engine, key, xts="xts" in cipher)
    return SegmentSpec(
        fields.pop("start", 0), length, TargetKind.CRYPT, cipher=cipher, key=token, **fields
    )


def iv_for(cipher, sector, key):
    """dm-crypt's IV for a sector number, from its documentation and published definitions."""
    name = cipher.split("-")[2]
    if name == "plain":
        return (sector & 0xFFFFFFFF).to_bytes(16, "little")
    if name == "plain64":
        return sector.to_bytes(16, "little")
    if name == "plain64be":
        return sector.to_bytes(16, "big")
    assert name == "essiv:sha256"
    salt = hashlib.sha256(key).digest()
    ecb = Cipher(algorithms.AES(salt), modes.ECB()).encryptor()
    return ecb.update(sector.to_bytes(16, "little"))


def decipher(cipher, key, data, sector_size, first_sector, *, large=False):
    """What `cryptography` makes of ciphertext; ``first_sector`` in 512-byte sectors."""
    out = []
    for at in range(0, len(data), sector_size):
        sector = first_sector + at // 512
        number = sector // (sector_size // 512) if large else sector
        iv = iv_for(cipher, number, key)
        mode = modes.XTS(iv) if "-xts-" in cipher else modes.CBC(iv)
        out.append(
            Cipher(algorithms.AES(key), mode).decryptor().update(data[at : at + sector_size])
        )
    return b"".join(out)


@pytest.mark.parametrize("sector_size", [512, 1024, 2048, 4096])
@pytest.mark.parametrize(
    ("cipher", "key_size"),
    [
        ("aes-xts-plain64", 64),
        ("aes-xts-plain64", 32),
        ("aes-cbc-essiv:sha256", 32),
        ("aes-cbc-plain64", 16),
        ("aes-cbc-plain64be", 32),
        ("aes-cbc-plain", 24),
        ("aes-xts-plain64be", 64),
    ],
)
def test_what_is_written_anywhere_is_what_dm_crypt_would_have_on_disk(
    mount, backing, cipher, key_size, sector_size
):
    length, offset, iv_offset = MIB, 8192, (1 << 32) - 24
    key = KEY[:key_size]
    segment = crypt(mount.engine, length, cipher, key, backing_offset=offset, iv_offset=iv_offset)
    path, _ = mount.add(2, sector_size, (segment,), [backing])
    before = os.pread(backing, 4 * MIB, 0)
    model = bytearray(
        decipher(cipher, key, before[offset : offset + length], sector_size, iv_offset)
    )
    chance = random.Random(f"{cipher} {sector_size}")
    with path.open("r+b", buffering=0) as device:
        assert device.read() == model
        for _ in range(60):
            at = chance.randrange(length)
            data = chance.randbytes(min(chance.choice([1, 7, 511, 513, 4096, 70001]), length - at))
            os.pwrite(device.fileno(), data, at)
            model[at : at + len(data)] = data
            start = chance.randrange(length)
            size = chance.choice([1, 100, 4096, 200000])
            assert os.pread(device.fileno(), size, start) == model[start : start + size]
        os.fsync(device.fileno())
    after = os.pread(backing, 4 * MIB, 0)
    assert decipher(cipher, key, after[offset : offset + length], sector_size, iv_offset) == model
    assert after[:offset] == before[:offset]
    assert after[offset + length :] == before[offset + length :]


def test_large_iv_sectors_count_in_units_of_the_sector_size(mount, backing):
    segment = crypt(mount.engine, MIB, iv_offset=80, iv_large_sectors=True)
    path, _ = mount.add(2, 4096, (segment,), [backing])
    wanted = decipher("aes-xts-plain64", KEY, os.pread(backing, MIB, 0), 4096, 80, large=True)
    assert path.read_bytes() == wanted


def test_segments_of_all_kinds_meet_in_one_device(mount, backing):
    k = 64 << 10
    segments = (
        SegmentSpec(0, k, TargetKind.LINEAR, backing_offset=MIB),
        crypt(mount.engine, k, start=k, backing_offset=2 * MIB, iv_offset=5),
        SegmentSpec(2 * k, k, TargetKind.ZERO),
        SegmentSpec(3 * k, k, TargetKind.ERROR),
    )
    path, _ = mount.add(2, 512, segments, [backing])
    clear = os.pread(backing, k, MIB) + decipher(
        "aes-xts-plain64", KEY, os.pread(backing, k, 2 * MIB), 512, 5
    )
    with path.open("r+b", buffering=0) as device:
        assert os.pread(device.fileno(), 3 * k, 0) == clear + bytes(k)
        with pytest.raises(OSError, match="Input/output") as caught:
            os.pread(device.fileno(), 1, 3 * k)
        assert caught.value.errno == errno.EIO
        os.pwrite(device.fileno(), b"\xaa" * 2000, k - 1000)
        assert os.pread(device.fileno(), 2002, k - 1001) == (
            clear[k - 1001 : k - 1000] + b"\xaa" * 2000 + clear[k + 1000 : k + 1001]
        )


def test_parallel_writers_inside_one_sector_do_not_lose_each_others_bytes(mount, backing):
    path, _ = mount.add(2, 4096, (crypt(mount.engine, MIB),), [backing])

    def write(lane):
        fd = os.open(path, os.O_RDWR)
        for turn in range(200):
            os.pwrite(fd, bytes([turn]), 4096 * 3 + lane)
        os.close(fd)

    lanes = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    with path.open("rb") as device:
        device.seek(4096 * 3)
        assert device.read(8) == bytes([199]) * 8


def test_direct_requests_may_be_a_sector_or_a_mebibyte(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, 4 * MIB),), [backing])
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 2 * MIB)
    wanted = decipher("aes-xts-plain64", KEY, os.pread(backing, 4 * MIB, 0), 512, 0)
    for size, at in [(512, 512), (4096, 3 * 4096), (MIB, MIB), (2 * MIB, 512 * 3)]:
        view = memoryview(buffer)[:size]
        assert os.preadv(fd, [view], at) == size
        assert view == wanted[at : at + size]
    os.close(fd)


def test_zeroing_and_punching_write_enciphered_zeros(mount, backing):
    path, slot = mount.add(2, 512, (crypt(mount.engine, 4 * MIB),), [backing])
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    keep, punch, zero, collapse = 1, 2, 0x10, 8
    with path.open("r+b", buffering=0) as device:
        fd = device.fileno()
        fallocate = lambda mode, at, n: libc.fallocate(  # noqa: E731
            fd, mode, ctypes.c_long(at), ctypes.c_long(n)
        )
        assert fallocate(keep | punch, 1000, 2 * MIB + 7) == 0
        assert os.pread(fd, 2 * MIB + 7, 1000) == bytes(2 * MIB + 7)
        assert fallocate(keep | zero, 3 * MIB, 4096) == 0
        assert fallocate(0, 0, 4 * MIB) == 0
        assert fallocate(collapse, 0, 4096) == -1
        assert ctypes.get_errno() == errno.EOPNOTSUPP
        assert fallocate(keep | punch, 4 * MIB - 10, 20) == -1
    clear = decipher("aes-xts-plain64", KEY, os.pread(backing, 4 * MIB, 0), 512, 0)
    assert clear[1000 : 2 * MIB + 1007] == bytes(2 * MIB + 7)
    assert clear[3 * MIB : 3 * MIB + 4096] == bytes(4096)
    assert mount.engine.stats(slot).zeroed_bytes == 2 * MIB + 7 + 4096


def test_the_end_of_a_device_is_an_end(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    with path.open("r+b", buffering=0) as device:
        fd = device.fileno()
        assert os.pwrite(fd, b"x" * 10, MIB - 4) == 4
        with pytest.raises(OSError, match="No space"):
            os.pwrite(fd, b"x", MIB)
        assert os.pread(fd, 10, MIB - 4) == b"xxxx"
        assert os.pread(fd, 10, MIB) == b""
        assert os.lseek(fd, 100, os.SEEK_DATA) == 100
        assert os.lseek(fd, 100, os.SEEK_HOLE) == MIB
        with pytest.raises(OSError, match="No such device or address"):
            os.lseek(fd, MIB, os.SEEK_DATA)


def test_a_backing_file_that_shrank_gives_errors_and_is_not_grown(mount, backing, tmp_path):
    path, slot = mount.add(2, 512, (crypt(mount.engine, 4 * MIB),), [backing])
    os.truncate(tmp_path / "backing", MIB)
    with path.open("r+b", buffering=0) as device:
        fd = device.fileno()
        assert len(os.pread(fd, 4096, 0)) == 4096
        for at in (MIB, 2 * MIB):
            with pytest.raises(OSError, match="Input/output"):
                os.pread(fd, 512, at)
        with pytest.raises(OSError, match="Input/output"):
            os.pwrite(fd, bytes(512), 2 * MIB)
        with pytest.raises(OSError, match="Input/output"):
            os.fsync(fd)
        os.fsync(fd)  # told once: nothing else was lost
    assert (tmp_path / "backing").stat().st_size == MIB
    assert mount.engine.stats(slot).errors >= 3


def test_a_write_to_a_file_without_a_name_is_refused(mount, backing, tmp_path):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    (tmp_path / "backing").unlink()
    with path.open("r+b", buffering=0) as device:
        assert len(device.read(4096)) == 4096
        with pytest.raises(OSError, match="Input/output"):
            device.write(b"x")
        with pytest.raises(OSError, match="Input/output"):
            os.fsync(device.fileno())


def test_a_read_only_device_refuses_writes_itself(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing], read_only=True)
    before = os.pread(backing, MIB, 0)
    with path.open("r+b", buffering=0) as device, pytest.raises(OSError, match="Read-only"):
        device.write(b"x")
    assert os.pread(backing, MIB, 0) == before


def test_suspended_io_waits_and_goes_on_with_a_new_key(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    engine = mount.engine
    engine.suspend(2, wipe_keys=True)
    got = []
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 4096)
    reader = threading.Thread(target=lambda: got.append(os.preadv(fd, [buffer], 0)))
    reader.start()
    with pytest.raises(EngineError, match="Required key not available"):
        engine.resume(2)
    with pytest.raises(EngineError, match="already"):
        engine.suspend(2)
    assert got == []
    engine.rekey(2, 0, load_key(engine))
    engine.resume(2)
    reader.join(10)
    assert got == [4096]
    assert buffer[:] == decipher("aes-xts-plain64", KEY, os.pread(backing, 4096, 0), 512, 0)
    os.close(fd)


def test_a_suspended_device_takes_a_new_table_of_its_size_only(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    moved = SegmentSpec(0, MIB, TargetKind.LINEAR, backing_offset=MIB)
    mount.engine.suspend(2)
    longer = SegmentSpec(0, 2 * MIB, TargetKind.LINEAR)
    with pytest.raises(EngineError, match="table"):
        mount.engine.load_table(DeviceSpec(2, 2 * MIB, 512, False, (longer,)), [backing])
    mount.engine.load_table(DeviceSpec(2, MIB, 512, False, (moved,)), [backing])
    mount.engine.resume(2)
    mount.engine.invalidate(2)
    assert path.read_bytes() == os.pread(backing, MIB, MIB)


def test_a_removed_device_gives_errors_and_its_pages_are_dropped(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    with path.open("rb", buffering=0) as device:
        assert len(device.read()) == MIB
        mount.engine.remove_device(2)
        mount.engine.invalidate(2, [(1, b"2")])
        with pytest.raises(OSError, match=r"Function not implemented|Input/output"):
            os.pread(device.fileno(), 4096, 0)
        with pytest.raises(EngineError, match="No such device"):
            mount.engine.remove_device(2)


@pytest.mark.parametrize(
    ("segments", "size", "sector_size"),
    [
        ([(0, 512)], 1024, 512),  # does not fill the device
        ([(0, 1024), (512, 512)], 1536, 512),  # overlaps
        ([(512, 1024)], 1536, 512),  # does not begin at 0
        ([(0, 1536)], 1536, 1024),  # no whole sectors
        ([(0, 1024)], 1024, 8192),
        ([(0, 1024)], 1024, 100),
        ([(0, 1 << 63), (1 << 63, 1 << 63)], 0, 512),
    ],
)
def test_a_table_that_cannot_be_is_refused(mount, backing, segments, size, sector_size):
    specs = tuple(SegmentSpec(start, length, TargetKind.LINEAR) for start, length in segments)
    with pytest.raises(EngineError, match="table"):
        mount.engine.add_device(DeviceSpec(2, size, sector_size, False, specs), [backing])


def test_keys_and_ciphers_that_do_not_fit_are_named(mount, backing):
    engine = mount.engine
    with pytest.raises(UnlockError, match="two halves"):
        load_key(engine, KEY[:32] * 2)
    empty = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(UnlockError, match="wanted 64"):
        engine.load_key(empty, 64, xts=True)
    os.close(empty)
    with pytest.raises(UnsupportedError, match="aes-foo-plain64"):
        mount.add(2, 512, (crypt(engine, MIB, "aes-foo-plain64"),), [backing])
    with pytest.raises(EngineError, match="do not fit"):
        mount.add(2, 512, (crypt(engine, MIB, "aes-cbc-plain64", KEY[:20]),), [backing])


def test_one_stuck_backing_store_does_not_stop_the_other_volumes(mount, backing, tmp_path):
    """A second FUSE mount whose server stands still plays the dead network store."""
    with raw_mount(tmp_path / "slow", threads=2) as slow:
        stuck, _ = slow.add(3, 512, (SegmentSpec(0, MIB, TargetKind.LINEAR),), [backing])
        stuck_fd = os.open(stuck, os.O_RDWR)
        path, _ = mount.add(2, 512, (SegmentSpec(0, MIB, TargetKind.LINEAR),), [stuck_fd])
        other, _ = mount.add(4, 512, (crypt(mount.engine, MIB),), [backing])
        slow.engine.suspend(3)
        waiting = [
            threading.Thread(
                target=lambda n=n: path.open("rb", buffering=0).close() or _read(path, n)
            )
            for n in range(mount.engine.hello.io_threads)
        ]
        for thread in waiting:
            thread.start()
        wanted = decipher("aes-xts-plain64", KEY, os.pread(backing, MIB, 0), 512, 0)
        assert other.read_bytes() == wanted
        slow.engine.resume(3)
        for thread in waiting:
            thread.join()
        os.close(stuck_fd)


def _read(path, part):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 4096)
    os.preadv(fd, [buffer], part * 4096)
    os.close(fd)


def test_data_is_served_after_the_daemon_is_gone(mount, backing):
    path, _ = mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    with path.open("r+b", buffering=0) as device:
        mount.session.shutdown(2)
        os.pwrite(device.fileno(), b"still here", 1000)
        os.fsync(device.fileno())
        with pytest.raises(OSError, match="Input/output"):
            (path.parent / "other").stat()
        assert os.pread(device.fileno(), 10, 1000) == b"still here"
    clear = decipher("aes-xts-plain64", KEY, os.pread(backing, 4096, 0), 512, 0)
    assert clear[1000:1010] == b"still here"


def test_an_unmount_from_outside_is_told_to_the_daemon(mount, backing):
    told = threading.Event()
    mount.engine.set_event_handler(lambda _: told.set())
    mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    unmount(mount.path)
    assert told.wait(10)


def test_locks_taken_on_a_backing_file_live_as_long_as_its_device(mount, backing, tmp_path):
    import struct

    lock = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
    ofd_setlk = 37
    fcntl.fcntl(backing, ofd_setlk, lock)
    mount.add(2, 512, (crypt(mount.engine, MIB),), [backing])
    other = os.open(tmp_path / "backing", os.O_RDWR)
    os.close(os.dup(backing))
    with pytest.raises(BlockingIOError):
        fcntl.fcntl(other, ofd_setlk, lock)
    os.close(other)
