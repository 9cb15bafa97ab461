"""fusecrypt-mountd: what it opens and mounts for the daemon."""

import fcntl
import os
import select
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusecrypt.daemon.entry_files import close_entry_files
from fusecrypt.daemon.mountd import client
from fusecrypt.daemon.mountd.safe_path import find_path
from fusecrypt.dmcrypt.backing import locked
from fusecrypt.keystore.errors import BusyError, NotFoundError, PolicyError, UnsupportedError
from tests.product import wait_for
from tests.unit.daemon.mountd_server import DAEMON, STRANGER, Mountd, read_all, running_mountd

pytestmark = pytest.mark.root


@pytest.fixture
def mountd() -> Iterator[Mountd]:
    with running_mountd() as made:
        yield made


# --- files ---


def test_what_an_entry_names_is_opened_although_only_root_may_read_it(mountd):
    source = mountd.file("vol.img", content=b"source")
    header = mountd.file("head.img", content=b"header")
    key = mountd.file("vol.key", content=b"key")
    mountd.write_crypttab(f"vol {source} {key} header={header}")
    entry = mountd.call("entry", name="vol")
    assert entry.content == {
        "source": {"path": str(source), "locked": False},
        "header": {"path": str(header), "locked": False},
    }
    modes = [os.fstat(fd).st_mode for fd in entry.fds]
    assert all(map(stat.S_ISREG, modes))
    assert read_all(entry.fds) == [b"source", b"header"]
    found = mountd.call("key", name="vol")
    assert found.content == {"path": str(key)}
    assert read_all(found.fds) == [b"key"]


def test_a_read_only_entry_and_every_header_are_opened_for_reading(mountd):
    source, header = mountd.file("vol.img"), mountd.file("head.img")
    mountd.write_crypttab(
        f"ro {source} none read-only,header={header}", f"rw {source} none header={header}"
    )
    for name, writes in (("ro", False), ("rw", True)):
        answer = mountd.call("entry", name=name)
        assert bool(os.get_blocking(answer.fds[0]))
        for fd, may_write in zip(answer.fds, (writes, False), strict=True):
            if may_write:
                assert os.pwrite(fd, b"y", 0) == 1
            else:
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.pwrite(fd, b"y", 0)
            os.close(fd)


@pytest.fixture
def loop_device(mountd) -> Iterator[str]:
    command = ["losetup", "--find", "--show", mountd.file("disk.img", content=bytes(1 << 20))]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    device = made.stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def test_a_device_comes_with_cryptsetups_lock_and_is_nobody_elses(mountd, loop_device):
    mountd.write_crypttab(f"vol {loop_device} {loop_device}", f"two {loop_device} none read-only")
    entry = client.MountdFiles(mountd.socket).load().entries[0]
    recipe = client.MountdFiles(mountd.socket).open_entry(entry, own_device=0)
    assert recipe.source.lock_fd is not None
    number = os.stat(loop_device).st_rdev
    path = f"/run/cryptsetup/L_{os.major(number)}:{os.minor(number)}"
    assert os.readlink(f"/proc/self/fd/{recipe.source.lock_fd}") == path
    with locked(recipe.source.fd, exclusive=True, lock_fd=recipe.source.lock_fd):
        other = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(other)
    # Opened for writing it is taken, for the kernel's own use as well.
    with pytest.raises(BusyError, match="in use"):
        mountd.call("entry", name="vol")
    close_entry_files(recipe)
    Path(path).unlink()


def test_an_entry_that_is_not_in_the_crypttab_is_not_opened(mountd):
    mountd.file("other.img")
    with pytest.raises(NotFoundError, match="no such entry"):
        mountd.call("entry", name="other")
    with pytest.raises(NotFoundError, match="no such entry"):
        mountd.call("key", name=str(mountd.directory / "other.img"))


def test_the_crypttab_comes_as_descriptors_and_says_whose_lines_they_are(mountd):
    mountd.write_crypttab("a /x", "b /y")
    mountd.crypttab.chmod(0o600)
    crypttab = client.MountdFiles(mountd.socket).load()
    assert [entry.name for entry in crypttab.entries] == ["a", "b"]
    assert all(entry.is_ours for entry in crypttab.entries)


@pytest.mark.parametrize(("owner", "mode"), [(DAEMON, 0o600), (0, 0o660), (0, 0o602)])
def test_a_crypttab_that_others_can_change_is_not_used(mountd, owner, mode):
    source = mountd.file("vol.img")
    mountd.write_crypttab(f"vol {source}")
    os.chown(mountd.crypttab, owner, 0)
    mountd.crypttab.chmod(mode)
    crypttab = client.MountdFiles(mountd.socket).load()
    assert crypttab.entries == ()
    assert [p.is_error for p in crypttab.problems] == [True]
    assert "root's" in crypttab.problems[0].message
    with pytest.raises(NotFoundError):
        mountd.call("entry", name="vol")


def test_a_crypttab_is_read_again_at_each_request(mountd):
    first, second = mountd.file("1", content=b"1"), mountd.file("2", content=b"2")
    for source in (first, second):
        mountd.write_crypttab(f"vol {source}")
        assert read_all(mountd.call("entry", name="vol").fds) == [source.read_bytes()]


