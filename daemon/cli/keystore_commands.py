"""The actions about adapters and secure keys."""

from __future__ import annotations

from typing import Final

from .command import Action, Command
from .zkey_options import ZKEY_COMMON


def _load_create() -> Action:
    from .adapter import run_create

    return run_create


def _load_list_adapters() -> Action:
    from .adapter import run_list

    return run_list


def _load_show() -> Action:
    from .adapter import run_show

    return run_show


def _load_remove() -> Action:
    from .adapter import run_remove

    return run_remove


def _load_backup() -> Action:
    from .adapter_backup import run_backup

    return run_backup


def _load_restore() -> Action:
    from .adapter_backup import run_restore

    return run_restore


def _load_lszcrypt() -> Action:
    from .lszcrypt import run

    return run


def _load_generate() -> Action:
    from .zkey_generate import run

    return run


def _load_list() -> Action:
    from .zkey_list import run_list

    return run_list


def _load_validate() -> Action:
    from .zkey_list import run_validate

    return run_validate


_BACKUP_OPTIONS: Final = frozenset({"key-file", "keyfile-offset", "keyfile-size", "timeout"})

KEYSTORE_COMMANDS: Final[dict[str, Command]] = {
    "adapter create": Command(
        "adapter create [--mode cca] [--no-master-key] CARD.DOMAIN",
        "Make a virtual adapter with a random master key",
        _load_create,
        frozenset({"mode", "no-master-key"}),
        minimum=1,
        maximum=1,
    ),
    "adapter list": Command("adapter list", "List the adapters", _load_list_adapters),
    "adapter show": Command(
        "adapter show CARD.DOMAIN",
        "Show an adapter",
        _load_show,
        minimum=1,
        maximum=1,
    ),
    "adapter remove": Command(
        "adapter remove CARD.DOMAIN",
        "Remove an adapter; what its master key protects is lost",
        _load_remove,
        minimum=1,
        maximum=1,
    ),
    "adapter backup": Command(
        "adapter backup [OPTIONS] FILE",
        "Save all adapters with their master keys, sealed with a passphrase",
        _load_backup,
        _BACKUP_OPTIONS,
        minimum=1,
        maximum=1,
    ),
    "adapter restore": Command(
        "adapter restore [OPTIONS] FILE",
        "Make the adapters of a backup again",
        _load_restore,
        _BACKUP_OPTIONS | {"tries"},
        minimum=1,
        maximum=1,
    ),
    "lszcrypt": Command(
        "lszcrypt [-V] [-s] [CARD | CARD.DOMAIN | .DOMAIN]…",
        "List the adapters as lszcrypt does",
        _load_lszcrypt,
        frozenset({"cardonly", "queueonly", "serial"}),
        maximum=256,
        common=ZKEY_COMMON,
    ),
    "zkey generate": Command(
        "zkey generate [OPTIONS] FILE | zkey generate --name NAME [OPTIONS]",
        "Make a secure key",
        _load_generate,
        frozenset(
            {
                "xts",
                "keybits",
                "clearkey",
                "key-type",
                "name",
                "description",
                "volumes",
                "apqns",
                "no-apqn-check",
                "sector-size",
                "volume-type",
            }
        ),
        maximum=1,
        common=ZKEY_COMMON,
    ),
    "zkey list": Command(
        "zkey list [OPTIONS]",
        "List the secure keys of the repository",
        _load_list,
        frozenset({"name", "volumes", "apqns", "volume-type", "key-type"}),
        common=ZKEY_COMMON,
    ),
    "zkey validate": Command(
        "zkey validate FILE | zkey validate [--name NAME] [--apqns CARD.DOMAIN,…]",
        "Say which secure keys the adapters can use",
        _load_validate,
        frozenset({"name", "apqns"}),
        maximum=1,
        common=ZKEY_COMMON,
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
