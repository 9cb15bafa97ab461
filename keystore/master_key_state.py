"""What a change of the master key still has to do with a key. Pure: registers and tokens in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .coprocessor import MODE_EP11, AdapterInfo, Apqn, Fill, Register, RegisterState
from .keys import SecureKey


class State(StrEnum):
    """Where a key is on its way to another master key."""

    DONE = "done"  # under CURRENT, and no NEW one is loaded
    UNSTAGED = "unstaged"  # under CURRENT with a NEW one loaded, or under OLD
    STAGED = "staged"  # what waits is under NEW
    READY = "ready"  # what waits can be put into its place
    LOST = "lost"  # no adapter has its master key
    UNKNOWN = "unknown"  # there is no telling: the passphrase or the file is missing
    OTHER = "other"  # of a kind that no adapter here can have


@dataclass(frozen=True, slots=True)
class Finding:
    """The state of one key, and what to say of it."""

    state: State
    text: str = ""
    is_waiting: bool = False  # of an unknown one: a re-enciphered key waits
    target: Register | None = None  # of an unstaged one: where the master key is to stage it for
    mkvps: tuple[bytes, ...] = ()  # of the key, and of what waits: one of them is enough


class Registers:
    """The master-key registers of all adapters that can be used."""

    def __init__(self, adapters: Sequence[AdapterInfo]) -> None:
        self._adapters = [adapter for adapter in adapters if adapter.is_usable]

    @property
    def is_empty(self) -> bool:
        """Whether there is no adapter to ask."""
        return not self._adapters

    def find(self, mkvp: bytes) -> Register | None:
        """The register that has this master key; CURRENT of any adapter before OLD before NEW."""
        for register in (Register.CURRENT, Register.OLD, Register.NEW):
            if any(adapter.get_register(register).mkvp == mkvp for adapter in self._adapters):
                return register
        return None

    def has_new(self, mkvp: bytes) -> bool:
        """Whether an adapter that can use a key under this master key has a NEW one loaded."""
        return any(
            adapter.new.is_usable
            for adapter in self._adapters
            if mkvp in (adapter.current.mkvp, adapter.old.mkvp)
        )

    def set_new(self, apqn: Apqn) -> Registers:
        """What they are once the NEW master key of an adapter is set; EP11 has no OLD one."""
        return Registers(
            [
                replace(
                    adapter,
                    new=RegisterState(Fill.EMPTY),
                    current=adapter.new,
                    old=RegisterState(Fill.EMPTY) if adapter.mode == MODE_EP11 else adapter.current,
                )
                if adapter.apqn == apqn
                else adapter
                for adapter in self._adapters
            ]
        )

    def has_any(self, mkvps: Sequence[bytes]) -> bool:
        """Whether an adapter has one of these master keys in any register."""
        return any(self.find(mkvp) is not None for mkvp in mkvps)

    def classify(self, key: SecureKey, pending: SecureKey | None) -> Finding:
        """The state of a key, of which a re-enciphered one may wait."""
        finding = self._classify(key, pending)
        mkvps = (key.mkvp,) if pending is None else (key.mkvp, pending.mkvp)
        target = self.choose_target(key) if finding.state is State.UNSTAGED else None
        return replace(finding, target=target, mkvps=mkvps)

    def _classify(self, key: SecureKey, pending: SecureKey | None) -> Finding:
        where = self.find(key.mkvp)
        if pending is not None:
            waits = self.find(pending.mkvp)
            if waits is Register.NEW:
                return Finding(State.STAGED, f"for the NEW master key {pending.mkvp.hex()}")
            if waits is Register.CURRENT or (waits is Register.OLD and where is None):
                return Finding(State.READY, f"under the {waits} master key {pending.mkvp.hex()}")
        if where is Register.NEW:
            return Finding(State.STAGED, "in place, and not usable until NEW is set")
        if where is Register.OLD:
            return Finding(State.UNSTAGED, f"under the OLD master key {key.mkvp.hex()}")
        if where is Register.CURRENT and self.has_new(key.mkvp):
            return Finding(State.UNSTAGED, f"under the CURRENT master key {key.mkvp.hex()}")
        if where is Register.CURRENT:
            return Finding(State.DONE, f"under the CURRENT master key {key.mkvp.hex()}")
        return Finding(State.LOST, f"no adapter has its master key {key.mkvp.hex()}")

    def choose_target(self, key: SecureKey) -> Register:
        """Which master key a key is to be staged for: NEW if one is loaded."""
        return Register.NEW if self.has_new(key.mkvp) else Register.CURRENT
