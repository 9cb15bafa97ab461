"""A process that writes records to a device, syncs each, and says which ones were acknowledged.

Every record's content follows from its number, so the test can check any of them later. Records
neither start nor end at sector borders. A device that is full is written again from its beginning:
however late the test looks, writes are under way.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

RECORD = 5003  # bytes; prime, so that records begin everywhere inside sectors

PROGRAM = """
import hashlib, os, sys
path, record, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fd = os.open(path, os.O_RDWR)
size = os.fstat(fd).st_size
number = first
while True:
    seed = hashlib.sha256(str(number).encode()).digest()
    data = (seed * (record // 32 + 1))[:record]
    done = 0
    while done < record:
        done += os.pwrite(fd, data[done:], number % (size // record) * record + done)
    os.fsync(fd)
    sys.stdout.write("%d\\n" % number)
    sys.stdout.flush()
    number += 1
"""


def content(number: int) -> bytes:
    """The bytes of one record."""
    seed = hashlib.sha256(str(number).encode()).digest()
    return (seed * (RECORD // 32 + 1))[:RECORD]


class Writer:
    """A running writer; `acknowledged` grows as lines are read from it."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self.acknowledged: list[int] = []

    def wait_acknowledged(self, count: int) -> None:
        """Wait for that many further records to be on stable storage."""
        assert self._process.stdout is not None
        for _ in range(count):
            line = self._process.stdout.readline()
            assert line, f"the writer ended early: {self._process.stderr.read().decode()}"
            self.acknowledged.append(int(line))

    def finish(self, interrupt: Callable[[], object] | None = None) -> int:
        """Interrupt something, then read all further acknowledgements until the writer ends."""
        if interrupt is not None:
            interrupt()
        assert self._process.stdout is not None
        self.acknowledged += [int(line) for line in self._process.stdout]
        return self._process.wait()

    def kill(self) -> None:
        self._process.kill()


@contextlib.contextmanager
def writing(device: Path, prefix: list[str], first: int = 0) -> Iterator[Writer]:
    """A writer at work on ``device``; ``prefix`` goes before its command (another user)."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-I", "-c", PROGRAM, str(device), str(RECORD), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield Writer(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def check(read: Callable[[int, int], bytes], size: int, acknowledged: list[int]) -> None:
    """Every acknowledged record is what was written, on a device of so many bytes.

    ``acknowledged`` are all of them from 0: the one behind them may be written already, in part,
    and what stood in its place is gone.
    """
    assert acknowledged == list(range(len(acknowledged)))
    places = size // RECORD
    kept = acknowledged[max(0, len(acknowledged) + 1 - places) :]
    lost = [n for n in kept if read(n % places * RECORD, RECORD) != content(n)]
    assert not lost, f"{len(lost)} of {len(kept)} acknowledged records lost: {lost[:10]}"


def reader(path: Path) -> Callable[[int, int], bytes]:
    """Positioned reads of a file, each opened anew."""

    def read(offset: int, length: int) -> bytes:
        fd = os.open(path, os.O_RDONLY)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)

    return read
