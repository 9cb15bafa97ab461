"""``luksDump --dump-volume-key`` and ``--unbound``: a clear key, which the engine alone writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from ...dmcrypt import luks_change
from ...dmcrypt.engine.client import Engine, Secret
from ...dmcrypt.engine.messages import KeyForm
from ...dmcrypt.luks2 import Luks2Header, key_change
from ...dmcrypt.luks_change import AnyHeader
from ...dmcrypt.units import SECTOR_SIZE
from ...keystore.errors import (
    AccessError,
    BusyError,
    ConfigError,
    PolicyError,
    UnsupportedError,
)
from ...keystore.keys import ProtectedKey
from ..exitcodes import ExitCode
from .arguments import Arguments
from .ask_yes import ask_capitals
from .header_change import NotConfirmedError
from .key_input import make_key_options, make_prompt
from .new_file import make_new_file
from .output import Output
from .own_engine import read_secret, run_engine
from .passphrase import is_terminal
from .source import SourceFile

_WARNING: Final = (
    "The header dump with volume key is sensitive information\n"
    "that allows access to encrypted partition without a passphrase.\n"
    "This dump should be stored encrypted in a safe place."
)
_SECURE_KEY_CIPHER: Final = "paes"
_STDOUT: Final = 1

#: The key that a passphrase opens, and its bytes.
_Unlock = Callable[[Engine, Secret], tuple[ProtectedKey, int]]


@dataclass(frozen=True, slots=True)
class _Dump:
    """What is printed before the key, and how the key is had."""

    unlock: _Unlock
    make_lines: Callable[[int], list[str]]  # of the key's bytes
    title: str  # before the key itself


def run(args: Arguments, header: AnyHeader, file: SourceFile, output: Output) -> ExitCode:
    """Print a key, or write it to a new file.

    Raises:
        PolicyError: it is a secure key, or that of a volume of secure keys.
        UnlockError: the passphrase opens no keyslot.
        MapperError: the key cannot be written.
    """
    dump = _make_unbound(args, header, file) if args.has("unbound") else _make(args, header, file)
    path = args.text("volume-key-file")
    if path is None and output.json_mode != "off":
        raise ConfigError("--json: shows no key; wanted: --volume-key-file, too")
    _confirm(args)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(run_engine())
        prompt = make_prompt(_spec(args))
        secret = stack.enter_context(read_secret(engine, make_key_options(args), prompt))
        key, size = dump.unlock(engine, secret)
        if path is not None:
            with _new_key_file(path) as fd:
                engine.write_key(key, fd, KeyForm.RAW)
        for line in dump.make_lines(size):
            output.line(line)
        if path is None:
            os.write(_STDOUT, dump.title.encode("ascii"))
            engine.write_key(key, _STDOUT, KeyForm.TEXT)
        else:
            output.line(f"Key stored to file {path}.")
            output.json({"device": file.path, "key_bits": size * 8, "volume_key_file": path})
    return ExitCode.OK


def _make(args: Arguments, header: AnyHeader, file: SourceFile) -> _Dump:
    segment = header.get_segment(read_only=True)
    if segment.cipher.startswith(_SECURE_KEY_CIPHER):
        raise PolicyError(
            f"{file.path}: cipher {segment.cipher}: its volume key is a secure key, and not shown"
        )
    if args.has("dump-json-metadata"):
        raise ConfigError("--dump-volume-key: not with --dump-json-metadata")
    name, _, mode = segment.cipher.partition("-")
    number = args.number("key-slot")
    is_unbound = number in header.list_keyslots() and number not in luks_change.list_bound(header)
    if is_unbound:
        raise ConfigError(f"{file.path}: keyslot {number}: holds another key; wanted: --unbound")

    def unlock(engine: Engine, secret: Secret) -> tuple[ProtectedKey, int]:
        unlocked = luks_change.unlock(engine, header, file.fd, secret, number=number)
        return unlocked.key, unlocked.size

    def make_lines(size: int) -> list[str]:
        return [
            f"LUKS header information for {_spec(args)}",
            f"Cipher name:   \t{name}",
            f"Cipher mode:   \t{mode}",
            f"Payload offset:\t{segment.offset // SECTOR_SIZE}",
            f"UUID:          \t{header.uuid}",
            f"MK bits:       \t{size * 8}",
        ]

    return _Dump(unlock, make_lines, "MK dump:\t")


def _make_unbound(args: Arguments, header: AnyHeader, file: SourceFile) -> _Dump:
    number = args.number("key-slot")
    if number is None:
        raise ConfigError("--unbound: wanted: --key-slot")
    if not isinstance(header, Luks2Header):
        raise UnsupportedError("--unbound: LUKS1 has no such keyslots")
    if number in key_change.list_bound(header) or number not in header.list_keyslots():
        raise ConfigError(f"{file.path}: keyslot {number}: does not contain an unbound key")

    def unlock(engine: Engine, secret: Secret) -> tuple[ProtectedKey, int]:
        unlocked = key_change.unlock(engine, header, file.fd, secret, number=number)
        return unlocked.key, unlocked.size

    def make_lines(size: int) -> list[str]:
        return [
            f"LUKS header information for {_spec(args)}",
            f"UUID:    \t{header.uuid}",
            f"Keyslot: \t{number}",
            f"Key bits:\t{size * 8}",
        ]

    return _Dump(unlock, make_lines, "Unbound Key:\t")


def _spec(args: Arguments) -> str:
    return args.text("header") or args.positionals[0]


def _confirm(args: Arguments) -> None:
    if args.has("batch-mode") or not is_terminal():
        return
    if not ask_capitals(_WARNING):
        raise NotConfirmedError("the key was not shown; wanted: YES")


@contextlib.contextmanager
def _new_key_file(path: str) -> Generator[int, None, None]:
    """A file (0400) that was not there; none if the key does not get there.

    Raises:
        ConfigError: there is one already, or it cannot be made.
    """
    try:
        with make_new_file(path, "volume key file", mode=0o400) as fd:
            yield fd
    except (BusyError, AccessError) as error:
        raise ConfigError(str(error)) from None