def test_a_user_cannot_put_a_link_to_what_is_not_his_in_the_place_of_a_file(mountd):
    secret = mountd.file("secret")
    place = mountd.directory / "his"
    place.mkdir()
    os.chown(place, STRANGER, STRANGER)
    (place / "vol.img").symlink_to(secret)
    os.chown(place / "vol.img", STRANGER, STRANGER, follow_symlinks=False)
    mountd.write_crypttab(f"vol {place}/vol.img {place}/vol.img")
    for call in ("entry", "key"):
        with pytest.raises(PolicyError, match="could have put it"):
            mountd.call(call, name="vol")
    # Nor what root owns, for it may have been linked or moved there.
    (place / "vol.img").unlink()
    os.link(secret, place / "vol.img")
    with pytest.raises(PolicyError, match="could have put it"):
        mountd.call("entry", name="vol")
    # His own he may have opened.
    own = mountd.file("his/own.img", STRANGER)
    (place / "vol.img").unlink()
    (place / "vol.img").symlink_to("own.img")
    os.chown(place / "vol.img", STRANGER, STRANGER, follow_symlinks=False)
    assert read_all(mountd.call("entry", name="vol").fds) == [own.read_bytes()[:100]]


def test_links_of_root_lead_anywhere(mountd):
    source = mountd.file("vol.img", STRANGER, b"his")
    (mountd.directory / "a").mkdir()
    (mountd.directory / "a" / "link").symlink_to("../b")
    (mountd.directory / "b").symlink_to(source)
    fd = find_path(f"{mountd.directory}/a/.//../a/link")
    assert os.fstat(fd).st_ino == source.stat().st_ino
    os.close(fd)
    (mountd.directory / "loop").symlink_to("loop")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Too many levels"):
        find_path(f"{mountd.directory}/loop")
    with pytest.raises(FileNotFoundError):
        find_path(f"{mountd.directory}/a/nothing")
    with pytest.raises(NotADirectoryError):
        find_path(f"{source}/below")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_fifo_does_not_stop_mountd_and_a_socket_is_refused(mountd):
    source = mountd.file("vol.img")
    fifo = mountd.directory / "fifo"
    os.mkfifo(fifo)
    mountd.write_crypttab(f"fifo {fifo} {fifo}", f"vol {source} {mountd.socket}")
    with pytest.raises(NotFoundError, match="neither a regular file nor a block device"):
        mountd.call("entry", name="fifo")
    with pytest.raises(UnsupportedError, match="socket"):
        mountd.call("key", name="vol")
    # Nobody writes to it, and the descriptor is there all the same; whoever reads it waits.
    found = mountd.call("key", name="fifo")
    assert os.get_blocking(found.fds[0])
    assert not select.select(found.fds, [], [], 0)[0]
    with fifo.open("wb") as writer:
        writer.write(b"key")
    assert os.read(found.fds[0], 10) == b"key"
    os.close(found.fds[0])


def test_the_daemons_own_files_are_not_looked_up(mountd):
    path = f"{mountd.run}/../run/dev/mapper/x"
    mountd.write_crypttab(f"a {path}", f"b {mountd.file('s')} {path}")
    for call, name in (("entry", "a"), ("key", "b")):
        with pytest.raises(UnsupportedError, match="of this daemon"):
            mountd.call(call, name=name)


def test_without_work_it_ends_when_nobody_is_connected(mountd):
    idle = TimeoutError()  # of accept(2)
    connection = client.Connection(mountd.socket)
    read_all(connection.call("crypttab", timeout=10).fds)
    assert not mountd.server._is_end(idle)
    connection.close()
    mountd.wait_idle()
    assert mountd.server._is_end(idle)


# --- the mount ---


def test_the_mount_is_the_daemons_and_goes_when_both_are_gone(mountd):
    connection = client.Connection(mountd.socket)
    answer = connection.call("mount", timeout=10, clones=3)
    fuse_fd, lifetime, *clones = answer.fds
    assert len(clones) == 3
    assert {os.readlink(f"/proc/self/fd/{fd}") for fd in (fuse_fd, *clones)} == {"/dev/fuse"}
    device = mountd.device()
    (line,) = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[2] == device
    ]  # fmt: skip
    fields = line.split()
    assert {"nosuid", "nodev"} <= set(fields[5].split(","))
    assert fields[-3:-1] == ["fuse.fusecrypt", "fusecrypt"]
    options = {"allow_other", "default_permissions", f"user_id={DAEMON}", f"group_id={DAEMON}"}
    assert options <= set(fields[-1].split(","))
    # The daemon goes; the engine still has its end.
    connection.close()
    assert mountd.call("crypttab").fds
    assert mountd.device() == device
    os.close(lifetime)
    wait_for(lambda: mountd.device() is None, "unmounted")
    for fd in (fuse_fd, *clones):
        os.close(fd)


def test_the_mount_goes_when_the_daemon_says_so(mountd):
    with client.open_mount(mountd.socket, 0) as made:
        assert mountd.device() is not None
        assert made.set_read_ahead() >= 0
        made.hand_over()
    assert mountd.device() is None


def test_a_new_mount_takes_the_place_of_one_left_behind(mountd):
    left = client.Connection(mountd.socket)
    fds = left.call("mount", timeout=10, clones=0).fds
    first = mountd.device()
    with client.open_mount(mountd.socket, 0):
        assert mountd.device() not in (None, first)
        # The guard of the first one finds its own gone, and leaves the other alone.
        for fd in fds:
            os.close(fd)
        left.close()
        assert mountd.device() is not None
    assert mountd.device() is None


def test_a_restarted_mountd_unmounts_what_an_earlier_one_mounted(mountd):
    connection = client.Connection(mountd.socket)
    fds = connection.call("mount", timeout=10, clones=0).fds
    mountd.call("unmount")
    assert mountd.device() is None
    for fd in fds:
        os.close(fd)
    connection.close()
