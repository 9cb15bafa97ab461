"""The mounted name space as programs see it: names, attributes, refusals."""

import errno
import os
import stat
import subprocess

import pytest

from tests.lab import cryptsetup
from tests.product import wait_for

pytestmark = pytest.mark.fuse

SIZE = 8 << 20
SECTOR = 4096


@pytest.fixture
def plain(instance):
    """A crypttab line of a plain volume of 8 MiB, with 4096-byte sectors."""
    return make_plain(instance, "v")


def make_plain(instance, name, *options):
    key = instance.write_file(f"{name}.key", os.urandom(64))
    image = instance.write_file(f"{name}.img", bytes(SIZE))
    words = ["plain", "cipher=aes-xts-plain64", "size=512", f"sector-size={SECTOR}", *options]
    return f"{name} {image} {key} {','.join(words)}"


def raises(number):
    return pytest.raises(OSError, match=rf"\[Errno {number}\]")


def test_names_are_links_of_one_device(instance):
    key = instance.write_file("key", b"passphrase")
    image = cryptsetup.luks_format(
        instance.directory / "image", key, SIZE + (16 << 20), "--label", "my label/x"
    )
    instance.start(f"v {image} {key} luks", make_plain(instance, "w"))
    dev = instance.runtime_dir / "dev"
    assert sorted(os.listdir(dev)) == ["disk", "dm-0", "dm-1", "mapper", "pkey"]
    assert sorted(os.listdir(dev / "mapper")) == ["v", "w"]
    status = instance.cli("status", "v", "--json").json
    minor = dev / os.path.basename(status["dm_path"])
    assert minor.stat().st_ino == (dev / "mapper/v").stat().st_ino
    assert minor.stat().st_nlink == 2
    by_uuid = dev / "disk/by-uuid" / status["uuid"]
    assert os.readlink(by_uuid) == f"../../{minor.name}"
    assert by_uuid.samefile(minor)
    assert (dev / "disk/by-label" / r"my\x20label\x2fx").samefile(minor)
    instance.cli("close", "v")
    assert os.listdir(dev / "mapper") == ["w"]
    assert os.listdir(dev / "disk/by-uuid") == os.listdir(dev / "disk/by-label") == []
    assert not minor.exists()
    assert instance.stop() == 0


def test_attributes(instance, plain):
    instance.start(plain)
    device = instance.device("v")
    status = device.stat()
    assert status.st_size == SIZE
    assert status.st_blocks == SIZE // 512
    assert status.st_blksize == SECTOR
    assert stat.S_ISREG(status.st_mode)
    assert os.listxattr(device) == ["user.sector_size"]
    assert os.getxattr(device, "user.sector_size") == b"4096"
    with raises(errno.ENODATA):
        os.getxattr(device, "user.other")
    assert os.statvfs(device).f_bsize == 4096
    assert instance.stop() == 0


@pytest.mark.root
def test_the_system_daemons_devices_belong_to_root_and_disk(instance, plain):
    instance.start(plain, make_plain(instance, "r", "read-only"))
    status = instance.device("v").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 6, 0o660)
    assert stat.S_IMODE(instance.device("r").stat().st_mode) == 0o440
    assert instance.stop() == 0


def test_a_users_devices_are_his_alone(user_instance):
    user_instance.start(make_plain(user_instance, "v"))
    script = "import os, sys; s = os.stat(sys.argv[1]); print(s.st_uid, oct(s.st_mode & 0o7777))"
    seen = user_instance.io(script, user_instance.device("v"))
    assert seen.stdout.decode().split() == [str(user_instance.uid), "0o600"], seen.stderr
    # Not even root may look into a user's mount.
    with raises(errno.EACCES):
        os.stat(user_instance.device("v"))
    assert user_instance.stop() == 0


