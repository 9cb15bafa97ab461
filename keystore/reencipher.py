"""Which master key a secure key is to be re-enciphered with, and where the result belongs. No I/O.

Source: the manual page zkey(1) of s390-tools, "re-encipher".
"""

from __future__ import annotations

from dataclasses import dataclass

from .coprocessor import Register
from .errors import ConfigError


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks for; nothing at all leaves the choice to us."""

    from_old: bool = False
    to_new: bool = False
    in_place: bool = False
    staged: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError: in place and staged."""
        if self.in_place and self.staged:
            raise ConfigError("--in-place and --staged: wanted: one of them")

    def plan(self, register: Register) -> Plan:
        """What to do with a key whose master key is in ``register``.

        Raises:
            ConfigError: it is under the CURRENT master key, and was to come from OLD.
        """
        from_old = self.from_old or (not self.to_new and register is Register.OLD)
        to_new = self.to_new or not from_old
        if from_old and not to_new and register is Register.CURRENT:
            raise ConfigError("is enciphered with the CURRENT master key already")
        target = Register.NEW if to_new else Register.CURRENT
        is_staged = self.staged or (to_new and not self.in_place)
        return Plan(target, is_staged)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done with one key."""

    target: Register  # CURRENT or NEW
    is_staged: bool  # the result waits, else it takes the key's place
