"""Adapters of the machine itself, among the virtual ones of a state directory: IBM Z's.

Their files only say that they may be used here; everything else is the machine's to tell, and what
is done to them is done with its own tools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .adapter import Adapter, MasterKeys
from .adapters import Adapters, Change
from .coprocessor import PKEY_DRIVER, AdapterInfo, Apqn, Fill, RegisterState
from .errors import BusyError, UnsupportedError


class MachineAdapters(Adapters):
    """The same adapters, with those of the machine among them."""

    def add(self, apqn: Apqn) -> AdapterInfo:
        """Have an adapter of the machine used here.

        Raises:
            UnsupportedError: the machine is no IBM Z, or the card is of a kind that is not known.
            NotFoundError: the machine has no such adapter.
            BusyError: there is one with this APQN, or a virtual one of this card.
            CoprocessorError, AccessError, FormatError: as `create`.
        """
        from .drivers.pkey import find_machine

        with self._store.locked():
            info = find_machine().read(apqn, self._tell_time())
            if self._find_card_driver(apqn) not in (None, PKEY_DRIVER):
                raise BusyError(f"adapter {apqn}: there is a virtual card of this number")
            self._store.create(Adapter(_forget_registers(info), PKEY_DRIVER, MasterKeys()))
        return self._tell(info)

    def create(
        self,
        apqn: Apqn,
        mode: str = "cca",
        *,
        with_master_key: bool = True,
        level: int | None = None,
        is_control_only: bool = False,
    ) -> AdapterInfo:
        if self._find_card_driver(apqn) == PKEY_DRIVER:
            raise BusyError(f"adapter {apqn}: there is a card of the machine's of this number")
        return super().create(
            apqn,
            mode,
            with_master_key=with_master_key,
            level=level,
            is_control_only=is_control_only,
        )

    def change(self, apqns: Sequence[Apqn], change: Change) -> None:
        for apqn in apqns:
            if self._find_card_driver(apqn) == PKEY_DRIVER:
                raise UnsupportedError(
                    f"adapter {apqn}: of the machine, not a virtual one: its own chzcrypt sets it "
                    f"{change}"
                )
        super().change(apqns, change)

    def _find_card_driver(self, apqn: Apqn) -> str | None:
        """What drives the domains of a card; None: there is none of it."""
        for other in self._store.list_apqns():
            if other.card == apqn.card:
                with self._store.opened(other) as adapter:
                    return adapter.driver
        return None


def _forget_registers(info: AdapterInfo) -> AdapterInfo:
    nothing = RegisterState(Fill.INVALID)
    return replace(info, new=RegisterState(Fill.EMPTY), current=nothing, old=nothing)