def test_what_changes_the_tree_is_refused(instance, plain):
    instance.start(plain)
    device = instance.device("v")
    parent = device.parent
    for refused in (
        lambda: device.unlink(),
        lambda: device.rename(parent / "w"),
        lambda: (parent / "new").mkdir(),
        lambda: parent.rmdir(),
        lambda: os.link(device, parent / "w"),
        lambda: os.symlink("x", parent / "w"),
        lambda: os.mknod(parent / "w"),
        lambda: os.open(parent / "w", os.O_CREAT | os.O_WRONLY),
        lambda: os.setxattr(device, "user.x", b"1"),
        lambda: os.setxattr(device, "user.sector_size", b"1", os.XATTR_REPLACE),
        lambda: os.removexattr(device, "user.sector_size"),
        lambda: parent.chmod(0o777),
    ):
        with raises(errno.EPERM):
            refused()
    assert instance.stop() == 0


def test_a_size_never_changes(instance, plain):
    instance.start(plain)
    device = instance.device("v")
    fd = os.open(device, os.O_RDWR)
    try:
        os.pwrite(fd, b"content", 0)
        # What shells and dd do to a block device: O_TRUNC succeeds and does nothing.
        subprocess.run(["sh", "-c", f": > {device}"], check=True)
        assert os.pread(fd, 7, 0) == b"content"
        for size in (0, 1, SIZE, SIZE + 1):
            with raises(errno.EINVAL):
                os.ftruncate(fd, size)
        with raises(errno.EINVAL):
            os.truncate(device, SIZE + 1)
        assert os.fstat(fd).st_size == SIZE
        assert os.lseek(fd, 0, os.SEEK_END) == SIZE
    finally:
        os.close(fd)
    assert instance.stop() == 0


def test_a_read_only_volume_cannot_be_opened_for_writing(instance):
    instance.start(make_plain(instance, "r", "read-only"))
    device = instance.device("r")
    assert device.read_bytes()[:0] == b""
    for flags in (os.O_WRONLY, os.O_RDWR):
        with raises(errno.EROFS):
            os.open(device, flags)
    assert instance.stop() == 0


def test_mode_owner_and_times_hold_until_close(instance, plain):
    instance.start(plain)
    device = instance.device("v")
    device.chmod(0o604)
    os.utime(device, (5, 6))
    status = instance.device("v").parent.parent.joinpath("dm-0").stat()
    assert stat.S_IMODE(status.st_mode) == 0o604
    assert (status.st_atime, status.st_mtime) == (5, 6)
    instance.cli("close", "v")
    instance.cli("open", "v")
    assert stat.S_IMODE(device.stat().st_mode) != 0o604
    assert instance.stop() == 0


def test_a_directory_listing_survives_changes_between_its_reads(instance):
    count = 40
    instance.start(*[make_plain(instance, f"v{number:02}") for number in range(count)])
    names = set()
    with os.scandir(instance.device("v00").parent) as entries:
        names.add(next(entries).name)
        instance.cli("close", "v39")
        names |= {entry.name for entry in entries}
    assert names >= {f"v{number:02}" for number in range(count - 1)}
    assert instance.stop() == 0


def test_writes_ask_nothing_of_the_daemon(instance, plain):
    """GETXATTR of security.capability before each write would cost more than the write."""
    instance.start(plain)
    fd = os.open(instance.device("v"), os.O_RDWR)
    try:
        before = count_switches(instance.daemon_pid)
        for number in range(1000):
            os.pwrite(fd, bytes(SECTOR), number * SECTOR)
            os.pread(fd, SECTOR, number * SECTOR)
        assert count_switches(instance.daemon_pid) - before < 100
    finally:
        os.close(fd)
    assert instance.stop() == 0


def count_switches(pid):
    """How often a process has waited: once for each request, at least."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("voluntary_ctxt_switches"):
                return int(line.split()[1])
    raise AssertionError


def test_nobody_but_the_engine_holds_the_connection(instance, plain):
    instance.start(plain)
    wait_for(lambda: instance.device("v").exists(), "volume open")
    holders = set()
    for pid in instance.pids():
        for fd in os.listdir(f"/proc/{pid}/fd"):
            if os.readlink(f"/proc/{pid}/fd/{fd}") == "/dev/fuse":
                holders.add(pid)
    assert holders == {instance.engine_pid}
    assert instance.stop() == 0
