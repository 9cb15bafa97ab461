"""No key and no passphrase in the memory of any of our processes: open, under I/O, after close.

The scanner itself is proved by test_leak_scan.py. What the kernel's page cache and the FUSE buffers
hold is plaintext, which this test says nothing about.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.lab import cryptsetup
from tests.product import wait_for
from tests.security.leak_scan import (
    REGISTERS,
    CoreError,
    Search,
    force_core,
    passphrase_patterns,
    volume_key_patterns,
)

pytestmark = [pytest.mark.fuse, pytest.mark.root]

PASSPHRASE = b"correct-horse-3f9a7c-battery-staple"
SIZE = 8 << 20


@pytest.fixture
def volumes(instance):
    """LUKS2 with XTS, with CBC and with a secure key, and plain; all that must not be found."""
    pass_file = instance.write_file("pass", PASSPHRASE)
    patterns = passphrase_patterns("passphrase", PASSPHRASE)
    lines = []
    for name, cipher, bits in (
        ("xts", "aes-xts-plain64", 512),
        ("cbc", "aes-cbc-essiv:sha256", 256),
    ):
        image = instance.directory / f"{name}.img"
        cryptsetup.luks_format(
            image,
            pass_file,
            SIZE,
            "--cipher",
            cipher,
            "--key-size",
            str(bits),
            "--sector-size",
            "512",
        )
        key = cryptsetup.volume_key(image, "--key-file", pass_file)
        patterns |= volume_key_patterns(name, key, xts="xts" in cipher)
        lines.append((name, f"{name} {image} {pass_file} luks"))
    plain_key = os.urandom(64)
    plain_file = instance.write_file("plain.key", plain_key)
    image = instance.write_file("plain.img", bytes(SIZE))
    patterns |= volume_key_patterns("plain", plain_key, xts=True)
    lines.append(("plain", f"plain {image} {plain_file} plain,cipher=aes-xts-plain64,size=512"))
    lines.append(("paes", f"paes {make_paes(instance, pass_file, patterns)} {pass_file} luks"))
    return lines, patterns


def make_paes(instance, pass_file, patterns):
    """An image whose secure key was made of a clear one, which joins what must not be found."""
    clear = os.urandom(64)
    patterns |= volume_key_patterns("paes", clear, xts=True)
    instance.cli("adapter", "create", "03.0039")
    secure = instance.directory / "paes.skey"
    clear_file = instance.write_file("paes.clear", clear)
    instance.cli("zkey", "generate", secure, "--xts", "--clearkey", clear_file)
    # The process that saw the clear key's file ends; another one opens the volume.
    keystored = instance.pid("fusecrypt-keystored")
    os.kill(keystored, signal.SIGTERM)
    wait_for(lambda: keystored not in instance.pids(), "keystored gone")
    return cryptsetup.luks_format(
        instance.directory / "paes.img",
        pass_file,
        SIZE + (4 << 20),
        *("--cipher", "paes-xts-plain64", "--volume-key-file", secure, "--key-size", "1024"),
        *("--offset", "8192", "--sector-size", "512"),
    )


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


def scan(instance, patterns, tmp_path, *, cores):
    """Findings in every process of the instance: (process, where) to findings."""
    search = Search(patterns)
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


def arena_kind(instance):
    return instance.cli("status", "--json").json["arena"]["kind"]


def judge(instance, found, record_figure, moment, *, under_io=False):
    """Nothing anywhere; without memfd_secret the engine's findings are recorded instead.

    A thread that is stopped in the middle of a sector has round keys in its registers: that is
    how AES instructions work. It is recorded, and is no excuse for what lies in memory.
    """
    fallback = "secret" not in str(arena_kind(instance)).lower()
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

    def check(moment, *, under_io=False):
        try:
            found = scan(instance, patterns, tmp_path, cores=cores)
        except CoreError as error:
            record_figure("cores", str(error))
            found = scan(instance, patterns, tmp_path, cores=False)
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


# fusecryptd whose engine is told to do without memfd_secret, as on a kernel that lacks it.
WITHOUT_MEMFD_SECRET = """
import subprocess, sys
from fusecrypt.daemon.__main__ import main
from fusecrypt.dmcrypt.engine import process

class Subprocess:
    def __getattr__(self, name):
        return getattr(subprocess, name)
    def Popen(self, words, **options):
        return subprocess.Popen([*words, "--force-mlock"], **options)

process.subprocess = Subprocess()
sys.exit(main())
"""


def test_the_fallback_is_told_recorded_and_wiped_at_close(
    instance, volumes, tmp_path, record_figure
):
    lines, patterns = volumes
    program = instance.write_file("fusecryptd-without.py", WITHOUT_MEMFD_SECRET.encode())
    instance.daemon_command = [sys.executable, str(program)]
    instance.start(*(line for _name, line in lines))
    assert arena_kind(instance) == "mlock"
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
    for (words, where), findings in scan(instance, patterns, tmp_path, cores=False).items():
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
