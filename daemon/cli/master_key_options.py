"""The options of master-key."""

from __future__ import annotations

from typing import Final

from .options import OPTIONS, Kind, Option, Vocabulary, make_flag

_SHARED: Final = (
    *("runtime-dir", "crypttab", "json", "help", "version", "verbose", "debug", "batch-mode"),
    *("keyfile-offset", "keyfile-size"),
)

MASTER_KEY: Final = Vocabulary(
    {
        **{name: OPTIONS[name] for name in _SHARED},
        "key-file": Option("Try what is in this file on each volume", "FILE", "d", Kind.LIST),
        "force": make_flag("Go on without what is missing", "F"),
    },
    more_short_names={"j": "json"},
)

#: Taken by every action.
COMMON: Final = frozenset(_SHARED) | {"key-file"}
