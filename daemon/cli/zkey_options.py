"""The options of zkey and of lszcrypt, as those tools spell them, and ours that go with them."""

from __future__ import annotations

from typing import Final

from .options import OPTIONS, Option, Vocabulary, make_flag

#: Taken by every action of these tools.
ZKEY_COMMON: Final = frozenset({"runtime-dir", "json", "help", "version", "verbose", "debug"})

_COMMON_OPTIONS: Final[dict[str, Option]] = {
    "runtime-dir": OPTIONS["runtime-dir"],
    "json": OPTIONS["json"],
    "debug": OPTIONS["debug"],
    "help": make_flag("Show this help", "h"),
    "version": make_flag("Show the version", "v"),
}

ZKEY: Final = Vocabulary(
    {
        **_COMMON_OPTIONS,
        "verbose": make_flag("Say what was done", "V"),
        "xts": make_flag("Make a key for XTS, which is two keys", "x"),
        "keybits": Option("Size of the key, or of one half: 128, 192 or 256", "BITS", "k"),
        "clearkey": Option("Take the clear key in this file instead of a random one", "FILE", "c"),
        "key-type": Option("CCA-AESDATA or CCA-AESCIPHER", "TYPE", "K"),
        "name": Option("Name of the key in the repository; list, validate: a pattern", "NAME", "N"),
        "description": Option("Text that says what the key is for", "TEXT", "d"),
        "volumes": Option("Volumes that use the key, with their names", "VOLUME:NAME,…", "l"),
        "apqns": Option("Adapters that are to hold the master key", "CARD.DOMAIN,…", "a"),
        "no-apqn-check": make_flag("Do not check that these adapters are there and agree"),
        "sector-size": Option("Sector size of the volumes; 0: the system's default", "BYTES", "S"),
        "volume-type": Option("plain or luks2", "TYPE", "t"),
    },
    unsupported=frozenset(
        {
            "complete",
            "exportable",
            "force",
            "format",
            "from-old",
            "gen-dummy-passphrase",
            "in-place",
            "key-file",
            "keyfile-offset",
            "keyfile-size",
            "kms-bound",
            "local",
            "new-name",
            "open",
            "output",
            "remove-dummy-passphrase",
            "run",
            "set-dummy-passphrase",
            "staged",
            "to-new",
            "tries",
            "wrap-with-trusted",
        }
    ),
    more_short_names={
        "F": "force",
        "L": "local",
        "M": "kms-bound",
        "f": "output",
        "i": "in-place",
        "n": "to-new",
        "o": "from-old",
        "p": "complete",
        "r": "run",
        "s": "staged",
        "w": "new-name",
    },
    is_abbreviated=True,
)

LSZCRYPT: Final = Vocabulary(
    {
        **_COMMON_OPTIONS,
        "verbose": make_flag("Show more columns", "V"),
        "cardonly": make_flag("Show cards only"),
        "queueonly": make_flag("Show domains only"),
        "serial": make_flag("Show the serial numbers of the cards", "s"),
    },
    unsupported=frozenset({"accelonly", "bus", "capability", "ccaonly", "domains", "ep11only"}),
    more_short_names={"b": "bus", "c": "capability", "d": "domains"},
)
