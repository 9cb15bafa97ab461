"""Whether the master keys of some adapters fit together, and a key: what zkey says of them. Pure.

Source: cross_check_apqns in zkey/utils.c of s390-tools, for what is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .coprocessor import (
    MODE_ACCEL,
    AdapterInfo,
    Apqn,
    Fill,
    Register,
    RegisterState,
    SeState,
)
from .tokens import KeyType


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """What was found."""

    notes: tuple[str, ...]  # what is as it may be for a while
    warnings: tuple[str, ...]  # what should not be
    table: tuple[str, ...]  # the registers, when there is anything to say

    @property
    def lines(self) -> list[str]:
        """For people."""
        told = [
            *(f"INFO: {text}" for text in self.notes),
            *(f"WARNING: {t}" for t in self.warnings),
        ]
        return [*told, "", *self.table, ""] if told else []


def cross_check(
    adapters: Sequence[AdapterInfo],
    apqns: Sequence[Apqn],
    key_type: KeyType,
    mkvp: bytes | None = None,
) -> CrossCheck:
    """Look at the named adapters, or at all that can be used; ``mkvp``: of the key they are for."""
    present = {adapter.apqn: adapter for adapter in adapters}
    chosen = [present[apqn] for apqn in apqns if apqn in present and present[apqn].is_usable]
    if not apqns:
        chosen = [a for a in adapters if a.is_usable and a.is_kind_for(key_type)]
    notes: list[str] = []
    warnings: list[str] = []
    for apqn in apqns:
        if apqn not in present:
            warnings.append(f"APQN {apqn}: there is no such adapter")
        elif not present[apqn].is_usable:
            warnings.append(f"APQN {apqn}: {_say_unusable(present[apqn])}")
    for adapter in chosen:
        if not adapter.supports(key_type):
            lack = "is too old for" if adapter.is_kind_for(key_type) else "has no"
            warnings.append(f"APQN {adapter.apqn}: a {adapter.type} {lack} {key_type} keys")
        notes += [f"APQN {adapter.apqn}: {text}" for text in _list_notes(adapter, mkvp)]
        warnings += [f"APQN {adapter.apqn}: {text}" for text in _list_warnings(adapter, mkvp)]
    warnings += _compare(chosen)
    if not chosen:
        warnings.append("None of the adapters can be used")
    table = _format_table(chosen, has_old=key_type is not KeyType.EP11_AES)
    return CrossCheck(tuple(notes), tuple(warnings), tuple(table))


def _say_unusable(adapter: AdapterInfo) -> str:
    if adapter.mode == MODE_ACCEL:
        return "is no CCA coprocessor"
    if adapter.problem:
        return f"cannot be used: {adapter.problem}"
    if adapter.is_control_only:
        return "is administered here, and used elsewhere"
    if adapter.is_imprint:
        return "is in imprint mode"
    if adapter.se_state is SeState.BOUND:
        return "is bound, and not associated with a secret"
    return f"is {adapter.status}"


def _list_notes(adapter: AdapterInfo, mkvp: bytes | None) -> list[str]:
    found: list[str] = []
    if adapter.new.state is Fill.PARTIAL:
        found.append("the NEW master key is loaded only in part")
    if adapter.new.state is Fill.UNCOMMITTED:
        found.append("the NEW master key is loaded, and not committed yet")
    pairs = (
        (Register.OLD, Register.CURRENT),
        (Register.NEW, Register.CURRENT),
        (Register.NEW, Register.OLD),
    )
    for one, other in pairs:
        value = adapter.get_register(one).mkvp
        if value is not None and value == adapter.get_register(other).mkvp:
            found.append(f"the {one} master key is the same as the {other} one")
    where = None if mkvp is None else adapter.find_register(mkvp)
    if where is Register.OLD:
        found.append("the master key was changed, and the key is not re-enciphered yet")
    if where is Register.NEW:
        found.append("the key is under the NEW master key, which is not set yet")
    return found


def _list_warnings(adapter: AdapterInfo, mkvp: bytes | None) -> list[str]:
    if not adapter.current.is_usable:
        return ["no master key is set"]
    if mkvp is not None and adapter.find_register(mkvp) is None:
        return ["the CURRENT master key is another one than the key's"]
    return []


def _compare(adapters: Sequence[AdapterInfo]) -> list[str]:
    found: list[str] = []
    for register in (Register.CURRENT, Register.NEW):
        values = {a.get_register(register).mkvp for a in adapters} - {None}
        if len(values) > 1:
            found.append(f"The adapters have different {register} master keys")
    return found


def _format_table(adapters: Sequence[AdapterInfo], *, has_old: bool) -> list[str]:
    """As zkey's: the patterns of EP11's wrapping keys are longer, and there is no OLD."""
    registers = (Register.NEW, Register.CURRENT, Register.OLD)[: 3 if has_old else 2]
    width = 16 if has_old else 32
    lines = [
        (str(a.apqn), *(_cell(a.get_register(register)) for register in registers), a.type)
        for a in adapters
    ]
    head = ("CARD.DOMAIN", *(f"{register} MK" for register in registers), "TYPE")
    widths = (11, *(width for _ in registers), 6)
    rows = [
        " ".join(cell.ljust(wide) for cell, wide in zip(line, widths, strict=True))
        for line in (head, *lines)
    ]
    return [rows[0], "-" * len(rows[0]), *rows[1:]]


def _cell(register: RegisterState) -> str:
    if register.state is Fill.UNCOMMITTED:
        return "uncommitted"
    return "partially loaded" if register.state is Fill.PARTIAL else str(register)
