"""One daemon a runtime directory, and nothing left of the one before."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from fusecrypt.daemon.config import load_settings
from fusecrypt.daemon.runtime_dir import (
    clear_leftovers,
    find_left_engine,
    own_runtime_dir,
    record_process,
)
from fusecrypt.keystore.errors import BusyError


@pytest.fixture
def settings(tmp_path):
    return load_settings(runtime_dir=str(tmp_path), environment={"HOME": str(tmp_path)}, uid=1000)


@pytest.fixture
def orphan():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_second_owner_is_refused_and_the_first_named(settings):
    with own_runtime_dir(settings):
        assert settings.device_dir.is_dir()
        with (
            pytest.raises(BusyError, match=rf"already serves here \(pid {os.getpid()}\)"),
            own_runtime_dir(settings),
        ):
            pass
    assert not settings.device_dir.exists()
    with own_runtime_dir(settings):
        pass


def test_a_stale_socket_is_taken_away(settings):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(settings.control_socket))
    clear_leftovers(settings)
    assert not settings.control_socket.exists()


def test_an_orphan_is_ended(settings, orphan):
    record_process(settings, "engine", orphan.pid)
    clear_leftovers(settings)
    assert orphan.wait(5) == -signal.SIGTERM
    assert not (settings.runtime_dir / "engine.pid").exists()


def test_an_engine_is_left_over_when_its_parent_is_not_the_daemon(settings, orphan):
    assert find_left_engine(settings) is None
    record_process(settings, "engine", orphan.pid)
    lock = settings.runtime_dir / "lock"
    lock.write_text(f"{os.getpid()}\n")  # its parent: the daemon lives
    assert find_left_engine(settings) is None
    lock.write_text(f"{orphan.pid}\n")
    assert find_left_engine(settings) == orphan.pid
    record = settings.runtime_dir / "engine.pid"
    pid, start_time = record.read_text().split()
    record.write_text(f"{pid} {int(start_time) + 1}\n")  # another process by now
    assert find_left_engine(settings) is None


def test_another_process_with_the_orphans_pid_is_left_alone(settings, orphan):
    record = settings.runtime_dir / "engine.pid"
    record_process(settings, "engine", orphan.pid)
    pid, start_time = record.read_text().split()
    record.write_text(f"{pid} {int(start_time) + 1}\n")
    clear_leftovers(settings)
    assert orphan.poll() is None
    assert not record.exists()


def test_an_orphan_that_is_gone_is_forgotten(settings, orphan):
    record_process(settings, "keeper", orphan.pid)
    orphan.kill()
    orphan.wait()
    clear_leftovers(settings)
    assert list(settings.runtime_dir.iterdir()) == []


@pytest.mark.parametrize("text", ["", "x y", "1", "1 2 3"])
def test_a_damaged_record_is_no_order_to_kill(settings, text):
    record = settings.runtime_dir / "engine.pid"
    record.write_text(text)
    clear_leftovers(settings)
    assert not record.exists()


def test_the_lock_ends_with_its_owner(settings):
    with own_runtime_dir(settings):
        lock = Path(settings.runtime_dir / "lock")
        assert lock.read_text() == f"{os.getpid()}\n"
        assert lock.stat().st_mode & 0o777 == 0o600
