"""Whether the master keys of some adapters fit together, and a key: what zkey says of them. Pure.

Source: cross_check_apqns in zkey/utils.c of s390-tools, for what is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .coprocessor import MODE_ACCEL, AdapterInfo, Apqn, Fill, Register, RegisterState
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
        chosen = [adapter for adapter in adapters if adapter.is_usable]
    notes: list[str] = []
    warnings: list[str] = []
    for apqn in apqns:
        if apqn not in present:
            warnings.append(f"APQN {apqn}: there is no such adapter")
        elif not present[apqn].is_usable:
            warnings.append(f"APQN {apqn}: {_say_unusable(present[apqn])}")
    for adapter in chosen:
        if not adapter.supports(key_type):
            is_old = adapter.level and key_type is KeyType.CCA_AESCIPHER
            lack = "is too old for" if is_old else "has no"
            warnings.append(f"APQN {adapter.apqn}: a {adapter.type} {lack} {key_type} keys")
        notes += [f"APQN {adapter.apqn}: {text}" for text in _list_notes(adapter, mkvp)]
        warnings += [f"APQN {adapter.apqn}: {text}" for text in _list_warnings(adapter, mkvp)]
    warnings += _compare(chosen)
    if not chosen:
        warnings.append("None of the adapters can be used")
    return CrossCheck(tuple(notes), tuple(warnings), tuple(_format_table(chosen)))


def _say_unusable(adapter: AdapterInfo) -> str:
    if adapter.mode == MODE_ACCEL:
        return "is no CCA coprocessor"
    if adapter.problem:
        return f"cannot be used: {adapter.problem}"
    if adapter.is_control_only:
        return "is administered here, and used elsewhere"
    return f"is {adapter.status}"


def _list_notes(adapter: AdapterInfo, mkvp: bytes | None) -> list[str]:
    found: list[str] = []
    if adapter.new.state is Fill.PARTIAL:
        found.append("the NEW master key is loaded only in part")
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


def _format_table(adapters: Sequence[AdapterInfo]) -> list[str]:
    rows = [
        f"{adapter.apqn!s:<11} {_cell(adapter.new):<16} {_cell(adapter.current):<16} "
        f"{_cell(adapter.old):<16} {adapter.type:<6}"
        for adapter in adapters
    ]
    head = f"{'CARD.DOMAIN':<11} {'NEW MK':<16} {'CURRENT MK':<16} {'OLD MK':<16} {'TYPE':<6}"
    return [head, "-" * 69, *rows]


def _cell(register: RegisterState) -> str:
    return "partially loaded" if register.state is Fill.PARTIAL else str(register)
