"""fusecrypt-mountd: what it cannot be made to open or to mount."""

import array
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusecrypt.daemon.mountd import client, packets
from fusecrypt.keystore.errors import (
    AccessError,
    ConfigError,
    MapperError,
    NotFoundError,
    PolicyError,
    UnsupportedError,
)
from tests.unit.daemon.mountd_server import DAEMON, STRANGER, Mountd, read_all, running_mountd

pytestmark = pytest.mark.root


@pytest.fixture
def mountd() -> Iterator[Mountd]:
    with running_mountd() as made:
        yield made


def put_link(mountd: Mountd) -> None:
    mountd.mount_point.rmdir()
    mountd.mount_point.symlink_to("/mnt")


def put_foreign(mountd: Mountd) -> None:
    os.chown(mountd.mount_point, STRANGER, STRANGER)


def put_writable(mountd: Mountd) -> None:
    mountd.run.chmod(0o777)


def put_file(mountd: Mountd) -> None:
    mountd.mount_point.rmdir()
    mountd.mount_point.write_text("")


def put_mounted(mountd: Mountd) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", mountd.mount_point], check=True)
    os.chown(mountd.mount_point, DAEMON, DAEMON)
    mountd.mount_point.chmod(0o755)


@pytest.mark.parametrize("spoil", [put_link, put_foreign, put_writable, put_file, put_mounted])
def test_nothing_is_mounted_on_a_mount_point_that_is_not_the_daemons(mountd, spoil):
    spoil(mountd)
    before = Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))
    with pytest.raises(PolicyError, match="mount point"):
        mountd.call("mount", clones=3)
    mountd.wait_idle()
    assert (Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))) == before


def test_unmounting_touches_no_mount_of_others(mountd):
    put_mounted(mountd)
    before = Path("/proc/self/mountinfo").read_text()
    mountd.call("unmount")
    assert Path("/proc/self/mountinfo").read_text() == before


# --- hostile peers ---


def ask_as(uid: int, path: Path) -> subprocess.CompletedProcess:
    code = (
        "import os, socket, sys;"
        f"os.setgroups([]); os.setgid({uid}); os.setuid({uid});"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(10);"
        f's.connect({str(path)!r}); s.send(b\'{{"call":"crypttab"}}\');'
        "sys.stdout.buffer.write(s.recv(4096))"
    )
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=False)


def test_only_root_and_the_daemons_user_are_answered(mountd):
    assert ask_as(DAEMON, mountd.socket).stdout.startswith(b'{"files":')
    refused = ask_as(STRANGER, mountd.socket)
    assert refused.stdout == b""


@pytest.mark.parametrize(
    "packet",
    [
        b"\0",
        b"[]",
        b"{",
        b"nonsense",
        b'"' + b"x" * 65000,
        b"[" * 60000,
        b"{" + b" " * packets.MAX_PACKET + b"}",
        '{"call":"é'.encode("latin-1"),
    ],
)
def test_what_is_no_request_ends_the_connection_and_nothing_else(mountd, packet):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(str(mountd.socket))
        peer.settimeout(10)
        peer.send(packet)
        assert peer.recv(4096) == b""
    assert mountd.call("crypttab").fds


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"call": None},
        {"call": "open", "path": "/etc/shadow"},
        {"call": "_forget"},
        {"call": "mount"},
        {"call": "mount", "clones": 17},
        {"call": "mount", "clones": -1},
        {"call": "mount", "clones": True},
        {"call": "mount", "clones": 1.0},
        {"call": "mounted"},
        {"call": "entry"},
        {"call": "entry", "name": ""},
        {"call": "entry", "name": ["vol"]},
        {"call": "entry", "name": "x" * 256},
        {"call": "key", "name": {"path": "/etc/shadow"}},
        {"call": "ask", "name": "../../etc/shadow"},
        {"call": "ask", "name": "\ud800"},
    ],
)
def test_a_wrong_request_is_refused_and_the_connection_stays(mountd, request_):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(str(mountd.socket))
        peer.settimeout(10)
        for _ in range(2):
            peer.send(json.dumps(request_).encode())
            with pytest.raises((ConfigError, NotFoundError)):
                packets.parse_reply(peer.recv(packets.MAX_PACKET))
    assert mountd.device() is None


def test_more_in_a_request_than_is_asked_for_changes_nothing(mountd):
    mountd.write_crypttab(f"vol {mountd.file('vol.img', content=b'right')}")
    answer = mountd.call(
        "entry", name="vol", file="/etc/shadow", source="/etc/shadow", crypttab="/tmp/x"
    )
    assert read_all(answer.fds) == [b"right"]
    before = Path("/proc/self/mountinfo").read_text()
    connection = client.Connection(mountd.socket)
    made = connection.call("mount", clones=0, mount_point="/mnt", user_id=0, options="suid")
    assert mountd.device() is not None
    assert "/mnt" not in Path("/proc/self/mountinfo").read_text().replace(before, "")
    for fd in made.fds:
        os.close(fd)
    connection.close()


def test_descriptors_that_a_peer_sends_are_not_taken(mountd):
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer, open("/dev/null") as file:
        peer.connect(str(mountd.socket))
        peer.settimeout(10)
        rights = array.array("i", [file.fileno()] * 100)
        peer.sendmsg([b'{"call":"x"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        with pytest.raises(ConfigError):
            packets.parse_reply(peer.recv(4096))
        # Those of this test, and both ends of one connection.
        assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_errors_keep_their_class_on_the_way():
    for error in (AccessError("a"), UnsupportedError("b"), PolicyError("c")):
        with pytest.raises(type(error), match=str(error)):
            packets.parse_reply(packets.pack_error(error))
    with pytest.raises(MapperError, match="else"):
        packets.parse_reply(b'{"error":{"kind":"SystemExit","message":"else"}}')


def test_a_mountd_that_is_not_there_is_named(tmp_path):
    with pytest.raises(AccessError, match="mountd at"):
        client.call(tmp_path / "nobody", "crypttab")
