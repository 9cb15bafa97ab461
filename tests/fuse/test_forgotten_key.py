"""Devices whose key the engine forgets, and gets again when somebody wants their data."""

import errno
import mmap
import os
import subprocess
import sys
import threading

import pytest

from fusecrypt.dmcrypt.engine.messages import EventKind, PkeyType, SegmentSpec, TargetKind
from fusecrypt.keystore.errors import BusyError, EngineError, ProtectedKeyExpiredError
from fusecrypt.keystore.transport import seal
from tests.fuse.test_engine_io import KEY, MIB, crypt, decipher, load_key
from tests.fuse.test_tree import raises
from tests.fuse.waiting import READ, SYNC, WRITE, start_waiting, wait_until_waiting
from tests.product import wait_for

pytestmark = [pytest.mark.root, pytest.mark.fuse]

CIPHER = "aes-xts-plain64"
PARKED_MAX = 512  # device_table.h


class Keeper:
    """Notes which devices want a key."""

    def __init__(self, engine):
        self.wanted = []
        engine.set_event_handler(self.note)

    def note(self, event):
        assert event.kind is EventKind.KEY_WANTED
        self.wanted.append(event.node)


@pytest.fixture
def mount(mount):
    mount.keeper = Keeper(mount.engine)
    return mount


def send_key(engine, key=KEY):
    """As a coprocessor sends it."""
    return engine.import_key(seal(bytearray(key), engine.hello.public_key))


def sent_segment(engine):
    return SegmentSpec(0, MIB, TargetKind.CRYPT, cipher=CIPHER, key=send_key(engine))


