"""Numbers, truth values and time spans as systemd's crypttab reader takes them."""

from __future__ import annotations

import re
from typing import Final

from .live_key import LEASE_MAX


def parse_unsigned(text: str, *, bits: int = 32) -> int:
    """A number as systemd reads it: decimal, 0x…, 0o…, 0b…, or octal with a leading zero.

    Raises:
        ValueError: not a number, negative, or more than ``bits`` bits.
    """
    match = re.fullmatch(
        r"\s*\+?(?:0[xX]([0-9a-fA-F]+)|0[oO]?([0-7]+)|0[bB]([01]+)|(0|[1-9][0-9]*))", text
    )
    if match is None or len(text) > bits + 8:
        raise ValueError(f"{text[:40]!r} is not a number")
    for digits, base in zip(match.groups(), (16, 8, 2, 10), strict=True):
        if digits is not None and (value := int(digits, base)) < 1 << bits:
            return value
    raise ValueError(f"{text[:40]!r} has more than {bits} bits")


_SECONDS: Final = {
    **dict.fromkeys(("usec", "us", "\u00b5s", "\u03bcs"), 1e-6),
    **dict.fromkeys(("msec", "ms"), 1e-3),
    **dict.fromkeys(("", "seconds", "second", "sec", "s"), 1.0),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60.0),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3600.0),
    **dict.fromkeys(("days", "day", "d"), 86400.0),
    **dict.fromkeys(("weeks", "week", "w"), 7 * 86400.0),
    **dict.fromkeys(("months", "month", "M"), 2629800.0),
    **dict.fromkeys(("years", "year", "y"), 31557600.0),
}
_SPAN: Final = re.compile(
    r"\s*([0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})\s*([a-zA-Z\u00b5\u03bc]*)\s*"
)


def parse_time_span(text: str) -> float | None:
    """Seconds of a time span in systemd.time(7)'s syntax; None for 0 and for ``infinity``.

    Raises:
        ValueError: not a time span.
    """
    if text.strip() == "infinity":
        return None
    total = 0.0
    position = 0
    while match := _SPAN.match(text, position):
        if match[2] not in _SECONDS:
            break
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise ValueError(f"{text[:40]!r} is not a time span")
    return total or None


def parse_lease(text: str) -> int:
    """Whole seconds of a time span; 0 for ``infinity``, too: no lease.

    Raises:
        ValueError: not a time span, parts of a second, or more than a year.
    """
    seconds = parse_time_span(text) or 0.0
    if not seconds.is_integer() or seconds > LEASE_MAX:
        raise ValueError(f"{text[:40]!r}; wanted: whole seconds, at most {LEASE_MAX}")
    return int(seconds)


def parse_boolean(text: str) -> bool:
    """A truth value as systemd reads it.

    Raises:
        ValueError: not one.
    """
    if text.lower() in {"1", "yes", "y", "true", "t", "on"}:
        return True
    if text.lower() in {"0", "no", "n", "false", "f", "off"}:
        return False
    raise ValueError(f"{text[:40]!r} is not yes or no")
