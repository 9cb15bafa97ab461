"""Secrets by descriptor, and the keys of plain volumes."""

import errno
import os
import random
import threading

import pytest

from tests.lab import golden
from tests.unit.engine.crypto_library import (
    ALL,
    LINE,
    arena_used,
    load_secret,
    make_plain_key,
    read_secret,
    refused,
    start,
)

RANDOM = random.Random(5)


def pipe_of(content):
    """A pipe's read end, fed by a thread."""
    read_end, write_end = os.pipe()

    def feed():
        with os.fdopen(write_end, "wb") as file:
            try:
                file.write(content)
            except BrokenPipeError:
                return

    threading.Thread(target=feed, daemon=True).start()
    return read_end


def file_of(content):
    fd = os.memfd_create("secret")
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


SOURCES = [pipe_of, file_of]


def read(source, content, mode, **how):
    fd = source(content)
    try:
        return read_secret(fd, mode, **how)
    finally:
        os.close(fd)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 32768, 300000])
def test_all_is_everything(source, size):
    content = RANDOM.randbytes(size)
    assert read(source, content, ALL) == content


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("offset", "size"), [(0, 10), (7, 0), (7, 10), (5000, 100), (9999, 1)])
def test_a_part_by_offset_and_size(source, offset, size):
    content = RANDOM.randbytes(10000)
    expected = content[offset : offset + size] if size else content[offset:]
    assert read(source, content, ALL, offset=offset, size=size) == expected


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", b""),
        (b"\n", b""),
        (b"pass", b"pass"),
        (b"pass\n", b"pass"),
        (b"pass\nword\n", b"pass"),
        (b"pass\r\n", b"pass\r"),
        (b"nul\0in it\n", b"nul\0in it"),
        (b"x" * 10000 + b"\n", b"x" * 10000),
    ],
)
def test_a_line_ends_at_the_first_newline(source, content, line):
    assert read(source, content, LINE) == line


@pytest.mark.parametrize("source", SOURCES)
def test_a_line_may_follow_an_offset(source):
    assert read(source, b"head" + b"line\nrest", LINE, offset=4) == b"line"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("offset", "size"), [(0, 11), (5, 6), (11, 1), (100, 1)])
def test_fewer_bytes_than_wanted_are_an_error(source, offset, size):
    fd = source(b"0123456789")
    try:
        with refused(errno.ENODATA):
            read_secret(fd, ALL, offset=offset, size=size)
    finally:
        os.close(fd)


@pytest.mark.parametrize("source", SOURCES)
def test_what_does_not_fit_the_arena_is_refused_by_name(source):
    fd = source(bytes(9 << 20))  # the arena's limit here is 8 MiB
    try:
        with refused(errno.ENOSPC):
            read_secret(fd, ALL)
    finally:
        os.close(fd)


def test_more_than_8_mib_are_refused_before_they_are_read():
    fd = file_of(b"")
    try:
        with refused(errno.EFBIG):
            read_secret(fd, ALL, size=(8 << 20) + 1)
    finally:
        os.close(fd)


def test_a_descriptor_that_cannot_be_read_is_an_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        with refused(errno.EBADF):
            load_secret(write_end, ALL)
    finally:
        os.close(write_end)


@pytest.mark.parametrize("mode", [0, 3, 2**32 - 1])
def test_another_mode_is_refused(mode):
    with refused(errno.EINVAL):
        load_secret(0, mode)


def test_a_line_with_a_size_is_refused():
    with refused(errno.EINVAL):
        load_secret(0, LINE, size=1)


def test_a_descriptor_that_does_not_block_is_waited_for():
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    timer = threading.Timer(0.05, lambda: (os.write(write_end, b"late\n"), os.close(write_end)))
    timer.start()
    try:
        assert read_secret(read_end, LINE) == b"late"
    finally:
        os.close(read_end)
        timer.join()


def test_pieces_that_come_slowly_make_one_line():
    read_end, write_end = os.pipe()

    def feed():
        for piece in (b"pa", b"ss", b"\nrest"):
            os.write(write_end, piece)

    threading.Thread(target=feed).start()
    try:
        assert read_secret(read_end, LINE) == b"pass"
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize(
    "name",
    [i["name"] for i in golden.images("opens") if i["type"] == "plain" and i["plain"]["hash"]],
)
def test_a_plain_volumes_key_is_cryptsetups(name):
    image = golden.find(name)
    passphrase = bytes.fromhex(image["unlock"][0]["secret_hex"])
    key = make_plain_key(passphrase, image["plain"]["key_bits"] // 8, image["plain"]["hash"])
    assert key.hex() == image["volume_key_hex"]


PASSPHRASE = b"correct horse battery staple"


def test_a_hash_length_of_its_own_is_the_same_as_in_the_name():
    assert make_plain_key(PASSPHRASE, 32, "ripemd160:16") == make_plain_key(
        PASSPHRASE, 32, "ripemd160", hash_length=16
    )


def test_a_hash_length_of_zero_in_the_name_gives_zeros():
    assert make_plain_key(PASSPHRASE, 32, "sha256:0") == bytes(32)


def test_no_hash_takes_the_secret_as_the_key():
    content = RANDOM.randbytes(100)
    assert make_plain_key(content, 64, "") == content[:64]


@pytest.mark.parametrize(
    ("secret", "size", "name", "length", "code"),
    [
        (b"k" * 31, 32, "", 0, errno.ENODATA),
        (b"", 32, "", 0, errno.ENODATA),
        (PASSPHRASE, 32, "sha257", 0, errno.EOPNOTSUPP),
        (PASSPHRASE, 32, "sha256:33", 0, errno.EINVAL),
        (PASSPHRASE, 32, "sha256", 33, errno.EINVAL),
        (PASSPHRASE, 32, "sha256:", 0, errno.EINVAL),
        (PASSPHRASE, 32, "sha256:-1", 0, errno.EINVAL),
        (PASSPHRASE, 32, "sha256:+1", 0, errno.EINVAL),
        (PASSPHRASE, 32, "sha256:1x", 0, errno.EINVAL),
        (PASSPHRASE, 32, "sha256:99999999999999999999", 0, errno.EINVAL),
        (PASSPHRASE, 32, "sha256:16", 16, errno.EINVAL),
        (PASSPHRASE, 32, "x" * 64, 0, errno.EINVAL),
        (PASSPHRASE, 0, "sha256", 0, errno.EINVAL),
        (PASSPHRASE, 2081, "sha256", 0, errno.EINVAL),
    ],
)
def test_bad_parameters_of_a_plain_key_are_refused(secret, size, name, length, code):
    with refused(code):
        make_plain_key(secret, size, name, hash_length=length)


@pytest.mark.parametrize("name", ["plain", "sha256:0"])
def test_an_xts_key_with_equal_halves_is_refused(name):
    with refused(errno.EKEYREJECTED):
        make_plain_key(b"", 64, name, xts=True)


def test_an_empty_passphrase_is_one():
    start()
    before = arena_used()
    assert make_plain_key(b"", 32, "sha256").hex().startswith("e3b0c44298fc1c14")
    assert make_plain_key(b"", 32, "plain") == bytes(32)
    assert arena_used() == before
