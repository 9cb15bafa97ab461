"""Resident memory of the daemon and its engine: one open volume, then many.

Usage: python benchmarks/memory.py [--volumes N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from contenders import PASSPHRASE, format_luks
from processes import (
    command_line,
    descendants,
    proportional_bytes,
    resident_bytes,
    start,
    stop,
    unmount,
    wait_until,
)

MIB: Final = 1024 * 1024
IMAGE_SIZE: Final = 20 * MIB  # sparse: a LUKS2 header and some data
ONE_VOLUME_LIMIT: Final = 80 * MIB
EACH_VOLUME_LIMIT: Final = 1 * MIB
SETTLE: Final = 1.0  # seconds, for what start-up still has to free


def measure(work: Path, volumes: int) -> dict[str, int]:
    """Bytes of the daemon and the engine with so many volumes open and no I/O."""
    run = work / f"run{volumes}"
    run.mkdir(mode=0o700)
    crypttab = work / f"crypttab{volumes}"
    lines = [f"v{n} {work / f'image{n}'} {work / 'key'} luks\n" for n in range(volumes)]
    crypttab.write_text("".join(lines))
    command = [sys.executable, "-m", "fusecrypt.daemon"]
    daemon = start([*command, "--runtime-dir", run, "--crypttab", crypttab], work / "log")
    mapper = run / "dev" / "mapper"

    def all_open() -> bool:
        try:
            # "control" stands there as in /dev/mapper.
            return sum(entry.name.startswith("v") for entry in mapper.iterdir()) == volumes
        except OSError:
            return False

    try:
        wait_until(f"{volumes} volumes", all_open, daemon)
        time.sleep(SETTLE)
        engine = [p for p in descendants(daemon.pid) if "dmcrypt.engine" in command_line(p)]
        if len(engine) != 1:
            sys.exit(f"engine processes {engine} below the daemon, wanted one")
        return {
            "daemon": resident_bytes([daemon.pid]),
            "engine": resident_bytes(engine),
            "proportional": proportional_bytes([daemon.pid, *engine]),
        }
    finally:
        stop(daemon)
        unmount(run / "dev")


def main() -> int:
    """Measure, print, judge; exit status 1 when a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--volumes", type=int, default=100, help="how many are many")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fusecrypt-bench.", dir="/dev/shm") as name:
        work = Path(name)
        (work / "key").write_text(PASSPHRASE)
        (work / "key").chmod(0o600)
        for n in range(options.volumes):
            with (work / f"image{n}").open("wb") as image:
                os.truncate(image.fileno(), IMAGE_SIZE)
            format_luks(work / f"image{n}", work / "key", version=2)
        one = measure(work, 1)
        many = measure(work, options.volumes)
    total = one["daemon"] + one["engine"]
    each = (many["daemon"] + many["engine"] - total) / max(1, options.volumes - 1)
    for what, figures in (("1 volume", one), (f"{options.volumes} volumes", many)):
        text = ", ".join(f"{key} {value / MIB:.1f} MiB" for key, value in figures.items())
        print(f"{what}: {text}")
    print(
        f"one volume: {total / MIB:.1f} MiB resident, wanted under {ONE_VOLUME_LIMIT / MIB:.0f}\n"
        f"each further: {each / MIB:.3f} MiB, wanted under {EACH_VOLUME_LIMIT / MIB:.0f}"
    )
    if options.json:
        report = {"one": one, "many": many, "volumes": options.volumes, "each": each}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(total >= ONE_VOLUME_LIMIT or each >= EACH_VOLUME_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
