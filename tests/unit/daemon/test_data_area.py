"""Backing files: who may have one open, and how."""

import os

import pytest

from fusecrypt.daemon.backing import check_descriptor, get_data_area, lock_data_area
from fusecrypt.keystore.errors import AccessError, BusyError, NotFoundError


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(8192))
    return path


@pytest.fixture
def open_fd():
    fds = []

    def open_one(path, flags=os.O_RDWR):
        fds.append(os.open(path, flags))
        return fds[-1]

    yield open_one
    for fd in fds:
        os.close(fd)


def lock(fd, *, read_only=False, start=0, length=4096):
    lock_data_area(fd, get_data_area(fd, start, length, is_read_only=read_only), "image")


def test_a_second_writer_is_refused(image, open_fd):
    lock(open_fd(image))
    with pytest.raises(BusyError, match="image: is open already, in another process"):
        lock(open_fd(image))
    with pytest.raises(BusyError):
        lock(open_fd(image, os.O_RDONLY), read_only=True)
    lock(open_fd(image), start=4096)


def test_readers_share_and_keep_writers_out(image, open_fd):
    lock(open_fd(image, os.O_RDONLY), read_only=True)
    lock(open_fd(image, os.O_RDONLY), read_only=True)
    with pytest.raises(BusyError):
        lock(open_fd(image))


def test_the_lock_goes_with_the_description(image, open_fd):
    first = os.open(image, os.O_RDWR)
    lock(first)
    copy = os.dup(first)
    os.close(first)
    with pytest.raises(BusyError):
        lock(open_fd(image))
    os.close(copy)
    lock(open_fd(image))


def test_cryptsetups_flock_is_another_lock(image, open_fd):
    import fcntl

    fcntl.flock(open_fd(image), fcntl.LOCK_EX)
    lock(open_fd(image))


def test_a_descriptor_must_suit_its_use(image, open_fd, tmp_path):
    assert check_descriptor(open_fd(image), "image", is_read_only=False) == 8192
    assert check_descriptor(open_fd(image, os.O_RDONLY), "image", is_read_only=True) == 8192
    with pytest.raises(AccessError, match="image: not open for writing"):
        check_descriptor(open_fd(image, os.O_RDONLY), "image", is_read_only=False)
    with pytest.raises(AccessError, match="not open for reading"):
        check_descriptor(open_fd(image, os.O_WRONLY), "image", is_read_only=False)
    with pytest.raises(AccessError, match="not open for reading"):
        check_descriptor(open_fd(image, os.O_PATH), "image", is_read_only=True)
    for path, flags in ((tmp_path, os.O_RDONLY), ("/dev/null", os.O_RDWR)):
        with pytest.raises(NotFoundError, match="neither a regular file nor a block device"):
            check_descriptor(open_fd(path, flags), str(path), is_read_only=True)


def test_areas_conflict_where_they_overlap_and_one_writes(image, open_fd):
    fd = open_fd(image)
    low = get_data_area(fd, 0, 4096, is_read_only=False)
    high = get_data_area(fd, 4096, 4096, is_read_only=False)
    both = get_data_area(fd, 0, 8192, is_read_only=True)
    other = get_data_area(open_fd("/etc/passwd", os.O_RDONLY), 0, 8192, is_read_only=False)
    assert not low.conflicts(high)
    assert low.conflicts(both)
    assert both.conflicts(high)
    assert not both.conflicts(both)
    assert not low.conflicts(other)
