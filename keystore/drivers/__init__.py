"""The kinds of coprocessor there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..adapter_store import AdapterStore
from ..coprocessor import Apqn, Coprocessor

DriverFactory = Callable[[AdapterStore, Apqn], Coprocessor]


def _make_soft(store: AdapterStore, apqn: Apqn) -> Coprocessor:
    from .soft import SoftCoprocessor

    return SoftCoprocessor(store, apqn)


#: What an adapter's file calls its driver; each is imported at its first use.
DRIVERS: Final[dict[str, DriverFactory]] = {"soft": _make_soft}
