"""The actions: which options each takes, and where it is done. One action's code is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from ...dmcrypt.backing import without_locks
from ...keystore.errors import ConfigError, UnsupportedError
from ..config import load_settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .command import Action, Command
from .header_commands import HEADER_COMMANDS
from .help import list_groups, show_help, show_usage
from .keystore_commands import KEYSTORE_COMMANDS
from .master_key_commands import MASTER_KEY_COMMANDS
from .output import Output
from .pvsecret_options import REFUSED_PVSECRET_ACTIONS
from .refused_options import REFUSED_ACTIONS
from .volume_commands import VOLUME_COMMANDS
from .zkey_commands import ZKEY_WORDS
from .zkey_cryptsetup_commands import ZKEY_CRYPTSETUP_COMMANDS, ZKEY_CRYPTSETUP_WORDS

_KEY_OPTIONS: Final = frozenset({"key-file", "keyfile-offset", "keyfile-size", "tries", "timeout"})


def _load_open() -> Action:
    from .open import run

    return run


def _load_close() -> Action:
    from .close import run

    return run


def _load_table() -> Action:
    from .table import run

    return run


def _load_status() -> Action:
    from .status import run_status

    return run_status


def _load_list() -> Action:
    from .status import run_list

    return run_list


def _load_format() -> Action:
    from .format import run

    return run


def _load_dump() -> Action:
    from .header import run_dump

    return run_dump


def _load_uuid() -> Action:
    from .header import run_uuid

    return run_uuid


def _load_is_luks() -> Action:
    from .header import run_is_luks

    return run_is_luks


def _load_crypttab() -> Action:
    from .crypttab import run

    return run


COMMANDS: Final[dict[str, Command]] = {
    "open": Command(
        "open [OPTIONS] SOURCE NAME | open NAME",
        "Open an image or device as NAME, or the crypttab entry NAME",
        _load_open,
        _KEY_OPTIONS
        | {
            "type",
            "readonly",
            "allow-discards",
            "lease",
            "idle",
            "persistent",
            "shared",
            "serialize-memory-hard-pbkdf",
            "key-slot",
            "token-id",
            "token-type",
            "token-only",
            "header",
            "volume-key-file",
            "verify-passphrase",
            "test-passphrase",
            "unbound",
            "cipher",
            "key-size",
            "hash",
            "offset",
            "skip",
            "size",
            "device-size",
            "sector-size",
            "iv-large-sectors",
        },
        minimum=1,
        maximum=2,
    ),
    "close": Command(
        "close [--deferred | --cancel-deferred] NAME",
        "Close a volume",
        _load_close,
        frozenset({"deferred", "cancel-deferred", "header"}),
        minimum=1,
        maximum=1,
    ),
    "table": Command(
        "table NAME [TABLE | --table FILE] | table [--show-keys] NAME",
        "Open a device by a raw table, as dmsetup does, or show the table of an open one",
        _load_table,
        frozenset({"table", "show-keys", "readonly"}),
        minimum=1,
        maximum=2,
    ),
    "status": Command(
        "status [NAME]",
        "Show a volume, or the daemon",
        _load_status,
        frozenset({"header"}),
        maximum=1,
    ),
    "list": Command("list", "List volumes and crypttab entries", _load_list),
    "luksFormat": Command(
        "luksFormat [OPTIONS] SOURCE [KEYFILE]",
        "Make a LUKS volume; what SOURCE holds is lost",
        _load_format,
        (_KEY_OPTIONS - {"tries"})
        | {
            "type",
            "cipher",
            "key-size",
            "hash",
            "sector-size",
            "pbkdf",
            "pbkdf-memory",
            "pbkdf-parallel",
            "pbkdf-force-iterations",
            "iter-time",
            "label",
            "subsystem",
            "uuid",
            "volume-key-file",
            "key-slot",
            "header",
            "offset",
            "align-payload",
            "luks2-metadata-size",
            "luks2-keyslots-size",
            "keyslot-cipher",
            "keyslot-key-size",
            "dry-run",
            "verify-passphrase",
            "force-password",
            "force-weak",
            "use-random",
            "use-urandom",
        },
        minimum=1,
        maximum=2,
    ),
    "luksDump": Command(
        "luksDump [OPTIONS] SOURCE",
        "Show the header of a LUKS volume, or its key",
        _load_dump,
        frozenset({"header", "type", "dump-json-metadata", "dump-volume-key", "unbound"})
        | (_KEY_OPTIONS - {"tries"})
        | {"key-slot", "volume-key-file"},
        minimum=1,
        maximum=1,
    ),
    "luksUUID": Command(
        "luksUUID [--type luks1|luks2] [--uuid UUID] SOURCE",
        "Show or set the UUID of a LUKS volume",
        _load_uuid,
        frozenset({"header", "type", "uuid", "dry-run"}),
        minimum=1,
        maximum=1,
    ),
    "isLuks": Command(
        "isLuks [--type luks1|luks2] SOURCE",
        "Exit with 0 if SOURCE is a LUKS volume, else with 1",
        _load_is_luks,
        frozenset({"header", "type"}),
        minimum=1,
        maximum=1,
    ),
    "crypttab check": Command(
        "crypttab check [FILE]",
        "Say what is wrong in a crypttab",
        _load_crypttab,
        maximum=1,
    ),
    **HEADER_COMMANDS,
    **VOLUME_COMMANDS,
    **KEYSTORE_COMMANDS,
    **ZKEY_CRYPTSETUP_COMMANDS,
    **MASTER_KEY_COMMANDS,
}

#: First words of actions that have more of them.
_GROUPS: Final = list_groups(COMMANDS)

#: Tools whose commands may be cut short, in any case.
_SHORTENED: Final = {"zkey": ZKEY_WORDS, "zkey-cryptsetup": ZKEY_CRYPTSETUP_WORDS}

#: So many actions of a group are named where none of them was.
_SHOWN: Final = 4

#: Actions that there are not, and why.
_REFUSED: Final = {**REFUSED_ACTIONS, **REFUSED_PVSECRET_ACTIONS}

# cryptsetup's older names; the second part is the --type that the name implies.
_ALIASES: Final = {
    "create": ("open", "plain"),
    "plainOpen": ("open", "plain"),
    "luksOpen": ("open", "luks"),
    "loopaesOpen": ("open", "loopaes"),
    **dict.fromkeys(
        (
            "remove",
            "plainClose",
            "luksClose",
            "loopaesClose",
            "tcryptClose",
            "bitlkClose",
            "fvault2Close",
        ),
        ("close", None),
    ),
    "luksConfig": ("config", None),
    "luksErase": ("erase", None),
}


def run(args: Arguments, output: Output) -> ExitCode:
    """Do what the command line asks for.

    Raises:
        MapperError: it cannot be done.
    """
    if args.has("version"):
        _show_version(output)
        return ExitCode.OK
    if args.verb == "help":
        args = Arguments(
            args.positionals[0] if args.positionals else "",
            args.positionals[1:],
            {**args.options, "help": ""},
        )
    args = _resolve_group(_resolve_alias(args))
    command = COMMANDS.get(args.verb)
    if args.has("help"):
        show_help(COMMANDS, args.verb, output)
        return ExitCode.OK
    if args.has("usage"):
        show_usage(COMMANDS, args.verb, output)
        return ExitCode.OK
    if command is None:
        raise _refuse_verb(args.verb)
    args.check(
        command.all_options,
        minimum=command.minimum,
        maximum=command.maximum,
        usage=command.usage,
    )
    if args.has("test-args"):
        output.line("No action taken: --test-args.")
        return ExitCode.OK
    settings = load_settings(runtime_dir=args.text("runtime-dir"), crypttab=args.text("crypttab"))
    with without_locks(wanted=args.has("disable-locks")):
        return command.load()(args, settings, output)


def _resolve_alias(args: Arguments) -> Arguments:
    verb, implied = _ALIASES.get(args.verb, (args.verb, None))
    if args.verb == "create":  # the one action of old that has the name first
        if len(args.positionals) != 2:
            raise ConfigError("create: wanted: fusecrypt create NAME SOURCE")
        args = Arguments(args.verb, args.positionals[::-1], args.options)
    if implied is None:
        return _resolve_refresh(Arguments(verb, args.positionals, args.options))
    given = args.options.get("type", implied)
    if not given.startswith(implied):
        raise ConfigError(f"{args.verb}: --type {given}; wanted: --type {implied}, or none")
    return _resolve_refresh(Arguments(verb, args.positionals, {**args.options, "type": given}))


def _resolve_refresh(args: Arguments) -> Arguments:
    """``open --refresh [SOURCE] NAME`` is ``refresh NAME``."""
    if args.verb == "open" and args.has("refresh"):
        return Arguments("refresh", args.positionals[-1:], args.options)
    return args


def _resolve_group(args: Arguments) -> Arguments:
    """Make one verb of an action's two or three words; zkey's may be cut short, in any case."""
    group = args.verb
    if group not in _GROUPS or not args.positionals:
        return args
    word, *rest = args.positionals
    word = _complete(word, _SHORTENED.get(group, {}))
    verb = f"{group} {word}"
    if rest and any(name.startswith(f"{verb} ") for name in COMMANDS):
        verb = f"{verb} {rest.pop(0)}"
    return Arguments(verb, tuple(rest), args.options)


def _complete(word: str, words: Mapping[str, int]) -> str:
    """The whole name of a command that may have been cut short to so many letters."""
    for full, shortest in words.items():
        if full.startswith(word.lower()) and len(word) >= shortest:
            return full
    return word


def _refuse_verb(verb: str) -> ConfigError | UnsupportedError:
    if not verb:
        return ConfigError("no action; wanted: fusecrypt ACTION …; fusecrypt --help lists them")
    group, _, word = verb.partition(" ")
    if (reason := _REFUSED.get(verb)) is not None:
        return UnsupportedError(f"{verb}: not supported: {reason}")
    if group == "zkey" and word in ZKEY_WORDS:
        return UnsupportedError(f"{verb}: not supported")
    if group in _GROUPS:
        return ConfigError(
            f"{verb}: wanted: fusecrypt {' | '.join(_find_similar(verb))}; "
            f"fusecrypt {group} --help says more"
        )
    return ConfigError(f"{verb}: unknown action; fusecrypt --help lists them")


def _find_similar(verb: str) -> list[str]:
    """A few actions that begin like ``verb``, those most like it; ``…`` where there are more."""
    head, _, word = verb.rpartition(" ")
    if any(name.startswith(f"{verb} ") for name in COMMANDS):
        head, word = verb, ""
    ends = [name.removeprefix(f"{head} ") for name in COMMANDS if name.startswith(f"{head} ")]
    found = (get_close_matches(word, ends) or ends)[:_SHOWN]
    more = ["…"] if len(found) < len(ends) else []
    return [f"{head} {end}" for end in found] + more


def _show_version(output: Output) -> None:
    from ..version import VERSION

    output.line(f"fusecrypt {VERSION}")
    output.json({"version": VERSION})
