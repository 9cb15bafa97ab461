"""The actions about adapters and secure keys."""

from __future__ import annotations

from typing import Final

from .command import Action, Command
from .zkey_commands import ZKEY_COMMANDS
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
    **ZKEY_COMMANDS,
}
