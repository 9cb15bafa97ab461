"""The options of lszcrypt and chzcrypt, as those tools spell them, and ours that go with them."""

from __future__ import annotations

from typing import Final

from .options import Option, Vocabulary, make_flag
from .s390_options import S390_OPTIONS

LSZCRYPT: Final = Vocabulary(
    {
        **S390_OPTIONS,
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
        **S390_OPTIONS,
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
    refused={
        **dict.fromkeys(
            ("config-time", "poll-thread-disable", "poll-thread-enable", "poll-timeout"),
            "it sets a timer of the kernel's AP bus; virtual adapters answer at once",
        ),
        "default-domain": "adapters are named by CARD.DOMAIN; there is no default domain",
    },
    more_short_names={
        "c": "config-time",
        "n": "poll-thread-disable",
        "p": "poll-thread-enable",
        "q": "default-domain",
        "t": "poll-timeout",
    },
)
