"""The actions that change, save or put back LUKS headers."""

from __future__ import annotations

from typing import Final

from .command import Action, Command


def _load_add() -> Action:
    from .header_keys import run_add

    return run_add


def _load_change() -> Action:
    from .header_keys import run_change

    return run_change


def _load_convert() -> Action:
    from .header_keys import run_convert

    return run_convert


def _load_remove() -> Action:
    from .header_slots import run_remove

    return run_remove


def _load_kill() -> Action:
    from .header_slots import run_kill

    return run_kill


def _load_erase() -> Action:
    from .header_slots import run_erase

    return run_erase


def _load_config() -> Action:
    from .header_config import run_config

    return run_config


_HEADER: Final = frozenset({"header", "type", "dry-run"})
_KEY: Final = frozenset(
    {"key-file", "keyfile-offset", "keyfile-size", "timeout", "verify-passphrase"}
)
_NEW_KEY: Final = frozenset({"new-keyfile", "new-keyfile-offset", "new-keyfile-size"})
_PBKDF: Final = frozenset(
    {
        "pbkdf",
        "pbkdf-memory",
        "pbkdf-parallel",
        "pbkdf-force-iterations",
        "iter-time",
        "hash",
        "keyslot-cipher",
        "keyslot-key-size",
        "force-password",
    }
)

HEADER_COMMANDS: Final[dict[str, Command]] = {
    "luksAddKey": Command(
        "luksAddKey [OPTIONS] SOURCE [NEW_KEYFILE]",
        "Add a passphrase or key file",
        _load_add,
        _HEADER
        | _KEY
        | _NEW_KEY
        | _PBKDF
        | {"key-slot", "new-key-slot", "volume-key-file", "unbound", "key-size"},
        minimum=1,
        maximum=2,
    ),
    "luksChangeKey": Command(
        "luksChangeKey [OPTIONS] SOURCE [NEW_KEYFILE]",
        "Replace a passphrase or key file by another",
        _load_change,
        _HEADER | _KEY | _NEW_KEY | _PBKDF | {"key-slot"},
        minimum=1,
        maximum=2,
    ),
    "luksConvertKey": Command(
        "luksConvertKey [OPTIONS] SOURCE",
        "Give a keyslot other costs",
        _load_convert,
        _HEADER | _KEY | _PBKDF | {"key-slot"},
        minimum=1,
        maximum=1,
    ),
    "luksRemoveKey": Command(
        "luksRemoveKey [OPTIONS] SOURCE [KEYFILE]",
        "Remove a passphrase or key file",
        _load_remove,
        _HEADER | _KEY,
        minimum=1,
        maximum=2,
    ),
    "luksKillSlot": Command(
        "luksKillSlot [OPTIONS] SOURCE N",
        "Remove keyslot N",
        _load_kill,
        _HEADER | _KEY,
        minimum=2,
        maximum=2,
    ),
    "erase": Command(
        "erase SOURCE",
        "Remove all keyslots, so that nothing opens the volume",
        _load_erase,
        _HEADER,
        minimum=1,
        maximum=1,
    ),
    "config": Command(
        "config [OPTIONS] SOURCE",
        "Set priority of a keyslot, label, subsystem",
        _load_config,
        _HEADER | {"key-slot", "priority", "label", "subsystem"},
        minimum=1,
        maximum=1,
    ),
}
