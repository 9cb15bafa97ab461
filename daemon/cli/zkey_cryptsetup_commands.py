"""The actions of zkey-cryptsetup."""

from __future__ import annotations

from typing import Final

from .command import Action, Command
from .s390_options import S390_COMMON


def _load_validate() -> Action:
    from .zkey_cryptsetup import run_validate

    return run_validate


def _load_setvp() -> Action:
    from .zkey_cryptsetup import run_setvp

    return run_setvp


def _load_setkey() -> Action:
    from .zkey_cryptsetup import run_setkey

    return run_setkey


def _load_convert() -> Action:
    from .zkey_cryptsetup import run_convert

    return run_convert


def _load_reencipher() -> Action:
    from .zkey_cryptsetup_reencipher import run

    return run


_KEY: Final = frozenset({"key-file", "keyfile-offset", "keyfile-size", "tries"})
_CHANGE: Final = _KEY | {"batch-mode", "force"}

ZKEY_CRYPTSETUP_COMMANDS: Final[dict[str, Command]] = {
    "zkey-cryptsetup reencipher": Command(
        "zkey-cryptsetup reencipher [OPTIONS] SOURCE",
        "Give the secure key of a LUKS2 volume another master key",
        _load_reencipher,
        _CHANGE | {"to-new", "from-old", "in-place", "staged", "complete"},
        minimum=1,
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey-cryptsetup validate": Command(
        "zkey-cryptsetup validate [OPTIONS] SOURCE",
        "Say what the secure key of a LUKS2 volume is",
        _load_validate,
        _KEY,
        minimum=1,
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey-cryptsetup setvp": Command(
        "zkey-cryptsetup setvp [OPTIONS] SOURCE",
        "Write the key's verification pattern into the header",
        _load_setvp,
        _KEY,
        minimum=1,
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey-cryptsetup setkey": Command(
        "zkey-cryptsetup setkey --volume-key-file FILE [OPTIONS] SOURCE",
        "Put another secure key of the same effective key into the header",
        _load_setkey,
        _CHANGE | {"volume-key-file"},
        minimum=1,
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey-cryptsetup convert": Command(
        "zkey-cryptsetup convert --volume-key-file FILE [OPTIONS] SOURCE",
        "Put a secure key into the header in place of the clear one",
        _load_convert,
        _CHANGE | {"volume-key-file"},
        minimum=1,
        maximum=1,
        common=S390_COMMON,
    ),
}

#: zkey-cryptsetup's commands and how many letters of them must be given.
ZKEY_CRYPTSETUP_WORDS: Final = {
    "reencipher": 2,
    "validate": 3,
    "setvp": 4,
    "setkey": 4,
    "convert": 4,
}
