"""``fusecrypt zkey reencipher``: secure keys get another master key; what they open stays."""

from __future__ import annotations

import os
import stat
from enum import StrEnum
from pathlib import Path
from typing import Final

from ...keystore.atomic_file import replace_file
from ...keystore.coprocessor import Register
from ...keystore.errors import ConfigError, CoprocessorError, FormatError, MapperError
from ...keystore.keys import SecureKey
from ...keystore.reencipher import Wish
from ...keystore.repository import Repository
from ...keystore.repository_key import LUKS2, RepositoryKey
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .new_file import write_new_file
from .output import Output
from .secure_key_file import read_secure_key
from .zkey_filter import find_whole_keys

_OF_REPOSITORY: Final = ("name", "apqns", "in-place", "staged", "complete")


class Outcome(StrEnum):
    """What became of one key."""

    DONE = "re-enciphered"
    SKIPPED = "skipped"
    FAILED = "failed to re-encipher"


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Re-encipher a file, or keys of the repository; status 1 if one of them could not be.

    Raises:
        MapperError: there is nothing to choose from, or options that exclude each other.
    """
    wish = make_wish(args)
    if args.positionals:
        return _run_file(args, settings, output, wish)
    if args.has("output"):
        raise ConfigError("--output: only for a key in a file")
    return _run_repository(args, settings, output, wish)


def make_wish(args: Arguments) -> Wish:
    """What the options ask for.

    Raises:
        ConfigError: options that exclude each other.
    """
    for name in ("in-place", "staged", "to-new", "from-old"):
        args.refuse_both("complete", name)
    return Wish(args.has("from-old"), args.has("to-new"), args.has("in-place"), args.has("staged"))


def _run_file(args: Arguments, settings: Settings, output: Output, wish: Wish) -> ExitCode:
    for name in _OF_REPOSITORY:
        if args.has(name):
            raise ConfigError(f"--{name}: only for keys of the repository, without a file name")
    (path,) = args.positionals
    keystore = Keystore(settings)
    key = read_secure_key(path)
    register = keystore.validate(key).register
    try:
        plan = wish.plan(register)
    except ConfigError as error:
        raise ConfigError(f"secure key {path}: {error}") from None
    new = keystore.reencipher(key, plan.target)
    to = args.text("output")
    if to is None:
        overwrite(path, new)
    else:
        write_new_file(to, new.token, "secure key")
    if args.has("verbose"):
        output.line(f"{path}: {register} master key replaced by the {plan.target} one")
    output.json({"file": to or path, "from": str(register), "to": str(plan.target)})
    return ExitCode.OK


def overwrite(path: str, key: SecureKey) -> None:
    """Replace the file that a path leads to, whole, with its mode and group.

    Raises:
        AccessError: the file system refuses; the old content is still there.
    """
    real = Path(os.path.realpath(path))
    status = real.stat()
    replace_file(real, key.token, mode=stat.S_IMODE(status.st_mode), group=status.st_gid)


def _run_repository(args: Arguments, settings: Settings, output: Output, wish: Wish) -> ExitCode:
    keystore = Keystore(settings)
    repository = Repository(settings.zkey_repository)
    is_completing = args.has("complete")
    if not keystore.list_adapters():
        raise CoprocessorError("no adapter that has a master key; 'fusecrypt adapter create'")
    counts = dict.fromkeys(Outcome, 0)
    described: list[dict[str, object]] = []
    found = find_whole_keys(args, settings)
    for key in found.keys:
        doing = "Completing re-enciphering for key" if is_completing else "Re-enciphering key"
        output.line(f"{doing} '{key.name}'")
        try:
            if is_completing:
                outcome, text = complete_key(keystore, repository, key)
            else:
                outcome, text = reencipher_key(keystore, repository, key, wish)
        except MapperError as error:
            outcome, text = Outcome.FAILED, str(error)
        output.line(f"  {text}")
        counts[outcome] += 1
        described.append({"name": key.name, "outcome": outcome.name.lower(), "text": text})
        if outcome is Outcome.DONE and key.volume_type == LUKS2 and key.volumes:
            output.warn(
                f"key '{key.name}': the headers of its LUKS2 volumes have keys of their own: "
                f"'fusecrypt zkey-cryptsetup reencipher' is for {', '.join(key.volumes)}"
            )
    for name, damage in found.damaged.items():
        output.say("error", str(damage))
        counts[Outcome.FAILED] += 1
        outcome, text = Outcome.FAILED, str(damage)
        described.append({"name": name, "outcome": outcome.name.lower(), "text": text})
    output.line(", ".join(f"{count} keys {outcome}" for outcome, count in counts.items()))
    output.json({"keys": described, **{o.name.lower(): n for o, n in counts.items()}})
    return ExitCode.WRONG_PARAMETERS if counts[Outcome.FAILED] else ExitCode.OK


def reencipher_key(
    keystore: Keystore, repository: Repository, key: RepositoryKey, wish: Wish
) -> tuple[Outcome, str]:
    """Re-encipher one key of the repository; what became of it, and how to say so.

    Raises:
        MapperError: it could not be; then it is as it was.
    """
    try:
        secure_key = key.secure_key
        validation = keystore.validate(secure_key)
    except (FormatError, CoprocessorError) as error:
        return Outcome.SKIPPED, f"is not valid: {error}"
    try:
        plan = wish.plan(validation.register)
    except ConfigError as error:
        return Outcome.SKIPPED, str(error)
    new = keystore.reencipher(secure_key, plan.target)
    if plan.target is Register.CURRENT:
        _check_pattern(validation.pattern, keystore.validate(new).pattern)
    if plan.is_staged:
        repository.stage_key(key, new)
        then = "after it is set, --complete puts the key into its place"
        return Outcome.DONE, f"staged for the {plan.target} master key; {then}"
    repository.replace_key(key, new)
    if plan.target is Register.NEW:
        return Outcome.DONE, "is enciphered with the NEW master key, and unusable until that is set"
    return Outcome.DONE, f"is enciphered with the {plan.target} master key"


def complete_key(
    keystore: Keystore, repository: Repository, key: RepositoryKey
) -> tuple[Outcome, str]:
    """Put the key that waits into its place, if it can be used by now.

    Raises:
        MapperError: it could not be; then it waits on.
    """
    token = repository.read_pending(key.name)
    if token is None:
        return Outcome.SKIPPED, "staged re-enciphering is not pending"
    pending = SecureKey.parse(token)
    try:
        validation = keystore.validate(pending)
    except CoprocessorError as error:
        return Outcome.FAILED, (
            f"the key that waits is not valid: {error}; the NEW master key may yet have to be set"
        )
    _check_pattern(key.pattern or find_pattern(keystore, key.secure_key), validation.pattern)
    repository.complete_key(key, pending)
    return Outcome.DONE, f"is enciphered with the {validation.register} master key"


def find_pattern(keystore: Keystore, key: SecureKey) -> str:
    """The key's verification pattern, or nothing where no adapter can use the key."""
    try:
        return keystore.validate(key).pattern
    except CoprocessorError:
        return ""


def _check_pattern(old: str, new: str) -> None:
    if old and old != new:
        raise FormatError(
            f"the re-enciphered key has verification pattern {new}, not {old}: it is another key"
        )
