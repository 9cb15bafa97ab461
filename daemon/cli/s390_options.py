"""What the commands of s390-tools have in common: letters that are not cryptsetup's, and ours."""

from __future__ import annotations

from typing import Final

from .options import OPTIONS, Option, make_flag

#: Options of every command; what its --verbose says is the command's own.
S390_OPTIONS: Final[dict[str, Option]] = {
    "runtime-dir": OPTIONS["runtime-dir"],
    "json": OPTIONS["json"],
    "debug": OPTIONS["debug"],
    "help": make_flag("Show this help", "h"),
    "version": make_flag("Show the version", "v"),
}

#: What every action of these commands takes.
S390_COMMON: Final = frozenset({*S390_OPTIONS, "verbose"})
