"""``luksAddKey``, ``luksChangeKey``, ``luksConvertKey``: keyslots that are made anew."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace

from ...dmcrypt import luks_change
from ...dmcrypt.engine.client import Engine
from ...dmcrypt.luks1 import Luks1Header
from ...dmcrypt.luks2 import Luks2Header
from ...dmcrypt.luks2.change import edit_header
from ...dmcrypt.luks2.key_change import NewKeyslot, add_unbound_keyslot
from ...dmcrypt.luks2.model import Token
from ...dmcrypt.luks2.token_edit import assign_token
from ...dmcrypt.luks_change import AnyHeader, AnyUnlocked
from ...dmcrypt.pbkdf import PbkdfParams
from ...keystore.errors import ConfigError
from ..config import Settings
from ..control.messages import KeyInput
from ..exitcodes import ExitCode
from .arguments import Arguments
from .header_change import HeaderAction, open_header
from .key_input import KeyOptions, make_key_options, provide_key
from .keyring_tokens import get_token, has_token_options, provide_passphrase, try_tokens
from .locating import locating
from .output import Output
from .own_engine import load_secret, read_secret, run_engine
from .source import check_length, open_parameter

_KEY_MIN, _KEY_MAX = 16, 672  # bytes that the engine can wrap


def run_add(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Add a keyslot.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    numbers = [args.number(name) for name in ("key-slot", "new-key-slot")]
    old_number, new_number = numbers
    if new_number is None:  # cryptsetup's older meaning of --key-slot
        old_number, new_number = None, old_number
    is_unbound = args.has("unbound")
    if is_unbound and args.has("new-token-id"):
        raise ConfigError("--new-token-id: not with --unbound")
    if not is_unbound and args.has("key-size") and not args.has("volume-key-file"):
        raise ConfigError("--key-size: only with --unbound or --volume-key-file")
    size = _parse_key_size(args, is_needed=is_unbound)
    with contextlib.ExitStack() as stack:
        action = stack.enter_context(open_header(args, settings, output, only_luks2=is_unbound))
        with locating(action.file.path):
            header = luks_change.read_changeable(action.file.fd, action.kind)
        new = _make_new(args, header, new_number)
        if old_number is not None:
            luks_change.check_keyslot_number(header, old_number)
        if isinstance(header, Luks2Header) and is_unbound and size is not None:
            number = _add_unbound(action, header, size, new)
        else:
            number = _add_bound(action, header, size, old_number, new)
    if number is not None:
        output.note(f"Key slot {number} created.")
        action.finish({"keyslot": number})
    return ExitCode.OK


def run_change(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Have a keyslot opened by another passphrase.

    Raises:
        MapperError: why not; then the keyslot is as it was.
    """
    new_key = _make_new_key(args, positional=1)
    prompt = "Enter passphrase to be changed: "
    return _renew(args, settings, output, prompt, new_key, only_luks2=False)


