"""No key and no passphrase in the memory of any of our processes: open, under I/O, after close.

The scanner itself is proved by test_leak_scan.py. What the kernel's page cache and the FUSE buffers
hold is plaintext, which this test says nothing about.
"""

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.security.conftest import PASSPHRASE, SIZE
from tests.security.leak_scan import (
    REGISTERS,
    CoreError,
    Search,
    force_core,
    passphrase_patterns,
)
from tests.security.readable_keys import get_arena_kind, start_with_readable_keys

pytestmark = [pytest.mark.fuse, pytest.mark.root]


class Load:
    """Reads and writes on devices until told to stop."""

    def __init__(self, devices):
        self._devices = devices
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        with_fds = [os.open(device, os.O_RDWR) for device in self._devices]
        try:
            number = 0
            while not self._stop.is_set():
                for fd in with_fds:
                    offset = number * 65_536 % (SIZE // 2)
                    os.pwrite(fd, b"\x11" * 65_536, offset)
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    os.pread(fd, 65_536, offset + 511)
                number += 1
        finally:
            for fd in with_fds:
                os.close(fd)

    def __enter__(self):
        self._thread.start()
        time.sleep(0.2)  # the scan takes far longer: the load runs all through it
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def scan(instance, search, tmp_path, *, cores):
    """Findings in every process of the instance: (process, where) to findings."""
    found = {}
    pids = instance.pids()
    assert any("fusecryptd" in words for words in pids.values()), pids
    assert any("fusecrypt.dmcrypt.engine" in words for words in pids.values()), pids
    for pid, words in pids.items():
        findings = search.process(pid)
        assert findings.searched > 100_000, f"{words}: nothing could be read\n{findings}"
        found[words, "memory"] = findings
        if cores:
            core = force_core(pid, tmp_path)
            found[words, "core"] = search.core(core)
            core.unlink()
    return found


def judge(instance, found, record_figure, moment, *, under_io=False):
    """Nothing anywhere; without memfd_secret the engine's findings are recorded instead.

    A thread that is stopped in the middle of a sector has round keys in its registers: that is
    how AES instructions work. It is recorded, and is no excuse for what lies in memory.
    """
    fallback = "secret" not in str(get_arena_kind(instance)).lower()
    for (words, where), findings in found.items():
        if findings.hits and fallback and "fusecrypt.dmcrypt.engine" in words:
            record_figure(f"fallback: {moment}: {where}", str(findings))
            continue
        if under_io and {place for _what, place in findings.hits} == {REGISTERS}:
            record_figure(f"registers: {moment}: {where}", str(findings))
            continue
        assert not findings.hits, f"{moment}: {where} of {words}:\n{findings}"


@pytest.mark.slow
def test_nothing_is_found_open_under_io_or_after_close(instance, volumes, tmp_path, record_figure):
    lines, patterns = volumes
    instance.start(*(line for _name, line in lines))
    names = [name for name, _line in lines]
    assert instance.pid("fusecrypt-keystored")  # held by the daemon, and scanned like the others
    cores = shutil.which("gcore") is not None
    search = Search(patterns)

    def check(moment, *, under_io=False):
        try:
            found = scan(instance, search, tmp_path, cores=cores)
        except CoreError as error:
            record_figure("cores", str(error))
            found = scan(instance, search, tmp_path, cores=False)
        judge(instance, found, record_figure, moment, under_io=under_io)

    check("open and idle")
    with Load([instance.device(name) for name in names]):
        for _ in range(3):
            check("under I/O", under_io=True)
    check("after I/O")
    for name in names:
        instance.cli("close", name)
    check("after close")
    assert instance.stop() == 0


def test_the_fallback_is_told_recorded_and_wiped_at_close(
    instance, volumes, tmp_path, record_figure
):
    lines, patterns = volumes
    start_with_readable_keys(instance, *(line for _name, line in lines))
    search = Search(patterns)
    found = search.process(instance.engine_pid)
    record_figure("in the engine's locked memory while open", sum(found.hits.values()))
    assert not search.process(instance.daemon_pid).hits
    core = force_core(instance.engine_pid, tmp_path)
    record_figure("in a forced core of everything", sum(search.core(core).hits.values()))
    core.unlink()
    for name, _line in lines:
        instance.cli("close", name)
    assert not search.process(instance.engine_pid).hits
    assert instance.stop() == 0


def test_nothing_is_found_in_a_command_that_waits_with_its_passphrase(instance, volumes, tmp_path):
    # The command line may hold the passphrase while it asks; the daemon and the engine may not
    # afterwards, nor after a wrong one.
    _lines, patterns = volumes
    instance.start()
    image = instance.directory / "xts.img"
    wrong = instance.run("open", image, "v", stdin=PASSPHRASE[:-1] + b"\n")
    assert wrong.status == 2
    instance.cli("open", image, "v", stdin=PASSPHRASE + b"\n")
    patterns |= passphrase_patterns("wrong passphrase", PASSPHRASE[:-1] + b"\n")
    found = scan(instance, Search(patterns), tmp_path, cores=False)
    for (words, where), findings in found.items():
        secret = {hit for hit in findings.hits if "engine" not in words or "mlock" not in where}
        assert not secret, f"{where} of {words}:\n{findings}"
    assert instance.stop() == 0


def test_no_secret_is_in_command_lines_environments_or_logs(instance, volumes):
    lines, _patterns = volumes
    instance.start(*(line for _name, line in lines))
    for pid in instance.pids():
        for part in ("cmdline", "environ"):
            assert PASSPHRASE not in Path(f"/proc/{pid}/{part}").read_bytes()
    assert PASSPHRASE.decode() not in instance.read_log()
    assert instance.stop() == 0


def test_an_engine_makes_no_core_of_its_own(instance, volumes):
    lines, _patterns = volumes
    instance.start(lines[0][1])
    limits = subprocess.run(
        ["cat", f"/proc/{instance.engine_pid}/limits"], capture_output=True, text=True, check=True
    ).stdout
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    # /proc/PID belongs to root when the process is not dumpable; as root only the limit tells.
    assert core.split()[4] == "0", core
    assert instance.stop() == 0
