"""The fio jobs of the comparison, and one run of one of them.

Direct jobs run for a fixed time. Buffered reads go over the file at most once (fio drops the
file's cached pages first), so that no run measures the page cache instead of the server.

Each buffered job runs twice, and the second run counts: in a virtual machine the host gives the
page cache its memory at the first touch, at several microseconds a page, which would be all that
the first run measures.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from processes import BenchmarkError, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KIB: Final = 1024
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Workload:
    """One column of the comparison."""

    name: str
    pattern: str  # fio's rw=
    block_size: int  # bytes
    depth: int
    direct: bool
    quick: bool = False  # part of a --quick comparison

    @property
    def is_sequential(self) -> bool:
        return not self.pattern.startswith("rand")

    @property
    def is_write(self) -> bool:
        return self.pattern.endswith("write")

    @property
    def unit(self) -> str:
        return "MB/s" if self.is_sequential else "op/s"

    def fio_arguments(self, path: Path, size: int, seconds: float) -> list[str]:
        """The fio command line for this job over the first ``size`` bytes of ``path``."""
        engine = "psync" if self.depth == 1 else "libaio" if self.direct else "io_uring"
        arguments = [
            "fio",
            f"--name={self.name.replace(' ', '-')}",
            f"--filename={path}",
            f"--rw={self.pattern}",
            f"--bs={self.block_size}",
            f"--size={size}",
            f"--ioengine={engine}",
            f"--iodepth={self.depth}",
            f"--direct={int(self.direct)}",
            f"--runtime={seconds}s",
            "--allow_file_create=0",
            "--randrepeat=0",
            "--output-format=json",
        ]
        if self.is_write:
            arguments.append("--end_fsync=1")
        if self.direct or self.is_write:
            arguments.append("--time_based")
        return arguments


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run gave."""

    bytes_per_second: float
    operations_per_second: float
    cpu_microseconds: float  # of the server's processes, per operation
    p99_microseconds: float  # completion latency

    def value(self, workload: Workload) -> float:
        """The figure of merit in `Workload.unit`."""
        if workload.is_sequential:
            return self.bytes_per_second / 1e6
        return self.operations_per_second


def run(workload: Workload, path: Path, pids: Sequence[int], size: int, seconds: float) -> Sample:
    """Run one fio job against ``path``, served by ``pids``.

    Raises:
        BenchmarkError: fio failed, or no operation was completed.
    """
    command = workload.fio_arguments(path, size, seconds)
    if not workload.direct:
        subprocess.run(command, capture_output=True, check=False)
    before = cpu_seconds(pids)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    used = cpu_seconds(pids) - before
    if result.returncode:
        lines = (result.stderr + result.stdout).strip().splitlines()
        raise BenchmarkError(f"fio {workload.name}: {lines[-1] if lines else 'no output'}")
    # fio may print notes ahead of the object.
    job = json.loads(result.stdout[result.stdout.index("{") :])["jobs"][0]
    side = job["write" if workload.is_write else "read"]
    if not side["total_ios"]:
        raise BenchmarkError(f"fio {workload.name}: no operation completed")
    return Sample(
        bytes_per_second=side["bw_bytes"],
        operations_per_second=side["iops"],
        cpu_microseconds=used * 1e6 / side["total_ios"],
        p99_microseconds=side["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1e3,
    )


def _workload(pattern: str, block_size: int, depth: int, *, direct: bool, quick: bool) -> Workload:
    word = {
        "read": "read",
        "write": "write",
        "randread": "random read",
        "randwrite": "random write",
    }[pattern]
    size = f"{block_size // MIB} MiB" if block_size >= MIB else f"{block_size // KIB} KiB"
    queue = f" depth {depth}" if pattern.startswith("rand") else ""
    name = f"{size} {word}{queue} {'direct' if direct else 'buffered'}"
    return Workload(name, pattern, block_size, depth, direct, quick)


WORKLOADS: Final = (
    *(
        _workload(pattern, size, 1, direct=direct, quick=size == MIB)
        for direct in (True, False)
        for size in (MIB, 128 * KIB)
        for pattern in ("read", "write")
    ),
    *(
        _workload(pattern, 4 * KIB, depth, direct=direct, quick=direct)
        for direct in (True, False)
        for depth in (1, 16)
        for pattern in ("randread", "randwrite")
    ),
)
