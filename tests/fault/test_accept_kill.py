"""Killed daemon, killed engine, SIGTERM, each under synced writes: nothing acknowledged is lost."""

import os
import signal
import subprocess
import time

import pytest

from tests.lab import cryptsetup, writer
from tests.product import mounts_below, running, wait_for

pytestmark = pytest.mark.fuse

SIZE = 16 << 20
TIMES = 3
LEFTOVERS_END = 2.0  # seconds, what is promised; the test waits longer and reports


@pytest.fixture
def entry(instance):
    """A crypttab line for a LUKS2 volume of the instance."""
    key = instance.write_file("key", b"passphrase of the kill tests")
    image = cryptsetup.luks_format(instance.directory / "image", key, SIZE)
    return f"v {image} {key} luks"


def check_records(instance, acknowledged):
    device = instance.device("v")
    writer.check(writer.reader(device), device.stat().st_size, acknowledged)


def end_leftovers(instance) -> float:
    """SIGTERM to all that a killed daemon left; the seconds until mount and processes are gone."""
    for pid in instance.pids():
        os.kill(pid, signal.SIGTERM)
    start = time.monotonic()
    instance.wait_gone()
    return time.monotonic() - start


@pytest.mark.slow
def test_killed_daemon_loses_nothing_and_leaves_nothing(instance, entry, record_figure):
    acknowledged = []
    took = []
    instance.start(entry)
    for _ in range(TIMES):
        first = len(acknowledged)
        with writer.writing(instance.device("v"), [], first) as process:
            process.wait_acknowledged(25)
            instance.signal(instance.daemon_pid, signal.SIGKILL)
            # The engine serves on without its daemon.
            process.wait_acknowledged(25)
            process.kill()
            process.finish()
        assert instance.wait_daemon() == -signal.SIGKILL
        took.append(end_leftovers(instance))
        acknowledged += process.acknowledged
        instance.start(entry)
        check_records(instance, acknowledged)
    assert instance.stop() == 0
    record_figure("leftovers gone after seconds", [round(value, 3) for value in took])
    assert max(took) < 5 * LEFTOVERS_END, took


@pytest.mark.slow
def test_killed_engine_loses_nothing_and_the_daemon_ends_with_status_1(instance, entry):
    acknowledged = []
    for _ in range(TIMES):
        instance.start(entry)
        check_records(instance, acknowledged)
        with writer.writing(instance.device("v"), [], len(acknowledged)) as process:
            process.wait_acknowledged(30)
            instance.signal(instance.engine_pid, signal.SIGKILL)
            # The writer gets an error, not a hang.
            assert process.finish() != 0
        acknowledged += process.acknowledged
        assert instance.wait_daemon() == 1, instance.read_log()
        instance.wait_gone()
    instance.start(entry)
    check_records(instance, acknowledged)
    assert instance.stop() == 0


def test_a_restart_clears_what_a_killed_daemon_left(instance, entry):
    instance.start(entry)
    with writer.writing(instance.device("v"), []) as process:
        process.wait_acknowledged(20)
        instance.signal(instance.daemon_pid, signal.SIGKILL)
        instance.wait_daemon()
        process.kill()
        process.finish()
    instance.start(entry)
    check_records(instance, process.acknowledged)
    assert len(mounts_below(instance.directory)) == 1
    assert instance.stop() == 0


def test_killing_everything_leaves_no_dead_mount_after_a_restart(instance, entry):
    instance.start(entry)
    for pid in instance.pids():
        instance.signal(pid, signal.SIGKILL)
    instance.wait_daemon()
    wait_for(lambda: not instance.pids(), "all gone")
    instance.start(entry)
    assert instance.device("v").stat().st_size == SIZE - 524288
    assert len(mounts_below(instance.directory)) == 1
    assert instance.stop() == 0


def test_the_keeper_unmounts_when_daemon_and_engine_are_killed(instance, entry):
    instance.start(entry)
    engine = instance.engine_pid
    instance.signal(instance.daemon_pid, signal.SIGKILL)
    instance.wait_daemon()
    instance.signal(engine, signal.SIGKILL)
    instance.wait_gone()


@pytest.mark.slow
def test_sigterm_in_the_middle_of_writes_loses_nothing(instance, entry):
    acknowledged = []
    for _ in range(TIMES):
        instance.start(entry)
        with writer.writing(instance.device("v"), [], len(acknowledged)) as process:
            process.wait_acknowledged(30)
            instance.signal(instance.daemon_pid, signal.SIGTERM)
            process.finish()
        acknowledged += process.acknowledged
        assert instance.wait_daemon() == 0, instance.read_log()
        instance.wait_gone()
    instance.start(entry)
    check_records(instance, acknowledged)
    assert instance.stop() == 0


def test_an_unmount_from_outside_ends_everything(instance, entry):
    instance.start(entry)
    (mountpoint,) = mounts_below(instance.directory)
    subprocess.run(["umount", mountpoint], check=True)
    assert instance.wait_daemon() in (0, 1)
    instance.wait_gone()
    instance.start()
    assert instance.device("v").exists()
    assert instance.stop() == 0


def test_a_second_daemon_in_the_same_runtime_directory_is_refused(instance, entry):
    instance.start(entry)
    first = instance.daemon_pid
    daemon, instance._daemon = instance._daemon, None
    instance.start(wait=False)
    assert instance.wait_daemon() == 5
    instance._daemon = daemon
    assert instance.daemon_pid == first
    assert instance.device("v").exists()
    assert instance.stop() == 0


def test_two_instances_live_side_by_side_and_share_no_image(instance, entry, scratch):
    instance.start(entry)
    with running(scratch) as other:
        other.start()
        result = other.run("open", "--key-file", entry.split()[2], entry.split()[1], "mine")
        assert result.status == 5, result
        assert other.stop() == 0
    assert instance.device("v").exists()
    assert instance.stop() == 0
