"""The options of lszcrypt and chzcrypt, as those tools spell them, and ours that go with them."""

from __future__ import annotations

from typing import Final

from .options import OPTIONS, Option, Vocabulary, make_flag

#: Taken by every action of these tools.
DEVICE_COMMON: Final = frozenset({"runtime-dir", "json", "help", "version", "verbose", "debug"})

_COMMON_OPTIONS: Final[dict[str, Option]] = {
    "runtime-dir": OPTIONS["runtime-dir"],
    "json": OPTIONS["json"],
    "debug": OPTIONS["debug"],
    "help": make_flag("Show this help", "h"),
    "version": make_flag("Show the version", "v"),
}

LSZCRYPT: Final = Vocabulary(
    {
        **_COMMON_OPTIONS,
        "verbose": make_flag("Show more columns", "V"),
        "cardonly": make_flag("Show cards only"),
        "queueonly": make_flag("Show domains only"),
        "ccaonly": make_flag("Show CCA coprocessors only"),
        "ep11only": make_flag("Show EP11 coprocessors only"),
        "accelonly": make_flag("Show accelerators only"),
        "serial": make_flag("Show the serial numbers of the cards", "s"),
        "domains": make_flag("Show which domains are used and administered", "d"),
        "bus": make_flag("Show what concerns all cards", "b"),
        "capability": make_flag("Show what the cards can do", "c"),
    },
)

CHZCRYPT: Final = Vocabulary(
    {
        **_COMMON_OPTIONS,
        "verbose": make_flag("Say what the devices are then", "V"),
        "enable": make_flag("Set the devices online", "e"),
        "disable": make_flag("Set the devices offline", "d"),
        "all": make_flag("All cards", "a"),
        "config-on": make_flag("Give the cards to this machine"),
        "config-off": make_flag("Take the cards from this machine"),
        "se-bind": make_flag("Give a domain to the secure guest"),
        "se-associate": Option("Have this secret make the session of a bound domain", "INDEX"),
        "se-unbind": make_flag("Take a domain from the secure guest"),
    },
    unsupported=frozenset(
        {
            "config-time",
            "default-domain",
            "poll-thread-disable",
            "poll-thread-enable",
            "poll-timeout",
        }
    ),
    more_short_names={
        "c": "config-time",
        "n": "poll-thread-disable",
        "p": "poll-thread-enable",
        "q": "default-domain",
        "t": "poll-timeout",
    },
)
