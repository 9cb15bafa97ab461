"""What the daemon waits for at boot."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fusecrypt.daemon import generator
from fusecrypt.daemon.crypttab import parse_crypttab

OWN = Path("/run/fusecrypt/dev")


def list_waits(*lines: str, fstab: str = "", has_devices: bool = True) -> list[str]:
    crypttab = parse_crypttab("\n".join(lines), "crypttab", whole=True)
    return generator.list_waits(crypttab, own=OWN, fstab=fstab, has_devices=has_devices)


@pytest.mark.parametrize(
    "path", ["/", "/srv", "/srv/a-b/c d", "/.hidden/x", "/dev/disk/by-uuid/1-2", "/ü/a.b:c_d\\"]
)
@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="no systemd-escape")
def test_paths_are_escaped_as_systemd_does_it(path):
    wanted = subprocess.run(["systemd-escape", "--path", path], capture_output=True, check=True)
    assert generator.escape_path(path) == wanted.stdout.decode().strip()


def test_every_place_that_may_be_a_mount_is_waited_for():
    assert list_waits("a /srv/images/a.img /keys/a.key header=/boot/a.head") == [
        "srv.mount",
        "srv-images.mount",
        "boot.mount",
        "keys.mount",
    ]


def test_a_device_is_waited_for_where_udev_announces_it():
    line = "a UUID=12-34 /dev/urandom plain,cipher=aes-xts-plain64,size=512"
    assert list_waits(line) == ["dev-disk-by\\x2duuid-12\\x2d34.device"]
    assert list_waits(line, has_devices=False) == []


def test_what_is_not_opened_at_start_is_not_waited_for():
    assert list_waits("a /srv/a none noauto", "b /srv/b none tcrypt", "c", "d relative") == []


def test_the_daemon_does_not_wait_for_itself():
    fstab = (
        "/run/fusecrypt/dev/mapper/a /mnt/a ext4 loop 0 0\n"
        "/srv/b.img /mnt/b ext4 loop,x-systemd.requires=fusecryptd.service\n"
        "#/dev/sdc /srv ext4 x-systemd.requires=fusecryptd.service\n"
        "/dev/sdb /srv ext4 defaults\n"
    )
    lines = ("x /mnt/a/x.img /run/fusecrypt/dev/pkey/a", "y /mnt/b/y.img", "z /srv/z.img")
    assert list_waits(*lines, fstab=fstab) == ["srv.mount"]


def test_the_drop_in_only_wishes_and_orders():
    assert generator.make_drop_in(["a.mount", "50%.mount"]).splitlines()[2:] == [
        "Wants=a.mount",
        "After=a.mount",
        "Wants=50%%.mount",
        "After=50%%.mount",
    ]
