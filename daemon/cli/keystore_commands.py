"""The actions about adapters and secure keys."""

from __future__ import annotations

from typing import Final

from .command import Action, Command
from .guest_commands import GUEST_COMMANDS
from .s390_options import S390_COMMON
from .zkey_commands import ZKEY_COMMANDS


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


def _load_master_key_load() -> Action:
    from .adapter_master_key import run_load

    return run_load


def _load_master_key_generate() -> Action:
    from .adapter_master_key import run_generate

    return run_generate


def _load_master_key_clone() -> Action:
    from .adapter_master_key import run_clone

    return run_clone


def _load_master_key_clear() -> Action:
    from .adapter_master_key import run_clear_new

    return run_clear_new


def _load_add() -> Action:
    from .adapter import run_add

    return run_add


def _load_leave_imprint() -> Action:
    from .adapter import run_leave_imprint

    return run_leave_imprint


def _load_master_key_commit() -> Action:
    from .adapter_master_key import run_commit

    return run_commit


def _load_master_key_set() -> Action:
    from .adapter_master_key import run_set

    return run_set


def _load_master_key_query() -> Action:
    from .adapter_master_key import run_query

    return run_query


def _load_master_key_split() -> Action:
    from .adapter_shares import run_split

    return run_split


def _load_master_key_combine() -> Action:
    from .adapter_shares import run_combine

    return run_combine


def _load_checkstop() -> Action:
    from .chzcrypt import run_checkstop

    return run_checkstop


def _load_recover() -> Action:
    from .chzcrypt import run_recover

    return run_recover


def _load_chzcrypt() -> Action:
    from .chzcrypt import run

    return run


def _load_seal() -> Action:
    from .adapter_seal import run_seal

    return run_seal


def _load_unlock() -> Action:
    from .adapter_seal import run_unlock

    return run_unlock


def _load_lock() -> Action:
    from .adapter_seal import run_lock

    return run_lock


def _load_bump_session() -> Action:
    from .bump_session import run

    return run


def _load_check() -> Action:
    from .adapter_check import run

    return run


def _load_audit_verify() -> Action:
    from .audit import run_verify

    return run_verify


def _load_audit_show() -> Action:
    from .audit import run_show

    return run_show


def _load_lszcrypt() -> Action:
    from .lszcrypt import run

    return run


_BACKUP_OPTIONS: Final = frozenset({"key-file", "keyfile-offset", "keyfile-size", "timeout"})

