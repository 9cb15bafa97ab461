"""``luksRemoveKey``, ``luksKillSlot``, ``erase``: keyslots that are forgotten."""

from __future__ import annotations

import contextlib
from typing import Final

from ...dmcrypt import luks_change
from ...dmcrypt.luks_change import AnyHeader
from ...keystore.errors import ConfigError
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .header_change import HeaderAction, open_header
from .key_input import KeyOptions, make_key_options, provide_key
from .locating import locating
from .output import Output
from .own_engine import load_secret, read_secret, run_engine
from .passphrase import NoInputError

_LAST: Final = (
    "This is the last keyslot. Device will become unusable after purging this key, but for the "
    "backup of its header."
)


def run_remove(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Remove the keyslot that a passphrase opens.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    key = make_key_options(args, positional=1)
    with contextlib.ExitStack() as stack:
        action = stack.enter_context(open_header(args, settings, output))
        fd = action.file.fd
        with locating(action.file.path):
            header = luks_change.read_changeable(fd, action.kind)
        engine = stack.enter_context(run_engine())
        prompt = "Enter passphrase to be deleted: "
        secret = stack.enter_context(read_secret(engine, key, prompt))
        with locating(action.file.path):
            unlocked = luks_change.unlock(engine, header, fd, secret)
        assert unlocked.keyslot is not None
        number = unlocked.keyslot.id
        output.note(f"Key slot {number} unlocked.")
        output.note(f"Keyslot {number} is selected for deletion.")
        if luks_change.is_last_keyslot(header, number):
            action.confirm(_LAST, "the last keyslot was not removed")
        _remove(action, header, number)
    return ExitCode.OK


def run_kill(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Remove a keyslot by its number.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    number = _parse_number(args.positionals[1])
    key = make_key_options(args)
    with open_header(args, settings, output) as action:
        with locating(action.file.path):
            header = luks_change.read_changeable(action.file.fd, action.kind)
            luks_change.check_keyslot(header, number)
        output.note(f"Keyslot {number} is selected for deletion.")
        is_last = luks_change.is_last_keyslot(header, number)
        if is_last and key.key_file is None:
            action.confirm(_LAST, "the last keyslot was not removed")
        if not (output.is_quiet and key.is_interactive):
            _verify(action, header, number, key, is_last=is_last)
        _remove(action, header, number, is_last=is_last)
    return ExitCode.OK


def run_erase(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Remove every keyslot that holds the volume key.

    Raises:
        MapperError: why not.
    """
    with open_header(args, settings, output) as action:
        with locating(action.file.path):
            header = luks_change.read_changeable(action.file.fd, action.kind)
        numbers = luks_change.list_bound(header)
        action.confirm(
            f"This operation will erase all keyslots on device {action.file.path}.\n"
            "Device will become unusable after this operation, but for backups of its header.",
            "nothing was erased",
        )
        if action.is_dry:
            notes = [f"Key slot {number} would be removed." for number in numbers]
            action.show_plan(header, luks_change.remove_keyslots(header, numbers), *notes)
            return ExitCode.OK
        with locating(action.file.path):
            numbers = luks_change.erase_keyslots(action.file.fd, header, action.keep)
        for number in numbers:
            output.note(f"Key slot {number} removed.")
        action.finish({"keyslots": numbers})
        if action.has_backup and not output.is_quiet:
            output.warn(
                "the backup of the old header still opens the volume; header forget ends that"
            )
    return ExitCode.OK


def _verify(
    action: HeaderAction, header: AnyHeader, number: int, key: KeyOptions, *, is_last: bool
) -> None:
    """Have somebody show that he can open the volume; who gives nothing at all is not asked.

    Raises:
        MapperError: he cannot.
        ConfigError: nothing came from standard input, and the keyslot is the last one.
    """
    with contextlib.ExitStack() as stack:
        try:
            given = stack.enter_context(provide_key(key, "Enter any remaining passphrase: "))
        except NoInputError:
            if is_last and not action.output.is_quiet:
                raise ConfigError(
                    f"{action.file.path}: keyslot {number}: is the last one; wanted: its "
                    "passphrase, or --batch-mode"
                ) from None
            return
        engine = stack.enter_context(run_engine())
        secret = stack.enter_context(load_secret(engine, given))
        with locating(action.file.path):
            found = luks_change.unlock_another(engine, header, action.file.fd, secret, number)
        assert found.keyslot is not None
        action.output.note(f"Key slot {found.keyslot.id} unlocked.")


def _remove(
    action: HeaderAction, header: AnyHeader, number: int, *, is_last: bool | None = None
) -> None:
    if action.is_dry:
        after = luks_change.remove_keyslots(header, [number])
        action.show_plan(header, after, f"Key slot {number} would be removed.")
        return
    with locating(action.file.path):
        luks_change.remove_keyslot(action.file.fd, header, number, action.keep, is_last=is_last)
    action.output.note(f"Key slot {number} removed.")
    action.finish({"keyslot": number})


def _parse_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"keyslot {text!r}: wanted: a number")
    return int(text)