def run_convert(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Have a keyslot opened by the same passphrase at another cost.

    Raises:
        MapperError: why not; then the keyslot is as it was.
    """
    prompt = "Enter passphrase for keyslot to be converted: "
    return _renew(args, settings, output, prompt, None, only_luks2=True)


def _renew(
    args: Arguments,
    settings: Settings,
    output: Output,
    prompt: str,
    new_key: KeyOptions | None,
    *,
    only_luks2: bool,
) -> ExitCode:
    number = args.number("key-slot")
    with contextlib.ExitStack() as stack:
        action = stack.enter_context(open_header(args, settings, output, only_luks2=only_luks2))
        fd = action.file.fd
        with locating(action.file.path):
            header = luks_change.read_changeable(fd, action.kind)
            if number is not None:
                luks_change.check_keyslot(header, number)
        new = _make_new(args, header, number)
        engine = stack.enter_context(run_engine())
        secret = stack.enter_context(read_secret(engine, make_key_options(args), prompt))
        with locating(action.file.path):
            unlocked = luks_change.unlock(engine, header, fd, secret, number=number)
        assert unlocked.keyslot is not None
        slot = unlocked.keyslot.id
        output.note(f"Key slot {slot} unlocked.")
        may_overwrite = _confirm_overwriting(action, header, unlocked, new)
        if action.is_dry:
            action.show_plan(header, header, f"Key slot {slot} would be replaced.")
            return ExitCode.OK
        if new_key is not None:
            prompt = "Enter new passphrase: "
            secret = stack.enter_context(read_secret(engine, new_key, prompt))
        with locating(action.file.path):
            slot = luks_change.change_keyslot(
                engine, fd, unlocked, secret, new, action.keep, may_overwrite=may_overwrite
            )
    output.note(f"Key slot {slot} created.")
    action.finish({"keyslot": slot})
    return ExitCode.OK


def _confirm_overwriting(
    action: HeaderAction, header: AnyHeader, unlocked: AnyUnlocked, new: NewKeyslot
) -> bool:
    """Whether old key material may be overwritten where there is no room for a second copy."""
    if luks_change.has_room_to_change(header, unlocked.size):
        return False
    assert unlocked.keyslot is not None
    warning = (
        f"{action.file.path}: there is no room for the old and the new keyslot at once. If "
        "overwriting the old one is interrupted, only the backup of the header opens the volume"
    )
    action.confirm(f"{warning}.", "the keyslot was not changed")
    action.output.warn(warning)
    return new.number in (None, unlocked.keyslot.id)


def _add_bound(
    action: HeaderAction,
    header: AnyHeader,
    size: int | None,
    old_number: int | None,
    new: NewKeyslot,
) -> int | None:
    fd, path = action.file.fd, action.file.path
    new_key = _make_new_key(action.args, positional=1)
    with locating(path):
        token = _find_new_token(action.args, header, new_key)
        known = _check_room(action.args, header, new)
    with run_engine() as engine:
        unlocked = _unlock_existing(engine, action, header, known or size, old_number)
        if action.is_dry:
            _show_addition(action, header, new, unlocked.size)
            return None
        if token is None:
            given = provide_key(new_key, "Enter new passphrase for key slot: ")
        else:
            given = provide_passphrase(token)
        with given as key, load_secret(engine, key) as secret, locating(path):
            added = luks_change.add_keyslot(engine, fd, unlocked, secret, new, action.keep)
            if token is not None:
                assign = functools.partial(assign_token, number=token.id, keyslot=added)
                edit_header(fd, assign, action.keep)
            return added


def _find_new_token(args: Arguments, header: AnyHeader, new_key: KeyOptions) -> Token | None:
    """The token that has the new passphrase; a key file comes before it, as with cryptsetup."""
    number = args.number("new-token-id")
    return None if number is None or new_key.key_file is not None else get_token(header, number)


def _check_room(args: Arguments, header: AnyHeader, new: NewKeyslot) -> int | None:
    """Before anything is asked: whether there is room; bytes of the volume key, if one is told."""
    number = luks_change.choose_keyslot(header, new.number)
    size = luks_change.find_key_size(header)
    if size is not None:
        luks_change.choose_area(header, number, size)
    elif not args.has("volume-key-file"):
        raise ConfigError("no active keyslot; wanted: --volume-key-file")
    return size


def _unlock_existing(
    engine: Engine,
    action: HeaderAction,
    header: AnyHeader,
    size: int | None,
    number: int | None,
) -> AnyUnlocked:
    """The volume key: from its file, by a token, or with the passphrase of keyslot ``number``."""
    args, path = action.args, action.file.path
    if (key_path := args.text("volume-key-file")) is not None:
        return _load_volume_key(engine, action, header, key_path, size)
    if has_token_options(args) and not args.has("key-file"):
        return _unlock_by_token(engine, action, header)
    prompt = "Enter any existing passphrase: "
    with read_secret(engine, make_key_options(args), prompt) as secret, locating(path):
        unlocked = luks_change.unlock(engine, header, action.file.fd, secret, number=number)
    assert unlocked.keyslot is not None
    action.output.note(f"Key slot {unlocked.keyslot.id} unlocked.")
    return unlocked


def _unlock_by_token(engine: Engine, action: HeaderAction, header: AnyHeader) -> AnyUnlocked:
    """With a token of any keyslot: cryptsetup does not look at --key-slot then."""

    def attempt(given: KeyInput, number: int | None) -> AnyUnlocked:
        with load_secret(engine, given) as secret:
            return luks_change.unlock(engine, header, action.file.fd, secret, number=number)

    with locating(action.file.path):
        return try_tokens(action.args, header, None, attempt, action.output)


def _add_unbound(
    action: HeaderAction, header: Luks2Header, size: int, new: NewKeyslot
) -> int | None:
    args = action.args
    with contextlib.ExitStack() as stack:
        with locating(action.file.path):
            number = luks_change.choose_keyslot(header, new.number)
            luks_change.choose_area(header, number, size)
        if action.is_dry:
            _show_addition(action, header, new, size)
            return None
        engine = stack.enter_context(run_engine())
        if (path := args.text("volume-key-file")) is not None:
            with open_parameter(path, "volume key file") as file:
                check_length(file, "volume key file", offset=0, size=size)
                key = engine.load_key(file.fd, size, xts=False)
        else:
            key = engine.generate_key(size, xts=False)
        prompt = "Enter new passphrase for key slot: "
        new_key = _make_new_key(args, positional=1)
        secret = stack.enter_context(read_secret(engine, new_key, prompt))
        with locating(action.file.path):
            return add_unbound_keyslot(engine, action.file.fd, key, size, secret, new, action.keep)[
                1
            ]


def _load_volume_key(
    engine: Engine, action: HeaderAction, header: AnyHeader, path: str, size: int | None
) -> AnyUnlocked:
    if size is None:
        raise ConfigError("--volume-key-file: no keyslot tells its size; wanted: --key-size")
    with open_parameter(path, "volume key file") as file:
        check_length(file, "volume key file", offset=0, size=size)
        key = engine.load_key(file.fd, size, xts=False)
    with locating(action.file.path):
        return luks_change.check_given_key(engine, header, key, size)


def _show_addition(action: HeaderAction, header: AnyHeader, new: NewKeyslot, size: int) -> None:
    number = luks_change.choose_keyslot(header, new.number)
    area = luks_change.choose_area(header, number, size)
    action.show_plan(header, header, f"Key slot {number} would be created, its area {area}.")


def _make_new_key(args: Arguments, *, positional: int) -> KeyOptions:
    """Where the new passphrase comes from; who types, types twice, unless -q."""
    is_verified = args.has("verify-passphrase") or not args.has("batch-mode")
    key = make_key_options(args, is_verified=is_verified)
    given = args.positionals[positional] if len(args.positionals) > positional else None
    return replace(
        key,
        key_file=given or args.text("new-keyfile"),
        offset=args.number("new-keyfile-offset") or 0,
        size=args.number("new-keyfile-size") or 0,
    )


def _make_new(args: Arguments, header: AnyHeader, number: int | None) -> NewKeyslot:
    cipher, bits = args.text("keyslot-cipher"), args.number("keyslot-key-size")
    if (cipher is None) != (bits is None):
        raise ConfigError("--keyslot-cipher and --keyslot-key-size: wanted: both, or none")
    if bits is not None and (bits % 8 or bits == 0):
        raise ConfigError(f"--keyslot-key-size {bits}: wanted: a multiple of 8 bits")
    defaults = PbkdfParams()
    own_type, own_hash = defaults.type, defaults.hash_name
    if isinstance(header, Luks1Header):
        own_type, own_hash = "pbkdf2", header.hash_name
        if (args.text("hash") or own_hash).lower() != own_hash.lower():
            raise ConfigError(f"--hash: all of a LUKS1 header has one hash; wanted: {own_hash}")
    pbkdf = PbkdfParams(
        type=args.text("pbkdf") or own_type,
        hash_name=(args.text("hash") or own_hash).lower(),
        milliseconds=args.number("iter-time") or defaults.milliseconds,
        iterations=args.number("pbkdf-force-iterations"),
        memory_kib=args.number("pbkdf-memory"),
        parallel=args.number("pbkdf-parallel"),
    )
    new = NewKeyslot(pbkdf, number, cipher, None if bits is None else bits // 8)
    luks_change.check_new_keyslot(header, new)
    return new


def _parse_key_size(args: Arguments, *, is_needed: bool) -> int | None:
    bits = args.number("key-size")
    if bits is None:
        if is_needed:
            raise ConfigError("--unbound: wanted: --key-size")
        return None
    if bits % 8 or not _KEY_MIN <= bits // 8 <= _KEY_MAX:
        raise ConfigError(
            f"--key-size {bits}: wanted: a multiple of 8 from {_KEY_MIN * 8} to {_KEY_MAX * 8}"
        )
    return bits // 8
