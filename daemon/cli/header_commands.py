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


def _load_convert_type() -> Action:
    from .convert import run

    return run


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


def _load_token_add() -> Action:
    from .header_token import run_add

    return run_add


def _load_token_import() -> Action:
    from .header_token import run_import

    return run_import


def _load_token_export() -> Action:
    from .header_token import run_export

    return run_export


def _load_token_remove() -> Action:
    from .header_token import run_remove

    return run_remove


def _load_token_unassign() -> Action:
    from .header_token import run_unassign

    return run_unassign


def _load_backup() -> Action:
    from .header_backup import run_backup

    return run_backup


def _load_restore() -> Action:
    from .header_backup import run_restore

    return run_restore


def _load_repair() -> Action:
    from .header_repair import run

    return run


def _load_history() -> Action:
    from .header_past import run_history

    return run_history


def _load_diff() -> Action:
    from .header_past import run_diff

    return run_diff


def _load_restore_old() -> Action:
    from .header_past import run_restore

    return run_restore


def _load_forget() -> Action:
    from .header_past import run_forget

    return run_forget


_LOOK: Final = frozenset({"header", "type"})
_HEADER: Final = _LOOK | {"dry-run"}
_TOKEN: Final = frozenset({"token-id", "token-replace", "key-slot"})
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
        | {"key-slot", "new-key-slot", "volume-key-file", "unbound", "key-size"}
        | {"token-id", "token-type", "token-only", "new-token-id"},
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
    "convert": Command(
        "convert --type luks1|luks2 SOURCE",
        "Make a LUKS1 header a LUKS2 header, or the other way round",
        _load_convert_type,
        _HEADER,
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
    "luksHeaderBackup": Command(
        "luksHeaderBackup --header-backup-file FILE SOURCE",
        "Write header and keyslots to a new file",
        _load_backup,
        _LOOK | {"header-backup-file"},
        minimum=1,
        maximum=1,
    ),
    "luksHeaderRestore": Command(
        "luksHeaderRestore --header-backup-file FILE SOURCE",
        "Put a header back",
        _load_restore,
        _HEADER | {"header-backup-file"},
        minimum=1,
        maximum=1,
    ),
    "repair": Command(
        "repair SOURCE",
        "Mend a damaged copy of a header",
        _load_repair,
        _HEADER | _KEY | {"key-slot"},
        minimum=1,
        maximum=1,
    ),
    "token add": Command(
        "token add --key-description TEXT [OPTIONS] SOURCE",
        "Add a token for a key of the kernel's keyring",
        _load_token_add,
        _HEADER | _TOKEN | {"key-description", "unbound"},
        minimum=1,
        maximum=1,
    ),
    "token import": Command(
        "token import [OPTIONS] SOURCE",
        "Add a token from JSON",
        _load_token_import,
        _HEADER | _TOKEN | {"json-file"},
        minimum=1,
        maximum=1,
    ),
    "token export": Command(
        "token export --token-id N [OPTIONS] SOURCE",
        "Write a token as JSON",
        _load_token_export,
        _LOOK | {"token-id", "json-file"},
        minimum=1,
        maximum=1,
    ),
    "token remove": Command(
        "token remove --token-id N SOURCE",
        "Remove a token",
        _load_token_remove,
        _HEADER | {"token-id"},
        minimum=1,
        maximum=1,
    ),
    "token unassign": Command(
        "token unassign --token-id N --key-slot N SOURCE",
        "Have a token be for a keyslot no more",
        _load_token_unassign,
        _HEADER | {"token-id", "key-slot"},
        minimum=1,
        maximum=1,
    ),
    "header history": Command(
        "header history SOURCE",
        "List the old headers that were kept",
        _load_history,
        _LOOK | {"uuid"},
        minimum=1,
        maximum=1,
    ),
    "header diff": Command(
        "header diff SOURCE [N]",
        "Show what differs from an old header",
        _load_diff,
        _LOOK | {"uuid"},
        minimum=1,
        maximum=2,
    ),
    "header restore": Command(
        "header restore SOURCE N",
        "Put an old header back",
        _load_restore_old,
        _HEADER | {"uuid"},
        minimum=2,
        maximum=2,
    ),
    "header forget": Command(
        "header forget SOURCE [N]",
        "Overwrite and remove old headers",
        _load_forget,
        _HEADER | {"uuid"},
        minimum=1,
        maximum=2,
    ),
}
