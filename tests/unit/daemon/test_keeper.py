"""The mount keeper, without a mount to keep."""

import os
import signal
import subprocess
import sys

import pytest

from fusecrypt.daemon import keeper

MOUNTINFO = rb"""22 1 0:20 / / rw - ext4 /dev/x rw
30 22 0:40 / /run/a rw,nosuid - fuse.fusecrypt fusecrypt rw
31 22 0:41 / /run/with\040blank\134 rw shared:1 master:2 - fuse.fusecrypt fusecrypt rw
32 30 0:42 / /run/a rw - fuse.fusecrypt fusecrypt rw
33 22 0:43 / /run/b rw - fuse.sshfs x rw
bad line
"""


@pytest.mark.parametrize(
    ("path", "device"),
    [
        ("/run/a", "0:42"),  # the topmost
        ("/run/with blank\\", "0:41"),
        ("/run/b", None),  # not ours
        ("/run", None),
    ],
)
def test_our_topmost_mount_is_found(path, device):
    assert keeper.find_mount(MOUNTINFO, path) == device


def test_only_the_mount_that_was_guarded_is_taken_away(monkeypatch):
    monkeypatch.setattr(keeper, "_read", lambda _path: MOUNTINFO)
    # Another daemon has mounted there since.
    assert keeper.unmount("/run/a", "0:40") == 0
    assert keeper.unmount("/run/none", None) == 0


@pytest.fixture
def running(tmp_path):
    """A keeper of a directory where nothing is mounted; (process, daemon's end, engine's end)."""
    daemon_end, daemon = os.pipe2(os.O_CLOEXEC)
    engine_end, engine = os.pipe2(os.O_CLOEXEC)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", keeper.__file__, str(tmp_path)],
        stdin=daemon_end,
        stdout=engine_end,
    )
    ends = [os.fdopen(daemon, "wb", buffering=0), os.fdopen(engine, "wb", buffering=0)]
    os.close(daemon_end)
    os.close(engine_end)
    yield process, *ends
    for end in ends:
        end.close()
    process.kill()
    process.wait()


def is_running(process):
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    return True


def test_it_ends_when_both_are_gone(running):
    process, daemon, engine = running
    daemon.write(b"mounted 0:40\n")
    daemon.close()
    assert is_running(process)
    engine.close()
    assert process.wait(5) == 0


def test_it_ends_when_it_is_told_to(running):
    process, daemon, _ = running
    daemon.write(b"mounted 0:40\n")
    daemon.write(b"quit\n")
    assert process.wait(5) == 0


def test_sigterm_counts_once_the_daemon_is_gone(running):
    process, daemon, _ = running
    assert is_running(process)  # until it has its handlers
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
    assert is_running(process)
    daemon.close()
    assert process.wait(5) == 0
