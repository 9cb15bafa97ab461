"""``fusecrypt open --test-passphrase``: does it open a keyslot? No daemon takes part."""

from __future__ import annotations

import contextlib

from ...dmcrypt import luks_change
from ...dmcrypt.engine.client import Engine, Secret
from ...dmcrypt.luks2 import Luks2Header, key_change
from ...dmcrypt.luks_change import AnyHeader
from ...dmcrypt.open_volume import get_key_size
from ...dmcrypt.unlock import check_volume_key
from ...keystore.errors import ConfigError
from ..config import Settings
from ..control.messages import KeyInput
from ..exitcodes import ExitCode
from .arguments import Arguments
from .key_input import make_prompt
from .keyring_tokens import try_tokens_and_keys
from .luks_source import parse_key_slot, read_luks
from .memory_hard_lock import serialize_memory_hard
from .open_options import check_luks_options, parse_type
from .output import Output
from .own_engine import load_secret, run_engine
from .source import check_length, open_for_reading, open_parameter, open_volume_file


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Try a passphrase, key file or volume key.

    Raises:
        UnlockError: it is not the right one.
    """
    kind = parse_type(args.text("type"))
    if kind in ("plain", "loopaes"):
        raise ConfigError(f"--test-passphrase: not for --type {kind}, where no passphrase is wrong")
    check_luks_options(args)
    spec = args.positionals[0]
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(open_volume_file(spec))
        file = source
        if (header_spec := args.text("header")) is not None:
            file = stack.enter_context(open_for_reading(header_spec, "header"))
        header = read_luks(file, output, kind)
        key_slot = parse_key_slot(args, header, source)
        engine = stack.enter_context(run_engine())
        if (volume_key := args.text("volume-key-file")) is not None:
            key_file = stack.enter_context(open_parameter(volume_key, "volume key file"))
            key_size = get_key_size(header)
            check_length(key_file, "volume key file", offset=0, size=key_size)
            key = engine.load_key(key_file.fd, key_size, xts=False)
            check_volume_key(engine, key, header.make_digest_spec())
            return ExitCode.OK

        def attempt(given: KeyInput, number: int | None) -> int:
            with serialize_memory_hard(args, settings), load_secret(engine, given) as secret:
                return _try(engine, header, file.fd, secret, number, args)

        number = try_tokens_and_keys(args, header, key_slot, make_prompt(spec), attempt, output)
    output.note(f"Key slot {number} unlocked.")
    output.json({"keyslot": number})
    return ExitCode.OK


def _try(
    engine: Engine,
    header: AnyHeader,
    fd: int,
    secret: Secret,
    number: int | None,
    args: Arguments,
) -> int:
    """The keyslot that opens. What the data are, and whether there are any, does not matter."""
    found: luks_change.AnyUnlocked
    if isinstance(header, Luks2Header):
        is_any = args.has("unbound")
        found = key_change.unlock(engine, header, fd, secret, number=number, with_unbound=is_any)
    else:
        found = luks_change.unlock(engine, header, fd, secret, number=number)
    assert found.keyslot is not None
    return found.keyslot.id
