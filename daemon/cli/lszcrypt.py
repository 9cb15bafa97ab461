"""``fusecrypt lszcrypt``: the adapters, in the layout of s390-tools' lszcrypt."""

from __future__ import annotations

from typing import Final

from ...keystore.coprocessor import AdapterInfo
from ...keystore.errors import ConfigError, CoprocessorError, NotFoundError
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from ..keystored.messages import pack_adapters
from .adapter import get_status
from .arguments import Arguments
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
_SERIAL_COLUMNS: Final = (*_COLUMNS[:4], ("SERIALNR", 8, False))
_MODES: Final = {"cca": "CCA-Coproc"}
_HARDWARE_TYPES: Final = {"CEX8C": "14"}


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """List cards and domains."""
    adapters = Keystore(settings).list_adapters()
    if not adapters:
        raise CoprocessorError("no crypto card devices found; fusecrypt adapter create makes one")
    for wanted in args.positionals:
        _check_wanted(wanted)
        if not any(_is_wanted(adapter, (wanted,)) for adapter in adapters):
            raise NotFoundError(f"crypto device {wanted}: does not exist")
    chosen = [adapter for adapter in adapters if _is_wanted(adapter, args.positionals)]
    output.json(pack_adapters(chosen))
    is_serial, is_verbose = args.has("serial"), args.has("verbose")
    columns = _COLUMNS + (_MORE_COLUMNS if is_verbose else ())
    lines = [_make_line(_SERIAL_COLUMNS if is_serial else columns, None)]
    lines.append("-" * len(lines[0]))
    shows_cards = not args.has("queueonly") and not any("." in w for w in args.positionals)
    shows_queues = not args.has("cardonly") and not is_serial
    seen: set[int] = set()
    for adapter in chosen:
        card = f"{adapter.apqn.card:02x}"
        cells = [adapter.type, _MODES[adapter.mode], get_status(adapter)]
        cells += [adapter.serial] if is_serial else ["-"]
        if is_verbose and not is_serial:
            cells += ["-", _HARDWARE_TYPES[adapter.type], "-", "-", "soft"]
        if shows_cards and adapter.apqn.card not in seen:
            lines.append(_make_line(_SERIAL_COLUMNS if is_serial else columns, [card, *cells]))
            seen.add(adapter.apqn.card)
        if shows_queues:
            lines.append(_make_line(columns, [str(adapter.apqn), *cells]))
    for line in lines:
        output.line(line)
    return ExitCode.OK


def _make_line(columns: tuple[tuple[str, int, bool], ...], cells: list[str] | None) -> str:
    texts = [name for name, _, _ in columns] if cells is None else cells
    return " ".join(
        text.rjust(width) if is_right else text.ljust(width)
        for text, (_, width, is_right) in zip(texts, columns, strict=True)
    )


def _check_wanted(text: str) -> None:
    card, dot, domain = text.partition(".")
    for part in (card, domain):
        if part:
            try:
                int(part, 16)
            except ValueError:
                break
    else:
        if card or (dot and domain):
            return
    raise ConfigError(f"crypto device {text!r}: wanted: CARD, CARD.DOMAIN or .DOMAIN")


def _is_wanted(adapter: AdapterInfo, wanted: tuple[str, ...]) -> bool:
    if not wanted:
        return True
    for text in wanted:
        card, _, domain = text.partition(".")
        is_card = not card or int(card, 16) == adapter.apqn.card
        if is_card and (not domain or int(domain, 16) == adapter.apqn.domain):
            return True
    return False
