"""A comparison as an SVG bar chart: one group of bars a workload, each group to its own scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from report import Comparison

COLOURS: Final = {
    "fusecrypt 512": "#1f5fae",
    "fusecrypt 4096": "#5b9bd5",
    "pass-through": "#9bbf8a",
    "qemu luks": "#d9772b",
    "qemu raw": "#f0b27a",
    "nbdkit luks + nbdfuse": "#8e6bb0",
}
OTHER_COLOUR: Final = "#888888"
TITLE: Final = "Median throughput; each group has its own scale, longer is better"
LEFT: Final = 190  # pixels for the names of the workloads
BAR: Final = 11  # height of a bar
GROUP_GAP: Final = 14
PLOT: Final = 520  # width of the longest bar
RIGHT: Final = 90  # for the figures behind the bars
TOP: Final = 62


def svg(comparison: Comparison, *, without: frozenset[str] = frozenset({"raw file"})) -> str:
    """The chart as an SVG document.

    The raw file is left out by default: it would flatten all other bars.
    """
    names = [n for n in comparison.contenders if n not in comparison.missing and n not in without]
    group = len(names) * BAR + GROUP_GAP
    width = LEFT + PLOT + RIGHT
    height = TOP + group * len(comparison.workloads) + 10
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
        ),
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="20" font-size="14" font-weight="bold">{TITLE}</text>',
    ]
    x = 10
    for name in names:
        colour = COLOURS.get(name, OTHER_COLOUR)
        parts.append(
            f'<rect x="{x}" y="32" width="10" height="10" fill="{colour}"/>'
            f'<text x="{x + 14}" y="41">{escape(name)}</text>'
        )
        x += 34 + 6 * len(name)
    y = TOP
    for workload in comparison.workloads:
        medians = {name: comparison.median(name, workload) for name in names}
        longest = max((m for m in medians.values() if m), default=1.0)
        middle = y + (len(names) * BAR) / 2 + 4
        label = escape(workload.name)
        parts.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{label}</text>')
        for name in names:
            median = medians[name]
            if median is not None:
                length = PLOT * median / longest
                parts.append(
                    f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 2}" '
                    f'fill="{COLOURS.get(name, OTHER_COLOUR)}"/>'
                    f'<text x="{LEFT + length + 4:.1f}" y="{y + BAR - 3}" font-size="9">'
                    f"{median:,.0f} {workload.unit}</text>"
                )
            y += BAR
        y += GROUP_GAP
    parts.append("</svg>\n")
    return "\n".join(parts)
