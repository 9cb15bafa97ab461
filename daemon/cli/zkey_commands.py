"""The actions of zkey."""

from __future__ import annotations

from typing import Final

from .command import Action, Command
from .s390_options import S390_COMMON


def _load_generate() -> Action:
    from .zkey_generate import run

    return run


def _load_list() -> Action:
    from .zkey_list import run_list

    return run_list


def _load_validate() -> Action:
    from .zkey_list import run_validate

    return run_validate


def _load_import() -> Action:
    from .zkey_import import run_import

    return run_import


def _load_export() -> Action:
    from .zkey_import import run_export

    return run_export


def _load_remove() -> Action:
    from .zkey_change import run_remove

    return run_remove


def _load_change() -> Action:
    from .zkey_change import run_change

    return run_change


def _load_rename() -> Action:
    from .zkey_change import run_rename

    return run_rename


def _load_copy() -> Action:
    from .zkey_change import run_copy

    return run_copy


def _load_crypttab() -> Action:
    from .zkey_crypttab import run

    return run


def _load_reencipher() -> Action:
    from .zkey_reencipher import run

    return run


def _load_convert() -> Action:
    from .zkey_convert import run

    return run


def _load_cryptsetup() -> Action:
    from .zkey_run import run

    return run


_DESCRIBED: Final = frozenset({"description", "volumes", "apqns", "sector-size", "volume-type"})
_NEW: Final = _DESCRIBED | {"name", "no-apqn-check", "gen-dummy-passphrase", "set-dummy-passphrase"}
_FILTERS: Final = frozenset({"name", "volumes", "apqns", "volume-type", "key-type"})
_KEY_FILE: Final = frozenset({"key-file", "keyfile-offset", "keyfile-size", "tries"})

ZKEY_COMMANDS: Final[dict[str, Command]] = {
    "zkey generate": Command(
        "zkey generate [OPTIONS] FILE | zkey generate --name NAME [OPTIONS]",
        "Make a secure key",
        _load_generate,
        _NEW | {"xts", "keybits", "clearkey", "key-type", "exportable", "local"},
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey validate": Command(
        "zkey validate FILE | zkey validate [--name NAME] [--apqns CARD.DOMAIN,…]",
        "Say which secure keys the adapters can use",
        _load_validate,
        frozenset({"name", "apqns", "no-apqn-check"}),
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey reencipher": Command(
        "zkey reencipher [OPTIONS] [FILE]",
        "Give secure keys another master key",
        _load_reencipher,
        frozenset(
            {"name", "apqns", "to-new", "from-old", "output", "in-place", "staged", "complete"}
        ),
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey convert": Command(
        "zkey convert --key-type CCA-AESCIPHER [--name NAME | FILE]",
        "Make a CCA-AESCIPHER key of a CCA-AESDATA key",
        _load_convert,
        frozenset({"name", "key-type", "force", "batch-mode", "exportable", "no-apqn-check"}),
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey import": Command(
        "zkey import --name NAME [OPTIONS] FILE",
        "Put a secure key into the repository",
        _load_import,
        _NEW | {"exportable", "batch-mode"},
        minimum=1,
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey export": Command(
        "zkey export --name NAME FILE",
        "Write a secure key of the repository into a file",
        _load_export,
        frozenset({"name"}),
        minimum=1,
        maximum=1,
        common=S390_COMMON,
    ),
    "zkey list": Command(
        "zkey list [OPTIONS]",
        "List the secure keys of the repository",
        _load_list,
        _FILTERS | {"local", "kms-bound"},
        common=S390_COMMON,
    ),
    "zkey remove": Command(
        "zkey remove --name NAME [--force]",
        "Remove a secure key from the repository",
        _load_remove,
        frozenset({"name", "force", "batch-mode"}),
        common=S390_COMMON,
    ),
    "zkey change": Command(
        "zkey change --name NAME [OPTIONS]",
        "Change what is said of a secure key",
        _load_change,
        _NEW | {"remove-dummy-passphrase", "force", "batch-mode"},
        common=S390_COMMON,
    ),
    "zkey rename": Command(
        "zkey rename --name NAME --new-name NAME",
        "Give a secure key another name",
        _load_rename,
        frozenset({"name", "new-name"}),
        common=S390_COMMON,
    ),
    "zkey copy": Command(
        "zkey copy --name NAME --new-name NAME [--volumes VOLUME:NAME,…]",
        "Make a second key with the same content",
        _load_copy,
        frozenset({"name", "new-name", "volumes", "local"}),
        common=S390_COMMON,
    ),
    "zkey crypttab": Command(
        "zkey crypttab [OPTIONS]",
        "Print lines for /etc/crypttab",
        _load_crypttab,
        frozenset({"volumes", "volume-type"}) | _KEY_FILE,
        common=S390_COMMON,
    ),
    "zkey cryptsetup": Command(
        "zkey cryptsetup [--open | --format] [--run] [OPTIONS]",
        "Print or run the commands that format or open volumes",
        _load_cryptsetup,
        _KEY_FILE | {"volumes", "volume-type", "open", "format", "run", "batch-mode"},
        common=S390_COMMON,
    ),
}

#: zkey's commands and how many letters of them must be given. What we do not have is refused.
ZKEY_WORDS: Final = {
    "generate": 3,
    "list": 2,
    "validate": 3,
    "change": 2,
    "convert": 3,
    "copy": 2,
    "cryptsetup": 6,
    "crypttab": 6,
    "export": 2,
    "import": 2,
    "integritysetup": 10,
    "integritytab": 10,
    "kms": 2,
    "pvsecrets": 2,
    "reencipher": 2,
    "remove": 3,
    "rename": 3,
}
