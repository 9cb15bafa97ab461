"""Where an action's passphrase comes from: the terminal, standard input, or a key file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, TypeVar

from ...keystore.errors import MapperError, NoKeyError
from ..control.messages import KeyInput
from ..exitcodes import get_kind
from .arguments import Arguments
from .passphrase import (
    Passphrase,
    is_handed_on,
    is_terminal,
    read_stream,
    read_typed,
    read_verified,
    write_terminal,
)
from .source import check_length, open_parameter

DEFAULT_TRIES: Final = 3

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """What the command line says about the key."""

    key_file: str | None = None  # None, or "-" for standard input: a passphrase
    offset: int = 0  # bytes
    size: int = 0  # bytes; 0: all
    tries: int = DEFAULT_TRIES  # 0: no end
    timeout: float | None = None  # seconds
    is_verified: bool = False

    @property
    def is_file(self) -> bool:
        """Whether a key file is named, other than standard input."""
        return self.key_file is not None and self.key_file != "-"

    @property
    def is_interactive(self) -> bool:
        """Whether somebody will be asked, who can be asked again."""
        return not self.is_file and is_terminal()


def make_key_options(
    args: Arguments, *, is_verified: bool | None = None, positional: int | None = None
) -> KeyOptions:
    """The options about the key; argument number ``positional`` is its file without --key-file.

    Raises:
        ConfigError: a value that is not a number.
    """
    tries = args.number("tries")
    key_file = args.text("key-file")
    if key_file is None and positional is not None and len(args.positionals) > positional:
        key_file = args.positionals[positional]
    return KeyOptions(
        key_file=key_file,
        offset=args.number("keyfile-offset") or 0,
        size=args.number("keyfile-size") or 0,
        tries=DEFAULT_TRIES if tries is None else max(tries, 1),
        timeout=args.number("timeout") or None,
        is_verified=args.has("verify-passphrase") if is_verified is None else is_verified,
    )


@contextlib.contextmanager
def provide_key(
    options: KeyOptions, prompt: str, *, exact_size: int = 0
) -> Generator[KeyInput, None, None]:
    """The key as something that daemon or engine can read without waiting.

    Args:
        options: where from.
        prompt: what to ask at the terminal.
        exact_size: how much a plain volume's key takes when it is not hashed, in bytes; it
            replaces ``options.size``.

    Raises:
        MapperError: nothing there, not readable, not typed in time.
    """
    size = exact_size or options.size
    if options.key_file is not None and options.is_file:
        with open_parameter(options.key_file, "key file") as file:
            check_length(file, "key file", offset=options.offset, size=size)
            if is_handed_on(file.fd):
                yield KeyInput(file.fd, "all", keyfile=True, offset=options.offset, size=size)
                return
            where = f"key file {options.key_file}"
            read = read_stream(file.fd, where, to_newline=False, offset=options.offset, size=size)
    elif is_terminal():
        ask = read_verified if options.is_verified else read_typed
        read = ask(prompt, timeout=options.timeout)
    else:
        to_newline = options.key_file is None
        read = read_stream(
            0, "standard input", to_newline=to_newline, offset=options.offset, size=size
        )
    with _pipe(read, is_key_file=options.is_file) as key:
        yield key


def try_keys(
    options: KeyOptions,
    prompt: str,
    attempt: Callable[[KeyInput], Result],
    *,
    exact_size: int = 0,
) -> Result:
    """What ``attempt`` makes of the key; one who types may try again, as often as --tries says.

    Raises:
        MapperError: what the last attempt raised.
    """
    tries = options.tries if options.is_interactive else 1  # from 0 it never comes back to 0
    while True:
        tries -= 1
        with provide_key(options, prompt, exact_size=exact_size) as key:
            try:
                return attempt(key)
            except MapperError as error:
                if tries == 0 or get_kind(error) != NoKeyError.__name__:
                    raise
                write_terminal(f"{error}\n")


def make_prompt(spec: str) -> str:
    """What cryptsetup asks."""
    return f"Enter passphrase for {spec}: "


@contextlib.contextmanager
def _pipe(passphrase: Passphrase, *, is_key_file: bool) -> Generator[KeyInput, None, None]:
    with passphrase, passphrase.pipe() as fd:
        yield KeyInput(fd, "all", keyfile=is_key_file)
