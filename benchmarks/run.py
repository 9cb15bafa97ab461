"""Compare fusecrypt with its peers: medians of interleaved fio runs.

Usage: python benchmarks/run.py [--quick] [--json FILE] [--svg FILE] [--only ciphers]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import ciphers
from chart import svg
from contenders import PASSPHRASE, PEERS, Contender, RawFile
from ours import Fusecrypt512, Fusecrypt4096, PassThrough
from processes import BenchmarkError
from report import Comparison, as_json, as_markdown, as_text
from workloads import MIB, WORKLOADS, Workload, run

CONTENDERS: tuple[type[Contender], ...] = (
    Fusecrypt512,
    Fusecrypt4096,
    PassThrough,
    *PEERS,
    RawFile,
)


#: What --only calls the comparison of ciphers with libgcrypt, which needs no volume.
CIPHERS = "ciphers"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="half of the workloads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a bar chart here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a document here")
    parser.add_argument("--size", type=int, default=512, metavar="MIB", help="data per contender")
    parser.add_argument("--runs", type=int, default=3, help="interleaved runs of each cell")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one fio run")
    parser.add_argument(
        "--directory", type=Path, default=Path("/dev/shm"), help="where the backing files are made"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"only this contender, or {CIPHERS} (repeatable)",
    )
    parser.add_argument(
        "--workload", action="append", metavar="TEXT", help="only workloads with TEXT in the name"
    )
    return parser.parse_args()


def say(line: str) -> None:
    """Progress, on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def chosen_workloads(options: argparse.Namespace) -> list[Workload]:
    """What the command line leaves of `WORKLOADS`."""
    return [
        w
        for w in WORKLOADS
        if (w.quick or not options.quick)
        and (not options.workload or any(text in w.name for text in options.workload))
    ]


def start_all(
    options: argparse.Namespace, work: Path, comparison: Comparison, stack: contextlib.ExitStack
) -> list[Contender]:
    """Start every contender that can be; say of each other one why it is missing."""
    started: list[Contender] = []
    for kind in CONTENDERS:
        if options.only and kind.name not in options.only:
            continue
        contender = kind(work, options.size * MIB)
        try:
            contender.check_needs()
            started.append(stack.enter_context(contender))
        except (BenchmarkError, OSError) as error:
            comparison.missing[kind.name] = str(error)
            say(f"not measured: {kind.name}: {error}")
    return started


def machine() -> dict[str, object]:
    """What a reader needs to judge the figures."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": model[0] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "load": round(os.getloadavg()[0], 2),
    }


def measure(options: argparse.Namespace, work: Path, comparison: Comparison) -> None:
    """Fill ``comparison``: run after run, workload after workload, one contender at a time."""
    size = options.size * MIB
    with contextlib.ExitStack() as stack:
        contenders = start_all(options, work, comparison, stack)
        for number in range(options.runs):
            for workload in comparison.workloads:
                say(f"run {number + 1} of {options.runs}: {workload.name}")
                # Another one goes first each time: none always finds the machine the same way.
                turn = number % max(1, len(contenders))
                for contender in contenders[turn:] + contenders[:turn]:
                    sample = run(workload, contender.path, contender.pids, size, options.seconds)
                    comparison.add(contender.name, workload, sample)


def measure_ciphers(options: argparse.Namespace, work: Path) -> list[ciphers.Speed]:
    """The engine's cipher calls beside libgcrypt's; nothing when other contenders were named."""
    if options.only and CIPHERS not in options.only:
        return []
    say("ciphers, beside libgcrypt's own")
    speeds = ciphers.measure(work, milliseconds=int(options.seconds * 1000))
    print(ciphers.as_text(speeds))
    return speeds


def main() -> int:
    """Parse, measure, report; exit status 1 when one of ours could not be measured."""
    options = arguments()
    if options.only == [CIPHERS]:
        with tempfile.TemporaryDirectory(prefix="fusecrypt-bench.") as name:
            speeds = measure_ciphers(options, Path(name))
        if options.json:
            content = {"machine": machine(), "ciphers": ciphers.as_json(speeds)}
            options.json.write_text(json.dumps(content, indent=1) + "\n")
        return 0
    if shutil.which("fio") is None:
        say("fio is not installed (Debian: apt-get install fio)")
        return 1
    names = [k.name for k in CONTENDERS if not options.only or k.name in options.only]
    comparison = Comparison(chosen_workloads(options), names)
    with tempfile.TemporaryDirectory(prefix="fusecrypt-bench.", dir=options.directory) as name:
        work = Path(name)
        (work / "key").write_text(PASSPHRASE)
        (work / "key").chmod(0o600)
        measure(options, work, comparison)
        speeds = measure_ciphers(options, work)
    print(as_text(comparison))
    if options.json:
        content = as_json(comparison, machine()) | {"ciphers": ciphers.as_json(speeds)}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(svg(comparison))
    if options.markdown:
        chart = options.svg.name if options.svg else None
        options.markdown.write_text(as_markdown(comparison, machine(), chart))
    return int(any(name.startswith("fusecrypt") for name in comparison.missing))


if __name__ == "__main__":
    sys.exit(main())
