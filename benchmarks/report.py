"""Medians, ratios and verdicts of a comparison: as values, as text, as JSON."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from workloads import KIB, MIB, Sample, Workload

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OURS: Final = "fusecrypt 512"
OURS_4096: Final = "fusecrypt 4096"
PASSTHROUGH: Final = "pass-through"
QEMU_LUKS: Final = "qemu luks"
QEMU_RAW: Final = "qemu raw"
NBDKIT_LUKS: Final = "nbdkit luks + nbdfuse"
ENCRYPTING_PEERS: Final = (QEMU_LUKS, NBDKIT_LUKS)


@dataclass(slots=True)
class Comparison:
    """All samples of one run of the benchmark."""

    workloads: Sequence[Workload]
    contenders: Sequence[str]
    missing: dict[str, str] = field(default_factory=dict)  # contender: why it was not measured
    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)

    def add(self, contender: str, workload: Workload, sample: Sample) -> None:
        self.samples.setdefault((contender, workload.name), []).append(sample)

    def values(self, contender: str, workload: Workload) -> list[float]:
        """The figures of all runs in the workload's unit; empty when it was not measured."""
        return [s.value(workload) for s in self.samples.get((contender, workload.name), [])]

    def median(self, contender: str, workload: Workload) -> float | None:
        values = self.values(contender, workload)
        return statistics.median(values) if values else None

    def cpu(self, contender: str, workload: Workload) -> float | None:
        """Median of the servers' CPU microseconds per operation."""
        samples = self.samples.get((contender, workload.name))
        return statistics.median(s.cpu_microseconds for s in samples) if samples else None

    def best(self, contenders: Iterable[str], workload: Workload) -> float | None:
        """The best median among several contenders."""
        medians = [self.median(name, workload) for name in contenders]
        return max((m for m in medians if m is not None), default=None)

    def ratio(self, contender: str, other: float | None, workload: Workload) -> float | None:
        mine = self.median(contender, workload)
        return mine / other if mine is not None and other else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise held against the figures."""

    promise: str
    workload: str
    got: float
    wanted: float
    at_most: bool = False

    @property
    def is_kept(self) -> bool:
        return self.got <= self.wanted if self.at_most else self.got >= self.wanted


# The promises of the project: (what, over what, least ratio, the workloads it is about).
def _promises(
    comparison: Comparison, workload: Workload
) -> Iterable[tuple[str, float | None, float]]:
    luks = comparison.median(QEMU_LUKS, workload)
    small = workload.block_size == 4 * KIB
    if workload.block_size == MIB and workload.direct:
        yield "4 x qemu luks", luks, 4.0
        yield "faster than qemu raw", comparison.median(QEMU_RAW, workload), 1.0
    if workload.block_size == MIB and not workload.direct:
        yield "2.5 x qemu luks", luks, 2.5
    if small and workload.direct:
        yield (
            ("2 x qemu luks", luks, 2.0) if workload.depth == 1 else ("3 x qemu luks", luks, 3.0)
        )
        yield "85 % of pass-through", comparison.median(PASSTHROUGH, workload), 0.85
    yield "the best encrypting peer", comparison.best(ENCRYPTING_PEERS, workload), 1.0


CPU_LIMIT: Final = 12.0  # microseconds of engine CPU per 4 KiB operation


def verdicts(comparison: Comparison) -> list[Verdict]:
    """Every promise that the comparison can judge, for each of our sector sizes."""
    found: list[Verdict] = []
    for ours in (OURS, OURS_4096):
        for workload in comparison.workloads:
            where = f"{ours}, {workload.name}"
            for promise, other, wanted in _promises(comparison, workload):
                ratio = comparison.ratio(ours, other, workload)
                if ratio is not None:
                    found.append(Verdict(promise, where, ratio, wanted))
            used = comparison.cpu(ours, workload)
            if used is not None and workload.block_size == 4 * KIB and workload.direct:
                promise = f"at most {CPU_LIMIT:.0f} us of CPU per operation"
                found.append(Verdict(promise, where, used, CPU_LIMIT, at_most=True))
    return found


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([first, *rest]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _tables(comparison: Comparison) -> list[list[list[str]]]:
    """Medians, CPU per operation and, when one of ours was measured, its ratios."""
    names = [n for n in comparison.contenders if n not in comparison.missing]
    medians = [["median", "unit", *names]]
    cpu = [["server CPU, us per operation", *names]]
    ratios = [["ratio", "qemu luks", "best peer", "pass-through", "qemu raw"]]
    for workload in comparison.workloads:
        figures = (_cell(comparison.median(n, workload), ",.0f") for n in names)
        medians.append([workload.name, workload.unit, *figures])
        cpu.append([workload.name, *(_cell(comparison.cpu(n, workload), ".1f") for n in names)])
        others = (
            comparison.median(QEMU_LUKS, workload),
            comparison.best(ENCRYPTING_PEERS, workload),
            comparison.median(PASSTHROUGH, workload),
            comparison.median(QEMU_RAW, workload),
        )
        for ours in (OURS, OURS_4096):
            if ours in names:
                cells = (_cell(comparison.ratio(ours, o, workload), ".2f") for o in others)
                ratios.append([f"{ours}: {workload.name}", *cells])
    return [medians, cpu, ratios] if len(ratios) > 1 else [medians, cpu]


def _notes(comparison: Comparison) -> list[str]:
    """Who is missing, and which promises were missed."""
    lines = [f"not measured: {name}: {why}" for name, why in comparison.missing.items()]
    judged = verdicts(comparison)
    if judged:
        lines.append(f"promises kept: {sum(v.is_kept for v in judged)} of {len(judged)}")
    lines += [
        f"missed {v.promise}: {v.workload}: got {v.got:.2f}, "
        f"wanted at {'most' if v.at_most else 'least'} {v.wanted:.2f}"
        for v in judged
        if not v.is_kept
    ]
    return lines


def as_text(comparison: Comparison) -> str:
    """Tables of medians, of CPU per operation, of our ratios, and the verdicts."""
    tables = [_table(rows) for rows in _tables(comparison)]
    return "\n\n".join([*tables, "\n".join(_notes(comparison))]).rstrip()


def as_markdown(comparison: Comparison, machine: dict[str, object], chart: str | None) -> str:
    """The same as a document, with a reference to the chart's file name."""
    where = f"{machine['cpus']} x {machine['cpu']}, Linux {machine['kernel']}"
    parts = [
        "# Benchmark",
        f"{where}, load at the end {machine['load']}; all backing files on tmpfs.",
        "Written by `benchmarks/run.py --markdown`. How: [performance.md](performance.md).",
    ]
    if chart is not None:
        parts.append(f"![Throughput]({chart})")
    for rows in _tables(comparison):
        head, *body = ("| " + " | ".join(row) + " |" for row in rows)
        rule = "|---|" + "---:|" * (len(rows[0]) - 1)
        parts.append("\n".join([head, rule, *body]))
    parts.append("\n".join(f"- {note}" for note in _notes(comparison)))
    return "\n\n".join(parts) + "\n"


def as_json(comparison: Comparison, machine: dict[str, object]) -> dict[str, object]:
    """Everything, single samples included, as plain JSON values."""
    return {
        "format": 1,
        "machine": machine,
        "missing": comparison.missing,
        "workloads": [
            {
                "name": workload.name,
                "unit": workload.unit,
                "contenders": {
                    name: {
                        "median": comparison.median(name, workload),
                        "runs": comparison.values(name, workload),
                        "cpu_us_per_operation": comparison.cpu(name, workload),
                        "p99_us": statistics.median(s.p99_microseconds for s in samples),
                    }
                    for name in comparison.contenders
                    if (samples := comparison.samples.get((name, workload.name)))
                },
            }
            for workload in comparison.workloads
        ],
        "verdicts": [
            {
                "promise": v.promise,
                "workload": v.workload,
                "got": v.got,
                "wanted": v.wanted,
                "at_most": v.at_most,
                "kept": v.is_kept,
            }
            for v in verdicts(comparison)
        ],
    }
