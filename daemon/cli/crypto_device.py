"""Cards and domains as lszcrypt and chzcrypt name them: CARD, CARD.DOMAIN or .DOMAIN."""

from __future__ import annotations

from collections.abc import Sequence

from ...keystore.coprocessor import AdapterInfo
from ...keystore.errors import ConfigError, NotFoundError


def choose_devices(adapters: Sequence[AdapterInfo], wanted: Sequence[str]) -> list[AdapterInfo]:
    """The adapters that were named, all if none was.

    Raises:
        ConfigError: what is no name of a device.
        NotFoundError: a name to which none belongs.
    """
    wanted = [_normalize(text) for text in wanted]
    for text in wanted:
        if not any(_is_meant(adapter, text) for adapter in adapters):
            raise NotFoundError(f"crypto device {text}: does not exist")
    return [
        adapter
        for adapter in adapters
        if not wanted or any(_is_meant(adapter, text) for text in wanted)
    ]


def _normalize(text: str) -> str:
    """The name without ``0x``, which real lszcrypt and chzcrypt take in front of a number."""
    card, dot, domain = text.lower().partition(".")
    card, domain = card.removeprefix("0x"), domain.removeprefix("0x")
    for part in (card, domain):
        if part and not all(c in "0123456789abcdef" for c in part):
            break
    else:
        if card or (dot and domain):
            return f"{card}{dot}{domain}"
    raise ConfigError(f"crypto device {text!r}: wanted: CARD, CARD.DOMAIN or .DOMAIN")


def _is_meant(adapter: AdapterInfo, text: str) -> bool:
    card, _, domain = text.partition(".")
    is_card = not card or int(card, 16) == adapter.apqn.card
    return is_card and (not domain or int(domain, 16) == adapter.apqn.domain)
