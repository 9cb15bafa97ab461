"""``fusecrypt zkey change``, ``rename``, ``copy`` and ``remove``: keys of the repository."""

from __future__ import annotations

from typing import Final, Literal

from ...keystore.errors import BusyError, ConfigError, MapperError
from ...keystore.repository import ListChange, Repository
from ...keystore.repository_key import LUKS2, PLAIN, RepositoryKey
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .ask_yes import ask_yes
from .dummy_passphrase import OPTIONS as PASSPHRASE_OPTIONS
from .dummy_passphrase import provide_dummy_passphrase
from .output import Output
from .zkey_generate import choose_adapters, parse_apqns, parse_volumes
from .zkey_record import describe_key

_CHANGES: Final = frozenset(
    {"description", "volumes", "apqns", "sector-size", "volume-type", "remove-dummy-passphrase"}
    | PASSPHRASE_OPTIONS
)


def run_change(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Change what is said of a key.

    Raises:
        MapperError: why not; then it is as it was.
    """
    name = args.get_text("name")
    if not any(args.has(option) for option in _CHANGES):
        wanted = ", ".join(f"--{option}" for option in sorted(_CHANGES))
        raise ConfigError(f"zkey change: nothing to change; wanted: one of {wanted}")
    if args.has("remove-dummy-passphrase") and PASSPHRASE_OPTIONS & args.options.keys():
        raise ConfigError("--remove-dummy-passphrase: not together with a new one")
    repository = Repository(settings.zkey_repository)
    keystore = Keystore(settings)
    key = repository.get(name)
    apqns = _choose_apqns(args, keystore, key)
    if args.has("remove-dummy-passphrase") and key.passphrase_path is not None:
        _confirm_removal(args, key)
    kind = args.text("volume-type")
    with provide_dummy_passphrase(args) as passphrase:
        if passphrase is not None:
            _check_takes_passphrase(key, kind or key.volume_type)
        changed = repository.change(
            name,
            description=args.text("description"),
            volumes=_parse_list(args, "volumes"),
            apqns=apqns,
            sector_size=args.number("sector-size"),
            volume_type=None if kind is None else kind.lower(),
            pattern=_find_pattern(keystore, key),
        )
        if args.has("remove-dummy-passphrase"):
            changed = repository.remove_passphrase(name)
        if passphrase is not None:
            changed = repository.set_passphrase(name, passphrase)
    output.json(describe_key(changed, changed.shape, None))
    return ExitCode.OK


def _choose_apqns(args: Arguments, keystore: Keystore, key: RepositoryKey) -> ListChange | None:
    """What becomes of the key's adapters, which must be there and agree, unless nobody checks."""
    apqns = _parse_list(args, "apqns")
    is_checked = not args.has("no-apqn-check")
    if apqns is None:
        if not is_checked:
            raise ConfigError("--no-apqn-check: only with --apqns")
        return None
    if key.kms:
        raise ConfigError(f"key {key.name!r}: is bound to {key.kms}, which has the adapters")
    if is_checked:
        left = apqns.apply(key.apqns, "adapter")
        choose_adapters(keystore, parse_apqns(",".join(left)))
    return apqns


def _check_takes_passphrase(key: RepositoryKey, volume_type: str) -> None:
    if key.passphrase_path is not None:
        raise BusyError(f"key {key.name!r}: has a dummy passphrase; remove that first")
    if volume_type.lower() != LUKS2:
        raise ConfigError(f"key {key.name!r}: a dummy passphrase is for volume type luks2 only")


def run_rename(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Give a key another name.

    Raises:
        MapperError: why not.
    """
    name, new_name = args.get_text("name"), args.get_text("new-name")
    key = Repository(settings.zkey_repository).rename(name, new_name)
    if key.volumes and (key.volume_type == PLAIN or key.passphrase_path is not None):
        output.warn(
            f"crypttab lines and scripts that name files of key {name!r} must be changed, for: "
            + ", ".join(key.volumes)
        )
    output.json(describe_key(key, key.shape, None))
    return ExitCode.OK


def run_copy(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Make a second key with the same content.

    Raises:
        MapperError: why not.
    """
    name, new_name = args.get_text("name"), args.get_text("new-name")
    key = Repository(settings.zkey_repository).copy(
        name, new_name, volumes=parse_volumes(args.text("volumes")), is_local=args.has("local")
    )
    output.json(describe_key(key, key.shape, None))
    return ExitCode.OK


def run_remove(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Remove a key.

    Raises:
        DeclinedError: the one who was asked did not agree.
        MapperError: why not.
    """
    name = args.get_text("name")
    repository = Repository(settings.zkey_repository)
    is_forced = args.has("force") or output.is_quiet
    if not is_forced:
        key = repository.get(name)
        lost = key.volumes if key.volume_type != "luks2" else ()
        warning = ""
        if lost:
            warning = "the following volumes will no longer be usable: " + ", ".join(lost) + ". "
        elif key.volumes:
            warning = f"{', '.join(key.volumes)} keep the copies in their headers only. "
        ask_yes(f"{warning}Remove key '{name}'", f"key {name!r}: was not removed")
    repository.remove(name, is_forced=args.has("force"))
    output.json({"removed": name})
    return ExitCode.OK


def _parse_list(args: Arguments, option: Literal["volumes", "apqns"]) -> ListChange | None:
    """``+A,B`` adds, ``-A,B`` takes away, ``A,B`` replaces."""
    text = args.text(option)
    if text is None:
        return None
    kind: Literal["", "+", "-"] = ""
    if text[:1] == "+":
        kind = "+"
    elif text[:1] == "-":
        kind = "-"
    if any(part[:1] in {"+", "-"} for part in text.split(",")[1:]):
        raise ConfigError(f"--{option}: got {text!r}; wanted: one + or -, in front of the list")
    items = parse_volumes(text[len(kind) :]) if option == "volumes" else ()
    apqns = parse_apqns(text[len(kind) :]) if option == "apqns" else ()
    texts = tuple(map(str, (*items, *apqns)))
    if kind and not texts:
        raise ConfigError(f"--{option}: got {text!r}; wanted: something after {kind}")
    return ListChange(kind, texts)


def _find_pattern(keystore: Keystore, key: RepositoryKey) -> str:
    """The verification pattern of a key that has none yet, if an adapter can tell."""
    if key.pattern:
        return ""
    try:
        return keystore.validate(key.secure_key).pattern
    except MapperError:
        return ""


def _confirm_removal(args: Arguments, key: RepositoryKey) -> None:
    if args.has("force") or args.has("batch-mode"):
        return
    names = ", ".join(key.volumes) or "no volume"
    ask_yes(
        "volumes that only this passphrase opens will no longer be usable without a copy of it: "
        f"{names}. Remove passphrase for key '{key.name}'",
        f"key {key.name!r}: its dummy passphrase was not removed",
    )
