"""The options of pvsecret, as that tool spells them, and ours that go with them."""

from __future__ import annotations

from typing import Final

from .options import OPTIONS, Option, Vocabulary, make_flag

#: Taken by every action.
PVSECRET_COMMON: Final = frozenset({"runtime-dir", "json", "help", "version", "verbose", "debug"})

PVSECRET: Final = Vocabulary(
    {
        "runtime-dir": OPTIONS["runtime-dir"],
        "json": OPTIONS["json"],
        "debug": OPTIONS["debug"],
        "help": make_flag("Show this help", "h"),
        "version": make_flag("Show the version"),
        "verbose": make_flag("Say what was done", "v"),
        "output": Option("Write the request to this file, which must not exist", "FILE", "o"),
        "input-secret": Option("Take the 32 bytes of the secret from this file", "FILE"),
        "output-secret": Option("Write the secret to this file, which must not exist", "FILE"),
    },
)
