"""Processes that the benchmarks start: CPU time, memory, and an end that leaves nothing.

Everything is addressed by pid. Nothing here looks processes up by name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")
START_TIMEOUT: Final = 30.0  # seconds; a server that is not there by then has failed
STOP_TIMEOUT: Final = 10.0  # seconds between SIGTERM and SIGKILL


class BenchmarkError(Exception):
    """A contender could not be started, or a measurement gave no figure."""


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that these processes, all their threads included, have used."""
    ticks = 0
    for pid in pids:
        # The command name may hold spaces and brackets: count from its closing one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SECOND


def resident_bytes(pids: Iterable[int]) -> int:
    """Sum of the resident sets (VmRSS); pages shared between the processes count in each."""
    return sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) * PAGE_SIZE for p in pids)


def proportional_bytes(pids: Iterable[int]) -> int:
    """Sum of the proportional sets (Pss): a page shared by n processes counts 1/n in each."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def descendants(pid: int) -> list[int]:
    """Pids of all living children, grandchildren and so on of ``pid``, parents first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def command_line(pid: int) -> str:
    """The command line of a process, its words separated by spaces; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""


def wait_until(what: str, condition: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    """Return when ``condition`` holds.

    Raises:
        BenchmarkError: the server ended or `START_TIMEOUT` passed before it held.
    """
    limit = time.monotonic() + START_TIMEOUT
    while not condition():
        if server.poll() is not None:
            raise BenchmarkError(f"{what}: the server ended with status {server.returncode}")
        if time.monotonic() > limit:
            raise BenchmarkError(f"{what}: not there after {START_TIMEOUT:.0f} s")
        time.sleep(0.02)


def start(command: Sequence[str | Path], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a server with its output in ``log``; `stop` ends it."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server with SIGTERM, with SIGKILL when it does not heed that, and reap it."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            server.kill()
    server.wait()


def is_alive(pid: int) -> bool:
    """Whether a process is still there, after a second of grace to follow its parent."""
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists():
            return False
        time.sleep(0.02)
    return True


def is_mounted(path: Path) -> bool:
    """Whether something is mounted exactly at ``path``."""
    wanted = str(path.resolve()).replace(" ", "\\040")
    return any(line.split()[1] == wanted for line in Path("/proc/mounts").read_text().splitlines())


def unmount(path: Path) -> None:
    """Take a left-over mount away; nothing happens when there is none."""
    if is_mounted(path):
        subprocess.run(["fusermount3", "-uz", str(path)], check=False, capture_output=True)