def read_direct(fd):
    """A page from the engine, not from the kernel's cache."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(fd, 4096, 0)


@pytest.mark.parametrize("code", [READ, WRITE, SYNC], ids=["read", "write", "sync"])
@pytest.mark.parametrize("how", ["forget", "bump"])
def test_the_first_io_asks_for_the_key_and_waits(mount, backing, how, code):
    engine = mount.engine
    path, _ = mount.add(2, 512, (sent_segment(engine),), [backing])
    with path.open("rb", buffering=0) as device:
        device.read(4096)
    engine.invalidate(2)
    if how == "forget":
        engine.forget_key(2)
        engine.forget_key(2)  # of one without a key nothing happens
    else:
        engine.bump_session()
    assert mount.keeper.wanted == []
    process = start_waiting(code, path)
    wait_for(lambda: mount.keeper.wanted, "asked")
    other = start_waiting(READ.replace("4096, 0)", "4096, 65536)"), path)
    assert mount.keeper.wanted == [2]
    assert engine.renew_key(2, 0, send_key(engine))
    assert [process.wait(10), other.wait(10)] == [0, 0]
    assert not engine.renew_key(2, 0, send_key(engine))
    stored = os.pread(backing, MIB, 0)
    assert path.read_bytes() == decipher(CIPHER, KEY, stored, 512, 0)
    process.stderr.close()
    other.stderr.close()


def test_without_a_key_io_fails_for_a_while_and_then_asks_again(mount, backing):
    engine = mount.engine
    path, _ = mount.add(2, 512, (sent_segment(engine),), [backing])
    engine.forget_key(2)
    process = start_waiting(READ, path)
    engine.deny_key(2, milliseconds=500)
    assert process.wait(10) == 1
    assert b"Input/output error" in process.stderr.read()
    process.stderr.close()
    with raises(errno.EIO):
        path.read_bytes()
    assert mount.keeper.wanted == [2]
    got = []

    def read():
        while not got:
            try:
                got.append(path.read_bytes())
            except OSError as error:
                assert error.errno == errno.EIO  # noqa: PT017 (in a thread)

    reader = threading.Thread(target=read)
    reader.start()
    wait_for(lambda: mount.keeper.wanted == [2, 2], "asked again")
    engine.renew_key(2, 0, send_key(engine))
    reader.join(10)
    assert len(got[0]) == MIB


def test_a_bump_leaves_clear_keys_and_ends_random_ones(mount, backing):
    engine = mount.engine
    clear, _ = mount.add(2, 512, (crypt(engine, MIB),), [backing])
    token = engine.make_pkey_token(PkeyType.AES_XTS_256)
    protected = engine.export_key(load_key(engine, token, xts=False)).protected
    random, _ = mount.add(
        3, 512, (SegmentSpec(0, MIB, TargetKind.CRYPT, cipher=CIPHER, key=protected,
                             backing_offset=2 * MIB),), [backing],
    )  # fmt: skip
    held = os.open(clear, os.O_RDWR)
    assert len(random.read_bytes()) == MIB
    engine.invalidate(3)
    expired = load_key(engine)
    for _ in range(3):
        engine.bump_session()
        assert read_direct(held) == decipher(CIPHER, KEY, os.pread(backing, 4096, 0), 512, 0)
    with raises(errno.EIO):
        random.read_bytes()
    assert mount.keeper.wanted == []
    # The key of the one is shown as before, the token being of the new session.
    reader, writer = os.pipe()
    engine.show_key(2, 0, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == KEY.hex().encode()
    os.close(held)
    with pytest.raises(ProtectedKeyExpiredError, match="another session"):
        mount.add(4, 512, (SegmentSpec(0, MIB, TargetKind.CRYPT, cipher=CIPHER, key=expired,
                                       backing_offset=3 * MIB),), [backing])  # fmt: skip


def test_only_a_key_that_was_sent_is_forgotten(mount, backing):
    engine = mount.engine
    path, _ = mount.add(2, 512, (crypt(engine, MIB),), [backing])
    with pytest.raises(EngineError, match="Invalid argument"):
        engine.forget_key(2)
    engine.suspend(2)
    with pytest.raises(BusyError):
        engine.forget_key(2)
    engine.resume(2)
    assert len(path.read_bytes()) == MIB


def test_all_that_is_under_way_waits_for_a_key(mount, backing):
    """More than may wait for a suspended device: for a key it is not for long."""
    engine = mount.engine
    path, _ = mount.add(2, 512, (sent_segment(engine),), [backing])
    engine.forget_key(2)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    got = []

    def read():
        with mmap.mmap(-1, 4096) as page:
            try:
                got.append(os.preadv(fd, [page], 0))
            except OSError as error:
                got.append(error)

    readers = [threading.Thread(target=read) for _ in range(PARKED_MAX + 88)]
    for reader in readers:
        reader.start()
    wait_until_waiting(*readers)
    assert got == []
    assert engine.renew_key(2, 0, send_key(engine))
    for reader in readers:
        reader.join(10)
    assert got == [4096] * len(readers)
    os.close(fd)


def test_a_suspended_device_waits_for_its_user_and_for_no_daemon(mount, backing):
    engine = mount.engine
    path, _ = mount.add(2, 512, (sent_segment(engine),), [backing])
    engine.forget_key(2)
    process = start_waiting(READ, path)
    engine.suspend(2, wipe_keys=True)
    assert not engine.renew_key(2, 0, send_key(engine))
    assert process.poll() is None
    # Given back before the session ends, but not resumed: that key is void, too.
    engine.rekey(2, 0, send_key(engine))
    engine.bump_session()
    with pytest.raises(EngineError, match="Required key not available"):
        engine.resume(2)
    engine.rekey(2, 0, send_key(engine))
    engine.resume(2)
    assert process.wait(10) == 0
    process.stderr.close()
    assert mount.keeper.wanted == [2]


def test_nobody_waits_for_a_key_when_the_daemon_is_gone(mount, backing):
    engine = mount.engine
    path, _ = mount.add(2, 512, (sent_segment(engine),), [backing])
    engine.forget_key(2)
    process = start_waiting(READ, path)
    engine.close()
    assert process.wait(10) == 1
    assert b"Input/output error" in process.stderr.read()
    process.stderr.close()
    late = subprocess.run(
        [sys.executable, "-I", "-c", f"import os, sys\n{READ}", path],
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert b"Input/output error" in late.stderr