KEYSTORE_COMMANDS: Final[dict[str, Command]] = {
    "adapter create": Command(
        "adapter create [--mode cca|ep11|accel|pkcs11] [--card-type TYPE] [--uri URI]"
        " [--no-master-key] CARD.DOMAIN",
        "Make a virtual adapter with a random master key, or an adapter of a PKCS#11 token",
        _load_create,
        frozenset(
            {
                *("mode", "card-type", "no-master-key", "control-only"),
                *("uri", "allow-clear-in-keystored"),
            }
        ),
        minimum=1,
        maximum=1,
    ),
    "adapter add": Command(
        "adapter add CARD.DOMAIN",
        "Use an adapter of this IBM Z machine",
        _load_add,
        minimum=1,
        maximum=1,
    ),
    "adapter leave-imprint": Command(
        "adapter leave-imprint CARD.DOMAIN",
        "Take an adapter in EP11 mode into use, so that it may have a master key",
        _load_leave_imprint,
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
    "adapter master-key load": Command(
        "adapter master-key load --part first|middle|last CARD.DOMAIN FILE",
        "Combine a part of 32 bytes into the NEW master key",
        _load_master_key_load,
        frozenset({"part"}),
        minimum=2,
        maximum=2,
    ),
    "adapter master-key generate": Command(
        "adapter master-key generate CARD.DOMAIN",
        "Make a random NEW master key",
        _load_master_key_generate,
        minimum=1,
        maximum=1,
    ),
    "adapter master-key clone": Command(
        "adapter master-key clone [--register new|current|old] CARD.DOMAIN FROM",
        "Make another adapter's master key the NEW one",
        _load_master_key_clone,
        frozenset({"register"}),
        minimum=2,
        maximum=2,
    ),
    "adapter master-key clear-new": Command(
        "adapter master-key clear-new CARD.DOMAIN",
        "Empty the NEW register",
        _load_master_key_clear,
        minimum=1,
        maximum=1,
    ),
    "adapter master-key commit": Command(
        "adapter master-key commit CARD.DOMAIN",
        "Approve the NEW master key of an adapter in EP11 mode",
        _load_master_key_commit,
        minimum=1,
        maximum=1,
    ),
    "adapter master-key set": Command(
        "adapter master-key set [--force] CARD.DOMAIN",
        "Make NEW the CURRENT master key, and CURRENT the OLD one",
        _load_master_key_set,
        frozenset({"force"}),
        minimum=1,
        maximum=1,
    ),
    "adapter master-key query": Command(
        "adapter master-key query CARD.DOMAIN",
        "Show the master-key registers",
        _load_master_key_query,
        minimum=1,
        maximum=1,
    ),
    "adapter master-key split": Command(
        "adapter master-key split --shares N --threshold K [OPTIONS] CARD.DOMAIN DIRECTORY",
        "Write N shares of a master key, any K of which make it again",
        _load_master_key_split,
        frozenset({"shares", "threshold", "register"}),
        minimum=2,
        maximum=2,
    ),
    "adapter master-key combine": Command(
        "adapter master-key combine CARD.DOMAIN FILE… | adapter master-key combine --dry-run FILE…",
        "Make the NEW master key of shares, or only try them",
        _load_master_key_combine,
        frozenset({"dry-run"}),
        minimum=1,
        maximum=9,
    ),
    "adapter checkstop": Command(
        "adapter checkstop CARD…",
        "Let cards fail, for a drill",
        _load_checkstop,
        minimum=1,
        maximum=256,
    ),
    "adapter recover": Command(
        "adapter recover CARD…",
        "Let cards work again after a drill",
        _load_recover,
        minimum=1,
        maximum=256,
    ),
    "adapter bump-session": Command(
        "adapter bump-session",
        "Void all protected keys, as an IPL does; volumes have theirs derived again",
        _load_bump_session,
    ),
    "adapter check": Command(
        "adapter check [CARD.DOMAIN…]",
        "Say whether adapters can serve the same keys",
        _load_check,
        maximum=256,
    ),
    "adapter seal": Command(
        "adapter seal [--with METHOD] [OPTIONS]",
        "Say, or change, what seals the adapters' state",
        _load_seal,
        _BACKUP_OPTIONS | {"with", "pcrs"},
    ),
    "adapter unlock": Command(
        "adapter unlock [OPTIONS]",
        "Give the passphrase that seals the adapters' state",
        _load_unlock,
        _BACKUP_OPTIONS | {"tries"},
    ),
    "adapter lock": Command(
        "adapter lock",
        "Have the passphrase asked for again",
        _load_lock,
    ),
    "audit verify": Command(
        "audit verify [--head HEAD] [DIRECTORY]",
        "Say whether the record of the use of keys is whole",
        _load_audit_verify,
        frozenset({"head"}),
        maximum=1,
    ),
    "audit show": Command(
        "audit show [DIRECTORY]",
        "Show who used which keys",
        _load_audit_show,
        maximum=1,
    ),
    "chzcrypt": Command(
        "chzcrypt -e|-d|--config-on|--config-off -a | DEVICE… or"
        " chzcrypt --se-bind|--se-associate INDEX|--se-unbind CARD.DOMAIN",
        "Set cards and domains online, offline, configured or deconfigured, or bind a domain",
        _load_chzcrypt,
        frozenset({"enable", "disable", "all", "config-on", "config-off"})
        | {"se-bind", "se-associate", "se-unbind"},
        maximum=256,
        common=S390_COMMON,
    ),
    "lszcrypt": Command(
        "lszcrypt [-V] [-s|-d|-b|-c] [CARD | CARD.DOMAIN | .DOMAIN]…",
        "List the adapters as lszcrypt does",
        _load_lszcrypt,
        frozenset(
            {
                "accelonly",
                "bus",
                "capability",
                "cardonly",
                "ccaonly",
                "domains",
                "ep11only",
                "queueonly",
                "serial",
            }
        ),
        maximum=256,
        common=S390_COMMON,
    ),
    **GUEST_COMMANDS,
    **ZKEY_COMMANDS,
}
