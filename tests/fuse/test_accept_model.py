"""A mapped device against a bytearray: random operations, and many writers inside one sector."""

import ctypes
import errno
import mmap
import os
import random
import subprocess
import sys

import pytest

from tests.lab import cryptsetup

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SIZE = 4 << 20
OPERATIONS = 400
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16
_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(fd, mode, offset, length):
    arguments = (ctypes.c_int(fd), ctypes.c_int(mode), ctypes.c_long(offset), ctypes.c_long(length))
    if _libc.fallocate(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Model:
    """A device and what it must hold."""

    def __init__(self, path, expected, seed):
        self.path = path
        self.expected = expected
        self.random = random.Random(seed)
        self.fd = os.open(path, os.O_RDWR)
        self.direct = os.open(path, os.O_RDWR | os.O_DIRECT)

    def close(self):
        os.close(self.fd)
        os.close(self.direct)

    def place(self, most, step=1):
        length = self.random.choice((1, 511, 513, 4095, 4097, self.random.randint(1, most)))
        length = max(step, length // step * step)
        offset = self.random.randrange(SIZE - length + 1) // step * step
        return offset, length

    def put(self, offset, data):
        self.expected[offset : offset + len(data)] = data

    def write(self):
        offset, length = self.place(300_000)
        data = self.random.randbytes(length)
        assert os.pwrite(self.fd, data, offset) == length
        self.put(offset, data)

    def write_direct(self):
        offset, length = self.place(1 << 21, 512)
        data = self.random.randbytes(length)
        with mmap.mmap(-1, length) as buffer:
            buffer[:] = data
            assert os.pwritev(self.direct, [buffer], offset) == length
        self.put(offset, data)

    def write_mapped(self):
        offset, length = self.place(100_000)
        data = self.random.randbytes(length)
        with mmap.mmap(self.fd, SIZE) as view:
            view[offset : offset + length] = data
            view.flush()
        self.put(offset, data)

    def punch(self):
        offset, length = self.place(200_000)
        fallocate(self.fd, FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE, offset, length)
        self.put(offset, bytes(length))

    def zero(self):
        offset, length = self.place(200_000)
        fallocate(self.fd, FALLOC_ZERO_RANGE, offset, length)
        self.put(offset, bytes(length))

    def read(self):
        offset, length = self.place(2 << 20)
        assert os.pread(self.fd, length, offset) == self.expected[offset : offset + length]

    def read_direct(self):
        offset, length = self.place(2 << 20, 512)
        with mmap.mmap(-1, length) as buffer:
            assert os.preadv(self.direct, [buffer], offset) == length
            assert buffer[:] == self.expected[offset : offset + length]

    def forget(self):
        os.fsync(self.fd)
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def step(self):
        kinds = (self.write, self.write_direct, self.write_mapped, self.punch, self.zero)
        self.random.choice((*kinds, self.read, self.read_direct, self.forget))()


@pytest.fixture(params=[512, 4096], ids=lambda size: f"sector{size}")
def volume(request, instance):
    key = instance.write_file("key", b"passphrase")
    image = cryptsetup.luks_format(
        instance.directory / "image", key, 524288 + SIZE, "--sector-size", str(request.param)
    )
    instance.start(f"v {image} {key} luks")
    return instance, image, key


def test_random_operations_agree_with_a_bytearray_and_with_the_real_cryptsetup(volume):
    instance, image, key = volume
    seed = random.SystemRandom().randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")
    expected = bytearray(instance.device("v").read_bytes())
    model = Model(instance.device("v"), expected, seed)
    try:
        for _ in range(OPERATIONS):
            try:
                model.step()
            except OSError as error:
                # A plain refusal of zeroing is allowed; a wrong result is not.
                if error.errno != errno.EOPNOTSUPP:
                    raise
        assert os.pread(model.fd, SIZE, 0) == expected
    finally:
        model.close()
    assert instance.stop() == 0
    assert cryptsetup.decrypt(image, key) == expected


STRIPES = """
import os, random, sys
path, number, count, width, size = sys.argv[1], *map(int, sys.argv[2:])
fd = os.open(path, os.O_RDWR)
places = list(range(number * width, size - width + 1, count * width))
random.Random(number).shuffle(places)
for offset in places:
    data = bytes([number + 1]) * width
    assert os.pwrite(fd, data, offset) == width
os.fsync(fd)
"""


@pytest.mark.parametrize("width", [97, 512, 1000])
def test_writers_inside_the_same_sectors_lose_nothing_of_each_other(volume, width):
    instance, image, key = volume
    count, size = 4, 400_000
    before = bytearray(instance.device("v").read_bytes())
    writers = [
        subprocess.Popen(
            [sys.executable, "-I", "-c", STRIPES, instance.device("v")]
            + [str(value) for value in (number, count, width, size)]
        )
        for number in range(count)
    ]
    assert [writer.wait() for writer in writers] == [0] * count
    for number in range(count):
        for offset in range(number * width, size - width + 1, count * width):
            before[offset : offset + width] = bytes([number + 1]) * width
    assert instance.device("v").read_bytes() == before
    assert instance.stop() == 0
    assert cryptsetup.decrypt(image, key) == before


def test_the_end_of_the_device(volume):
    instance, _image, _key = volume
    device = instance.device("v")
    fd = os.open(device, os.O_RDWR)
    try:
        assert os.pwrite(fd, b"x" * 100, SIZE - 50) == 50
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            os.pwrite(fd, b"x", SIZE)
        assert os.pread(fd, 100, SIZE - 50) == b"x" * 50
        assert os.pread(fd, 100, SIZE) == b""
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            os.ftruncate(fd, SIZE // 2)
        assert os.lseek(fd, 0, os.SEEK_END) == SIZE
    finally:
        os.close(fd)
    # O_TRUNC, as a shell's redirection has it, changes no size.
    with device.open("wb") as file:
        file.write(b"start")
    assert device.stat().st_size == SIZE
    assert device.read_bytes()[:5] == b"start"
    for refused in (device.unlink, lambda: (device.parent / "new").touch()):
        with pytest.raises(OSError, match=r"not permitted|denied"):
            refused()
    assert instance.stop() == 0
