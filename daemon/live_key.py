"""The key of an open volume: where it comes from, whether the engine has it, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from ..keystore.errors import ConfigError

if TYPE_CHECKING:
    from ..dmcrypt.effective_key import Derivation, EffectiveKey

#: ``forgotten``: the next I/O has it derived again. ``unavailable``: that failed, and I/O does,
#: until it succeeds. ``lost``: nobody can bring it again.
GoneState = Literal["forgotten", "unavailable", "lost"]
KeyState = Literal["present"] | GoneState

#: Seconds: a year. Who wants more wants none.
LEASE_MAX: Final = 366 * 86400


@dataclass(frozen=True, slots=True)
class Lease:
    """How many seconds the engine may have a key; 0: there is no end to it."""

    lifetime: int = 0  # since it was derived
    idle: int = 0  # since the last I/O

    def __bool__(self) -> bool:
        return bool(self.lifetime or self.idle)


NO_LEASE: Final = Lease()


@dataclass(slots=True)
class LiveKey:
    """What is known of the key of one open volume. Times are trio's."""

    origin: str = "engine"  # for people: what guards it at rest
    derivation: Derivation | None = None  # None: only the volume's user can bring it again
    is_random: bool = False  # a protected key of one session
    lease: Lease = NO_LEASE
    state: KeyState = "present"
    reason: str = ""  # why it is not there
    derivations: int = 1
    derived_at: float = 0.0
    activity: int = 0  # what the engine had counted when it was looked at last
    active_at: float = 0.0  # when it had counted something new

    @property
    def kind(self) -> str:
        """``secure``, ``random`` or ``clear``."""
        if self.derivation is not None:
            return "secure"
        return "random" if self.is_random else "clear"

    def note_derived(self, effective: EffectiveKey, now: float) -> None:
        """The engine has it again."""
        self.origin = effective.origin
        self.derivation = effective.derivation
        self.state = "present"
        self.reason = ""
        self.derivations += 1
        self.derived_at = self.active_at = now

    def note_gone(self, state: GoneState, reason: str) -> None:
        """The engine does not have it."""
        self.state = state
        self.reason = reason

    def note_kept(self) -> None:
        """The engine has it still: it could not be forgotten just now."""
        self.state = "present"
        self.reason = ""


def make_live_key(
    effective: EffectiveKey | None,
    *,
    lease: int | None,
    idle: int | None,
    default: Lease,
    now: float,
) -> LiveKey:
    """The key of a volume that is being opened; what was not asked for is as by ``default``.

    Raises:
        ConfigError: a lease for a key that only the volume's user could bring again.
    """
    key = LiveKey(derived_at=now, active_at=now)
    if effective is not None:
        key.origin = effective.origin
        key.derivation = effective.derivation
        key.is_random = effective.is_random
    if key.derivation is not None:
        key.lease = Lease(
            default.lifetime if lease is None else lease, default.idle if idle is None else idle
        )
        return key
    for name, seconds in (("lease", lease), ("idle", idle)):
        if seconds:
            raise ConfigError(
                f"{name} of {seconds} s: only for a volume whose key is a secure key, which an "
                f"adapter derives again; this one has a {key.kind} key"
            )
    return key
