"""The actions: which options each takes, and where it is done. One action's code is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ...keystore.errors import ConfigError, UnsupportedError
from ..config import Settings, load_settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .options import COMMON, OPTIONS, Kind
from .output import Output, format_table

Action = Callable[[Arguments, Settings, Output], ExitCode]

_KEY_OPTIONS: Final = frozenset({"key-file", "keyfile-offset", "keyfile-size", "tries", "timeout"})


@dataclass(frozen=True, slots=True)
class Command:
    """One action."""

    usage: str
    help: str
    load: Callable[[], Action]
    options: frozenset[str] = frozenset()
    minimum: int = 0
    maximum: int = 0


def _load_open() -> Action:
    from .open import run

    return run


def _load_close() -> Action:
    from .close import run

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
            "key-slot",
            "header",
            "volume-key-file",
            "verify-passphrase",
            "test-passphrase",
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
        "close [--deferred] NAME",
        "Close a volume",
        _load_close,
        frozenset({"deferred"}),
        minimum=1,
        maximum=1,
    ),
    "status": Command(
        "status [NAME]",
        "Show a volume, or the daemon",
        _load_status,
        maximum=1,
    ),
    "list": Command("list", "List volumes and crypttab entries", _load_list),
    "luksFormat": Command(
        "luksFormat [OPTIONS] SOURCE [KEYFILE]",
        "Make a LUKS2 volume; what SOURCE holds is lost",
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
            "luks2-metadata-size",
            "luks2-keyslots-size",
            "verify-passphrase",
            "force-password",
            "use-random",
            "use-urandom",
        },
        minimum=1,
        maximum=2,
    ),
    "luksDump": Command(
        "luksDump [--dump-json-metadata] SOURCE",
        "Show the header of a LUKS2 volume",
        _load_dump,
        frozenset({"header", "dump-json-metadata"}),
        minimum=1,
        maximum=1,
    ),
    "luksUUID": Command(
        "luksUUID SOURCE",
        "Show the UUID of a LUKS2 volume",
        _load_uuid,
        frozenset({"header", "uuid"}),
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
    "crypttab": Command(
        "crypttab check [FILE]",
        "Say what is wrong in a crypttab",
        _load_crypttab,
        minimum=1,
        maximum=2,
    ),
}

# cryptsetup's older names; the second part is the --type that the name implies.
_ALIASES: Final = {
    "luksOpen": ("open", "luks"),
    "plainOpen": ("open", "plain"),
    "luksClose": ("close", None),
    "plainClose": ("close", None),
    "remove": ("close", None),
}

# cryptsetup's actions that fusecrypt does not have, or not yet.
_UNSUPPORTED: Final = frozenset(
    {
        "benchmark",
        "bitlkClose",
        "bitlkDump",
        "bitlkOpen",
        "config",
        "convert",
        "create",
        "erase",
        "fvault2Close",
        "fvault2Dump",
        "fvault2Open",
        "loopaesClose",
        "loopaesOpen",
        "luksAddKey",
        "luksChangeKey",
        "luksConfig",
        "luksConvertKey",
        "luksErase",
        "luksHeaderBackup",
        "luksHeaderRestore",
        "luksKillSlot",
        "luksRemoveKey",
        "luksResume",
        "luksSuspend",
        "luksAddUnboundKey",
        "reencrypt",
        "refresh",
        "repair",
        "resize",
        "tcryptClose",
        "tcryptDump",
        "tcryptOpen",
        "token",
    }
)


def run(args: Arguments, output: Output) -> ExitCode:
    """Do what the command line asks for.

    Raises:
        MapperError: it cannot be done.
    """
    if args.has("version"):
        _show_version(output)
        return ExitCode.OK
    args = _resolve_alias(args)
    command = COMMANDS.get(args.verb)
    if args.has("help"):
        _show_help(output, command)
        return ExitCode.OK
    if command is None:
        raise _refuse_verb(args.verb)
    args.check(
        command.options | COMMON,
        minimum=command.minimum,
        maximum=command.maximum,
        usage=command.usage,
    )
    settings = load_settings(runtime_dir=args.text("runtime-dir"), crypttab=args.text("crypttab"))
    return command.load()(args, settings, output)


def _resolve_alias(args: Arguments) -> Arguments:
    verb, implied = _ALIASES.get(args.verb, (args.verb, None))
    if implied is None:
        return Arguments(verb, args.positionals, args.options)
    given = args.options.get("type", implied)
    if not given.startswith(implied):
        raise ConfigError(f"{args.verb}: --type {given}; wanted: --type {implied}, or none")
    return Arguments(verb, args.positionals, {**args.options, "type": given})


def _refuse_verb(verb: str) -> ConfigError | UnsupportedError:
    if not verb:
        return ConfigError("no action; wanted: fusecrypt ACTION …; fusecrypt --help lists them")
    if verb in _UNSUPPORTED:
        return UnsupportedError(f"{verb}: not supported")
    return ConfigError(f"{verb}: unknown action; fusecrypt --help lists them")


def _show_version(output: Output) -> None:
    from ..version import VERSION

    output.line(f"fusecrypt {VERSION}")
    output.json({"version": VERSION})


def _show_help(output: Output, command: Command | None) -> None:
    names: frozenset[str] = command.options if command is not None else frozenset()
    if command is not None:
        lines = [f"Usage: fusecrypt {command.usage}", "", f"{command.help}.", ""]
    else:
        lines = ["Usage: fusecrypt [OPTIONS] ACTION [ARGUMENTS]", ""]
        lines += format_table([(f"  {c.usage}", c.help) for c in COMMANDS.values()])
        lines.append("")
    rows = [_describe_option(name) for name in OPTIONS if name in names | COMMON]
    for line in lines + format_table(rows):
        output.line(line)
    output.json({"usage": lines[0].removeprefix("Usage: ")})


def _describe_option(name: str) -> tuple[str, str]:
    option = OPTIONS[name]
    short = f"-{option.short}, " if option.short else "    "
    value = {Kind.FLAG: "", Kind.VALUE: f" {option.metavar}", Kind.OPTIONAL: f"[={option.metavar}]"}
    return f"  {short}--{name}{value[option.kind]}", option.help
