"""``--help`` and ``--usage``: which actions there are, and what an action takes."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from typing import Final

from .arguments import VOCABULARIES
from .command import Command
from .options import COMMON, CRYPTSETUP, Kind, Option
from .output import Output

_WIDTH: Final = 79  # columns
_LEFT: Final = 36  # of them for what can be typed, where it fits; what it does stands beside it


def show_help(commands: Mapping[str, Command], verb: str, output: Output) -> None:
    """Describe an action with its options, or a group of actions; for any other word all."""
    command = commands.get(verb)
    if command is not None:
        usage = f"fusecrypt {command.usage}"
        lines = [*_wrap(f"Usage: {usage}"), "", *_wrap(f"{command.help}."), ""]
    else:
        group = _find_group(commands, verb)
        shown = [c for name, c in commands.items() if name.startswith(group)]
        usage = f"fusecrypt {group or '[OPTIONS] '}ACTION [ARGUMENTS]"
        lines = [f"Usage: {usage}", ""]
        lines += _format_rows([(f"  {c.usage}", c.help) for c in shown])
        lines.append("")
    options = _list_options(command, verb)
    for line in lines + _format_rows([_describe(n, o, verb) for n, o in options.items()]):
        output.line(line)
    output.json({"usage": usage})


def show_usage(commands: Mapping[str, Command], verb: str, output: Output) -> None:
    """Show the options of an action, or those of every action, without a word about them."""
    command = commands.get(verb)
    rest = command.usage if command else f"{_find_group(commands, verb)}ACTION [ARGUMENTS]"
    options = _list_options(command, verb)
    words = " ".join([*(_bracket(n, o) for n, o in options.items()), rest])
    usage = f"fusecrypt {words}"
    for line in _wrap(f"Usage: {usage}"):
        output.line(line)
    output.json({"usage": usage})


def list_groups(names: Collection[str]) -> frozenset[str]:
    """First words of actions that have two or three."""
    return frozenset(name.partition(" ")[0] for name in names if " " in name)


def _find_group(commands: Mapping[str, Command], verb: str) -> str:
    """The first word of ``verb`` and a space if there are such actions, else nothing."""
    group = verb.partition(" ")[0]
    return f"{group} " if group in list_groups(commands) else ""


def _list_options(command: Command | None, verb: str) -> dict[str, Option]:
    vocabulary = VOCABULARIES.get(verb.partition(" ")[0], CRYPTSETUP)
    names = COMMON if command is None else command.all_options
    return {name: o for name, o in vocabulary.options.items() if name in names}


def _wrap(text: str, indent: int = 8, width: int = _WIDTH) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _format_rows(rows: Collection[tuple[str, str]]) -> list[str]:
    """Two columns in lines of `_WIDTH`; a left side that is too long has lines of its own."""
    left = max((len(row[0]) for row in rows if len(row[0]) <= _LEFT), default=_LEFT)
    lines: list[str] = []
    for typed, meaning in rows:
        above = _wrap(typed, indent=6) if len(typed) > left else []
        beside = "" if above else typed
        lines += above
        for part in _wrap(meaning, indent=0, width=_WIDTH - left - 2):
            lines.append(f"{beside.ljust(left)}  {part}")
            beside = ""
    return lines


def _describe(name: str, option: Option, verb: str) -> tuple[str, str]:
    short = f"-{option.short}, " if option.short else "    "
    given = f" {option.metavar}"
    value = {Kind.FLAG: "", Kind.OPTIONAL: f"[={option.metavar}]"}.get(option.kind, given)
    return f"  {short}--{name}{value}", option.help_of.get(verb, option.help)


def _bracket(name: str, option: Option) -> str:
    short = f"-{option.short}|" if option.short else ""
    given = f"={option.metavar}"
    value = {Kind.FLAG: "", Kind.OPTIONAL: f"[{given}]"}.get(option.kind, given)
    return f"[{short}--{name}{value}]"
