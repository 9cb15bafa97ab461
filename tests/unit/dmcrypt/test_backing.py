import fcntl
import os

import pytest

from fusecrypt.dmcrypt.backing import get_size, locked, pread_from, pread_of, pwrite, sync
from fusecrypt.keystore.errors import AccessError, BusyError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(range(256)) * 4)
    fd = os.open(path, os.O_RDWR)
    yield path, fd
    os.close(fd)


def is_locked(path, kind):
    with path.open("rb") as other:
        try:
            fcntl.flock(other, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_bytes_are_read_up_to_the_end(file):
    pread = pread_from(file[1])
    assert pread(250, 10) == bytes(range(250, 256)) + bytes(range(4))
    assert pread(1020, 10) == bytes(range(252, 256))
    assert pread(5000, 10) == b""
    assert pread(0, 0) == b""
    assert pread_of(b"abc")(1, 5) == b"bc"
    assert get_size(file[1]) == 1024


def test_writes_land_where_they_should(file):
    pwrite(file[1], b"xyz", 2000)
    sync(file[1])
    assert file[0].read_bytes()[1998:] == b"\0\0xyz"


def test_what_cannot_be_read_or_written_is_an_access_error(tmp_path):
    reader, writer = os.pipe()
    try:
        with pytest.raises(AccessError, match="neither a regular file nor a block device"):
            get_size(reader)
        with pytest.raises(AccessError, match="reading byte 0"):
            pread_from(reader)(0, 10)
        with pytest.raises(AccessError, match="writing byte 5"):
            pwrite(writer, b"x", 5)
    finally:
        os.close(reader)
        os.close(writer)
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(AccessError):
        pread_from(directory)(0, 10)
    os.close(directory)


def test_exclusive_lock_keeps_everyone_out_and_shared_one_only_writers(file):
    path, fd = file
    with locked(fd, exclusive=True):
        assert is_locked(path, fcntl.LOCK_SH)
    with locked(fd, exclusive=False):
        assert is_locked(path, fcntl.LOCK_EX)
        assert not is_locked(path, fcntl.LOCK_SH)
    assert not is_locked(path, fcntl.LOCK_EX)


def test_lock_that_another_holds_is_waited_for_and_then_busy(file):
    path, fd = file
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with (
            pytest.raises(BusyError, match=r"locked by another process for 0\.1 s"),
            locked(fd, exclusive=False, timeout=0.1),
        ):
            pass
    with locked(fd, exclusive=True, timeout=0.1):
        pass


def test_lock_is_given_back_after_an_error(file):
    with pytest.raises(ZeroDivisionError), locked(file[1], exclusive=True):
        raise ZeroDivisionError
    assert not is_locked(file[0], fcntl.LOCK_EX)
