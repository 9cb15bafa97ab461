"""Whether adapters can serve the same keys, told before a key is made or used with them.

Source of the rules: what zkey checks of the APQNs of a key before many of its commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .coprocessor import MODE_CCA, AdapterInfo, Apqn, Fill, Register, Status
from .tokens import KeyType


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about one adapter, or about all of them."""

    text: str
    apqn: Apqn | None = None
    is_warning: bool = True  # else all is well, or will be

    def __str__(self) -> str:
        return self.text if self.apqn is None else f"{self.apqn}: {self.text}"


def cross_check(
    adapters: Sequence[AdapterInfo],
    apqns: Sequence[Apqn] = (),
    *,
    key_type: KeyType | None = None,
    mkvp: bytes | None = None,
) -> tuple[list[Finding], list[AdapterInfo]]:
    """What is to be said of the named adapters, or of all that can be used; and which those are.

    They are set up properly if there is no warning. ``key_type`` is what they are to be used for,
    ``mkvp`` the master key of a key that there is already.
    """
    present = {adapter.apqn: adapter for adapter in adapters}
    findings = [Finding("does not exist", apqn) for apqn in apqns if apqn not in present]
    chosen = [present[apqn] for apqn in apqns if apqn in present]
    if not apqns:
        chosen = [adapter for adapter in adapters if adapter.is_usable]
    able: list[AdapterInfo] = []
    for adapter in chosen:
        problem = _find_problem(adapter, key_type)
        if problem:
            findings.append(Finding(problem, adapter.apqn))
        else:
            able.append(adapter)
    new_mkvps = {adapter.new.mkvp for adapter in able if adapter.new.mkvp}
    for adapter in able:
        findings += _check_registers(adapter, mkvp)
        if adapter.new.mkvp and len(new_mkvps) > 1:
            findings.append(Finding("others have another NEW master key", adapter.apqn))
    if not able:
        findings.append(Finding("none of the adapters can be used"))
    elif len({adapter.current.mkvp for adapter in able}) > 1:
        findings.append(Finding("the adapters do not have the same CURRENT master key"))
    return findings, able


def _find_problem(adapter: AdapterInfo, key_type: KeyType | None) -> str:
    """Why an adapter can serve no such keys at all; empty: it can."""
    if adapter.mode != MODE_CCA:
        return f"its card is a {adapter.type}, wanted one in CCA mode"
    if adapter.is_control_only:
        return "the domain is administered here, not used"
    if adapter.status is not Status.ONLINE:
        return f"it is {adapter.status}"
    if key_type is not None and not adapter.supports(key_type):
        return f"its card is a {adapter.type}, wanted a CEX6C or later for {key_type}"
    return ""


def _check_registers(adapter: AdapterInfo, mkvp: bytes | None) -> list[Finding]:
    found: list[Finding] = []

    def note(text: str, *, is_warning: bool = False) -> None:
        found.append(Finding(text, adapter.apqn, is_warning))

    new, current, old = adapter.new, adapter.current, adapter.old
    if new.state is Fill.PARTIAL:
        note("NEW waits for more parts of a master key")
    if not current.is_usable:
        note("no master key is set", is_warning=True)
    for first, second in (
        (Register.OLD, Register.CURRENT),
        (Register.NEW, Register.CURRENT),
        (Register.NEW, Register.OLD),
    ):
        one, two = adapter.get_register(first).mkvp, adapter.get_register(second).mkvp
        if one is not None and one == two:
            note(f"{first} and {second} hold the same master key")
    if mkvp is not None and current.is_usable and current.mkvp != mkvp:
        if old.mkvp == mkvp:
            note("the key is under the OLD master key: it is to be re-enciphered")
        elif new.mkvp == mkvp:
            note("the key is under the NEW master key, which is not set yet")
        else:
            note("the key is under another master key than the CURRENT one", is_warning=True)
    return found
