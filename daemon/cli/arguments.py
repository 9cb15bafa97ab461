"""The command line of ``fusecrypt``: options anywhere, as cryptsetup takes them.

cryptsetup's options may stand before the action, between its arguments and after them; short flags
may be joined, a value may be joined to its option. No abbreviations. After ``zkey``,
``lszcrypt`` and ``chzcrypt`` the words are those tools' own: another vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ...dmcrypt.units import UINT64_MAX, parse_size
from ...keystore.errors import ConfigError, UnsupportedError
from .device_options import CHZCRYPT, LSZCRYPT
from .master_key_options import MASTER_KEY
from .options import CRYPTSETUP, Kind, Vocabulary
from .pvsecret_options import PVSECRET
from .zkey_cryptsetup_options import ZKEY_CRYPTSETUP
from .zkey_options import ZKEY

#: Tools whose command lines follow their names.
VOCABULARIES: Final = {
    "zkey": ZKEY,
    "zkey-cryptsetup": ZKEY_CRYPTSETUP,
    "lszcrypt": LSZCRYPT,
    "chzcrypt": CHZCRYPT,
    "pvsecret": PVSECRET,
    "master-key": MASTER_KEY,
}


@dataclass(frozen=True, slots=True)
class Arguments:
    """What was asked for: an action, its arguments, and options by long name."""

    verb: str
    positionals: tuple[str, ...]
    options: Mapping[str, str]  # flags have the value ""

    def has(self, name: str) -> bool:
        """Whether the option was given."""
        return name in self.options

    def text(self, name: str) -> str | None:
        """An option's value as it stands."""
        return self.options.get(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """The values of an option that may be given several times."""
        value = self.options.get(name)
        return () if value is None else tuple(value.split("\0"))

    def number(self, name: str) -> int | None:
        """An option's value as a number: decimal, 0x… or octal with a leading zero.

        Raises:
            ConfigError: it is not one.
        """
        value = self.options.get(name)
        if value is None:
            return None
        try:
            base = 16 if value[:2].lower() == "0x" else 8 if value[:1] == "0" else 10
            number = int(value, base) if value.isascii() and value.isalnum() else -1
        except ValueError:
            number = -1
        if not 0 <= number <= UINT64_MAX:
            raise ConfigError(f"--{name}: got {value!r}; wanted: a number")
        return number

    def get_text(self, name: str) -> str:
        """The value of an option that the action cannot do without.

        Raises:
            ConfigError: it was not given.
        """
        self._want(name)
        return self.options[name]

    def get_number(self, name: str) -> int:
        """The same as a number, see `number`."""
        self._want(name)
        number = self.number(name)
        assert number is not None
        return number

    def size(self, name: str) -> int | None:
        """An option's value as a number of bytes, with a unit or without.

        Raises:
            ConfigError: it is not one.
        """
        value = self.options.get(name)
        if value is None:
            return None
        try:
            return parse_size(value)
        except ConfigError as error:
            raise ConfigError(f"--{name}: {error}") from None

    def refuse_both(self, name: str, other: str) -> None:
        """Refuse two options that exclude each other.

        Raises:
            ConfigError: both were given.
        """
        if self.has(name) and self.has(other):
            raise ConfigError(f"--{name} and --{other}: wanted: one of them")

    def _want(self, name: str) -> None:
        if name not in self.options:
            raise ConfigError(f"{self.verb}: wanted: --{name}")

    def check(self, allowed: frozenset[str], *, minimum: int, maximum: int, usage: str) -> None:
        """Refuse options that the action does not have, and a wrong number of arguments.

        Raises:
            ConfigError: naming the option, or showing how the action is used.
        """
        for name in self.options:
            if name not in allowed:
                raise ConfigError(f"--{name}: not an option of {self.verb}")
        if not minimum <= len(self.positionals) <= maximum:
            got = len(self.positionals)
            raise ConfigError(f"{self.verb}: got {got} arguments; wanted: fusecrypt {usage}")


def parse_arguments(argv: Sequence[str]) -> Arguments:
    """Take a command line apart.

    Raises:
        ConfigError: an unknown option, a value missing or not wanted.
        UnsupportedError: an option of cryptsetup that we do not have.
    """
    if list(argv) == ["-h"]:  # before an action's words it is --hash
        return Arguments("", (), {"help": ""})
    words: list[str] = []
    options: dict[str, str] = {}
    vocabulary = CRYPTSETUP
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if word.startswith("--"):
            _take_long(word[2:], rest, options, vocabulary)
        elif word.startswith("-") and word != "-":
            _take_short(word[1:], rest, options, vocabulary)
        else:
            if not words:
                vocabulary = VOCABULARIES.get(word, vocabulary)
            words.append(word)
    return Arguments(words[0] if words else "", tuple(words[1:]), options)


def _take_long(text: str, rest: list[str], options: dict[str, str], vocabulary: Vocabulary) -> None:
    name, equals, value = text.partition("=")
    full = vocabulary.find(name)
    _take(full, f"--{name}", value if equals else None, rest, options, vocabulary)


def _take_short(
    letters: str, rest: list[str], options: dict[str, str], vocabulary: Vocabulary
) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        name = vocabulary.short_names.get(letter, "")
        option = vocabulary.options.get(name)
        if option is not None and option.kind in (Kind.VALUE, Kind.LIST) and letters:
            value = letters.removeprefix("=")
            _take(name, f"-{letter}", value, rest, options, vocabulary)
            return
        _take(name, f"-{letter}", None, rest, options, vocabulary)


def _take(
    name: str,
    shown: str,
    value: str | None,
    rest: list[str],
    options: dict[str, str],
    vocabulary: Vocabulary,
) -> None:
    if (reason := vocabulary.refused.get(name)) is not None:
        raise UnsupportedError(f"{shown}: not supported: {reason}")
    option = vocabulary.options.get(name)
    if option is None:
        raise ConfigError(f"{shown}: unknown option; fusecrypt --help lists them")
    if option.kind is Kind.FLAG:
        if value is not None:
            raise ConfigError(f"{shown}: takes no value, got {value!r}")
        value = ""
    elif option.kind is Kind.OPTIONAL:
        value = value or ""
    elif value is None:
        if not rest:
            raise ConfigError(f"{shown}: no value; wanted: {option.metavar}")
        value = rest.pop(0)
    if option.kind is Kind.LIST and name in options:
        value = f"{options[name]}\0{value}"  # no word of a command line has a NUL in it
    options[name] = value
