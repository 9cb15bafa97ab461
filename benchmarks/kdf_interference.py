"""Reads of one volume while another one is unlocked with Argon2id and 1 GiB.

The unlock may cost the reads what any other work of as many threads would cost them, and no more:
so the reads are measured alone, beside busy loops of an unrelated process, and beside the unlock.

Usage: python benchmarks/kdf_interference.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from contenders import PASSPHRASE
from ours import Fusecrypt512

if TYPE_CHECKING:
    from collections.abc import Callable

MIB: Final = 1024 * 1024
SIZE: Final = 256 * MIB
BLOCK: Final = 4096
SECONDS: Final = 4.0  # of each comparison
LANES: Final = min(4, os.cpu_count() or 1)  # as cryptsetup chooses
ARGON2: Final = (
    *("--pbkdf", "argon2id", "--pbkdf-memory", str(1024 * 1024), "--pbkdf-parallel", str(LANES)),
    *("--pbkdf-force-iterations", "4"),
)
TOLERANCE: Final = 0.85  # of the rate beside busy loops; Argon2 also takes memory bandwidth
CLIENT: Final = "import sys; from fusecrypt.daemon.cli import main; sys.exit(main())"
BUSY_LOOP: Final = "while True: pass"


@dataclass(frozen=True, slots=True)
class Reads:
    """Random direct reads of 4 KiB, one at a time."""

    rate: float  # per second
    p99: float  # seconds
    longest: float  # seconds


def read_during(path: Path, work: Callable[[], object]) -> Reads:
    """How reads went from the start of ``work`` to its end."""
    latencies: list[float] = []
    stopped = threading.Event()

    def read() -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, BLOCK)
        while not stopped.is_set():
            before = time.perf_counter()
            os.preadv(fd, [buffer], random.randrange(SIZE // BLOCK) * BLOCK)
            latencies.append(time.perf_counter() - before)
        os.close(fd)

    thread = threading.Thread(target=read)
    begin = time.perf_counter()
    thread.start()
    try:
        work()
    finally:
        stopped.set()
        thread.join()
    seconds = time.perf_counter() - begin
    latencies.sort()
    return Reads(len(latencies) / seconds, latencies[len(latencies) * 99 // 100], latencies[-1])


def beside_busy_loops() -> None:
    """As many busy threads as Argon2 has lanes, in processes that have nothing to do with us."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(LANES)]
    try:
        time.sleep(SECONDS)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> int:
    """Measure, print, judge; exit status 1 when the unlock costs more than its CPU time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fusecrypt-bench.", dir="/dev/shm") as name:
        work = Path(name)
        (work / "key").write_text(PASSPHRASE)
        (work / "key").chmod(0o600)
        other = work / "other.img"
        with other.open("wb") as image:
            image.truncate(32 * MIB)
        subprocess.run(
            [
                *("cryptsetup", "luksFormat", "-q", "--type", "luks2", *ARGON2),
                *("--key-file", str(work / "key"), str(other)),
            ],
            check=True,
        )
        with Fusecrypt512(work, SIZE) as daemon:
            client = [sys.executable, "-c", CLIENT]
            place = ["--runtime-dir", str(daemon.runtime_dir)]

            def unlock() -> None:
                words = ["open", *place, "--key-file", str(work / "key"), str(other), "other"]
                subprocess.run([*client, *words], check=True)

            alone = read_during(daemon.path, lambda: time.sleep(SECONDS))
            beside = read_during(daemon.path, beside_busy_loops)
            during = read_during(daemon.path, unlock)
            subprocess.run([*client, "close", *place, "other"], check=True)
    results = {"alone": alone, f"{LANES} busy loops": beside, "Argon2id 1 GiB": during}
    for what, reads in results.items():
        print(
            f"{what:16} {reads.rate:9,.0f} reads/s, "
            f"p99 {reads.p99 * 1e6:7,.0f} us, longest {reads.longest * 1e3:6,.1f} ms"
        )
    share = during.rate / beside.rate
    print(f"beside the unlock {share:.2f} of what busy loops leave, wanted {TOLERANCE} or more")
    if options.json:
        figures = {
            what: {"rate": r.rate, "p99": r.p99, "longest": r.longest}
            for what, r in results.items()
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(share < TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
