"""``fusecrypt lszcrypt``: the adapters, in the layout of s390-tools' lszcrypt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...keystore.coprocessor import (
    MODE_ACCEL,
    MODE_CCA,
    MODE_EP11,
    MODE_PKCS11,
    PKEY_DRIVER,
    AdapterInfo,
    SeState,
    Status,
)
from ...keystore.errors import ConfigError, CoprocessorError
from ...keystore.tokens import KeyType
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from ..keystored.messages import pack_adapters
from .arguments import Arguments
from .crypto_device import choose_devices
from .output import Output

#: Name, width, whether it is set to the right. What a virtual adapter does not have is a dash.
_COLUMNS: Final = (
    ("CARD.DOM", 8, False),
    ("TYPE", 5, False),
    ("MODE", 11, False),
    ("STATUS", 10, False),
    ("REQUESTS", 8, True),
)
_MORE_COLUMNS: Final = (
    ("PENDING", 8, True),
    ("HWTYPE", 6, True),
    ("QDEPTH", 6, True),
    ("FUNCTIONS", 10, False),
    ("DRIVER", 11, False),
)
_GUEST_COLUMN: Final = ("SESTAT", 7, False)
_SERIAL_COLUMNS: Final = (*_COLUMNS[:4], ("SERIALNR", 8, False))
_MODES: Final = {
    MODE_CCA: "CCA-Coproc",
    MODE_EP11: "EP11-Coproc",
    MODE_ACCEL: "Accelerator",
    MODE_PKCS11: "Token",
}
#: Hardware type of a CEX5; each later card has the next number (arch/s390, ap.h).
_FIRST_LEVEL, _FIRST_HARDWARE_TYPE = 5, 11
_ROW: Final = 16  # domains in one line of the grid
_GRID: Final = 256
_LEGEND: Final = (
    "C: Control domain",
    "U: Usage domain",
    "B: Both (Control + Usage domain)",
)


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """List cards and domains, or tell what they can do."""
    other = [name for name in ("domains", "bus", "capability", "serial") if args.has(name)]
    if len(other) > 1:
        raise ConfigError(f"lszcrypt: wanted: one of {', '.join(f'--{name}' for name in other)}")
    adapters = Keystore(settings).list_adapters()
    if not adapters:
        raise CoprocessorError("no crypto card devices found; fusecrypt adapter create makes one")
    chosen = [a for a in choose_devices(adapters, args.positionals) if _is_of_mode(a, args)]
    if args.has("domains"):
        lines, content = _show_domains(chosen)
    elif args.has("bus"):
        lines, content = _show_bus(adapters)
    elif args.has("capability"):
        lines, content = _show_capability(chosen)
    else:
        lines, content = _list(chosen, args), pack_adapters(chosen)
    output.json(content)
    for line in lines:
        output.line(line)
    return ExitCode.OK


def _list(chosen: Sequence[AdapterInfo], args: Arguments) -> list[str]:
    is_serial, is_verbose = args.has("serial"), args.has("verbose")
    columns = _SERIAL_COLUMNS if is_serial else _COLUMNS + (_MORE_COLUMNS if is_verbose else ())
    if columns[-1] is _MORE_COLUMNS[-1] and any(_can_be_bound(adapter) for adapter in chosen):
        columns = (*columns, _GUEST_COLUMN)
    lines = [_make_line(columns, [name for name, _, _ in columns])]
    lines.append("-" * len(lines[0]))
    shows_cards = not args.has("queueonly") and not any("." in w for w in args.positionals)
    shows_queues = not args.has("cardonly") and not is_serial
    seen: set[int] = set()
    for adapter in chosen:
        card = f"{adapter.apqn.card:02x}"
        domains = [other for other in chosen if other.apqn.card == adapter.apqn.card]
        if shows_cards and adapter.apqn.card not in seen:
            lines.append(_make_line(columns, _make_cells(card, domains, columns)))
            seen.add(adapter.apqn.card)
        if shows_queues:
            lines.append(_make_line(columns, _make_cells(str(adapter.apqn), [adapter], columns)))
    return lines


def _can_be_bound(adapter: AdapterInfo) -> bool:
    return adapter.se_state is not SeState.ILLICIT


def _make_cells(
    name: str, domains: Sequence[AdapterInfo], columns: tuple[tuple[str, int, bool], ...]
) -> list[str]:
    """One domain, or all of a card: it is online if one of them is."""
    statuses = [domain.status for domain in domains]
    status = Status.ONLINE if Status.ONLINE in statuses else statuses[0]
    first = domains[0]
    cells = {
        "CARD.DOM": name,
        "TYPE": first.type,
        "MODE": _MODES[first.mode],
        "STATUS": str(status),
        "REQUESTS": str(sum(domain.requests for domain in domains)),
        "SERIALNR": first.serial,
        "HWTYPE": str(first.level - _FIRST_LEVEL + _FIRST_HARDWARE_TYPE) if first.level else "-",
        "DRIVER": "pkcs11" if first.mode == MODE_PKCS11 else first.driver,
    }
    if "." in name and first.mode != MODE_PKCS11 and first.driver != PKEY_DRIVER:
        cells["SESTAT"] = str(first.se_state)  # of the machine's own, the machine tells
    return [cells.get(column, "-") for column, _, _ in columns]


def _make_line(columns: tuple[tuple[str, int, bool], ...], cells: list[str]) -> str:
    return " ".join(
        text.rjust(width) if is_right else text.ljust(width)
        for text, (_, width, is_right) in zip(cells, columns, strict=True)
    )


def _show_domains(chosen: Sequence[AdapterInfo]) -> tuple[list[str], dict[str, object]]:
    """Which domains are used and administered here, in a grid."""
    kinds: dict[int, str] = {}
    for adapter in chosen:
        kind = "C" if adapter.is_control_only else "U" if adapter.mode == MODE_ACCEL else "B"
        before = kinds.get(adapter.apqn.domain, kind)
        kinds[adapter.apqn.domain] = kind if kind == before else "B"
    heading = "DOMAIN " + " ".join(f"{i:02x}" for i in range(_ROW))
    lines = [heading, "-" * len(heading)]
    for row in range(0, _GRID, _ROW):
        cells = " ".join(f" {kinds.get(row + i, '.')}" for i in range(_ROW))
        lines.append(f"{row:>6x} {cells}" if row else f"{'00':>6} {cells}")
    lines.append("-" * len(heading))
    lines += [f"{domain:04x}: {kind}" for domain, kind in sorted(kinds.items()) if domain >= _GRID]
    lines += _LEGEND
    return lines, {"domains": {f"{domain:04x}": kind for domain, kind in sorted(kinds.items())}}


def _show_bus(adapters: Sequence[AdapterInfo]) -> tuple[list[str], dict[str, object]]:
    domain = min(adapter.apqn.domain for adapter in adapters)
    return [
        f"ap_domain=0x{domain:x}",
        "ap_max_domain_id=0xffff",
        "ap_interrupts are disabled",
        "poll_thread is disabled",
    ], {"ap_domain": domain, "ap_max_domain_id": 0xFFFF}


def _show_capability(chosen: Sequence[AdapterInfo]) -> tuple[list[str], dict[str, object]]:
    lines: list[str] = []
    content: dict[str, object] = {}
    for adapter in chosen:
        card = f"{adapter.apqn.card:02x}"
        if card in content:
            continue
        types = [str(t) for t in KeyType if adapter.mode != MODE_ACCEL and adapter.supports(t)]
        lines.append(f"Coprocessor card{card} provides capability for:")
        lines += [f"{key_type} secure keys" for key_type in types] or ["nothing, in software"]
        content[card] = types
    return lines, content


def _is_of_mode(adapter: AdapterInfo, args: Arguments) -> bool:
    names = {"ccaonly": MODE_CCA, "ep11only": MODE_EP11, "accelonly": MODE_ACCEL}
    modes = [mode for name, mode in names.items() if args.has(name)]
    return not modes or adapter.mode in modes
