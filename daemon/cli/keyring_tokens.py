"""Passphrases that a LUKS2 header's tokens name: keys of the kernel's keyring.

What follows when none helps is as with `cryptsetup open` of version 2.6.1: a passphrase is asked
for, or with --token-only nothing, and the exit code is 1 where no token could help, 2 where none
did. Tokens of other types than luks2-keyring need hardware or programs, and are passed over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from ...dmcrypt.luks2 import Luks2Header
from ...dmcrypt.luks2.keyslot import PRIORITY_IGNORE, find_bound
from ...dmcrypt.luks2.model import Metadata, Token
from ...dmcrypt.luks2.token import KEYRING, get_key_description
from ...dmcrypt.luks_change import AnyHeader
from ...keystore.errors import ConfigError, FormatError, MapperError, NoKeyError
from ..control.messages import KeyInput
from ..exitcodes import get_kind
from .arguments import Arguments
from .kernel_keyring import read_user_key
from .key_input import make_key_options, try_keys
from .output import Output

Result = TypeVar("Result")

#: Tries a passphrase on a keyslot, or without a number on all of them.
Attempt = Callable[[KeyInput, int | None], Result]


@dataclass(frozen=True, slots=True)
class Offer:
    """A token with a passphrase, and a keyslot that it is for."""

    token: Token
    keyslot: int


class NoTokenError(ConfigError):
    """There is no token that could help."""


class TokenKeyError(NoKeyError):
    """What the keyring has of a token's passphrase does not help."""


def has_token_options(args: Arguments) -> bool:
    """Whether one of the options asks for tokens."""
    return any(args.has(name) for name in ("token-id", "token-type", "token-only"))


def try_tokens_and_keys(
    args: Arguments,
    header: AnyHeader,
    key_slot: int | None,
    prompt: str,
    attempt: Attempt[Result],
    output: Output,
) -> Result:
    """What ``attempt`` makes of a token's passphrase, else, as `try_keys`, of the caller's.

    Raises:
        MapperError: what the last attempt raised; with --token-only as `try_tokens`.
    """
    try:
        return try_tokens(args, header, key_slot, attempt, output)
    except (NoTokenError, TokenKeyError):
        if args.has("token-only"):
            raise
    return try_keys(make_key_options(args), prompt, lambda key: attempt(key, key_slot))


def try_tokens(
    args: Arguments,
    header: AnyHeader,
    key_slot: int | None,
    attempt: Attempt[Result],
    output: Output,
) -> Result:
    """What ``attempt`` makes of the passphrase of a token that the options allow.

    Raises:
        NoTokenError, TokenKeyError: none helps.
        MapperError: what else an attempt raised.
    """
    offers = list_offers(args, header, key_slot, output)
    for offer in offers:
        try:
            with provide_passphrase(offer.token) as key:
                return attempt(key, offer.keyslot)
        except MapperError as error:
            if not (isinstance(error, TokenKeyError) or get_kind(error) == NoKeyError.__name__):
                raise
            output.note(f"Token {offer.token.id} does not open keyslot {offer.keyslot}: {error}")
    if not offers:
        raise NoTokenError("no usable token; wanted: one of type luks2-keyring, with keyslots")
    raise TokenKeyError("no token opens its keyslot with what the keyring has")


@contextlib.contextmanager
def provide_passphrase(token: Token) -> Generator[KeyInput, None, None]:
    """The token's passphrase, for the engine.

    Raises:
        TokenKeyError: the keyring does not have it, or the token does not say which key.
    """
    try:
        description = get_key_description(token)
    except FormatError as error:
        raise TokenKeyError(str(error)) from None
    passphrase = read_user_key(description)
    if passphrase is None:
        raise TokenKeyError(f"token {token.id}: no key {description!r} in the keyring")
    with passphrase, passphrase.pipe() as fd:
        yield KeyInput(fd, "all", keyfile=False)


def list_offers(
    args: Arguments, header: AnyHeader, key_slot: int | None, output: Output
) -> list[Offer]:
    """What the tokens offer, in the order to try it. ``key_slot`` leaves out the other keyslots.

    Unlike with cryptsetup 2.6.1, which opens any keyslot by a token whichever one was named.
    """
    if not isinstance(header, Luks2Header):
        return []
    usable = _list_keyslots(header.metadata, key_slot)
    offers: list[Offer] = []
    for token in _choose_tokens(args, header):
        if token.type == KEYRING:
            offers += [Offer(token, number) for number in usable if number in token.keyslots]
        elif args.has("token-id") or args.has("token-type"):
            output.warn(f"token {token.id}: type {token.type}: not supported")
    return offers


def get_token(header: AnyHeader, number: int) -> Token:
    """A token that names a passphrase.

    Raises:
        NoTokenError: there is none of that number, or it is of another type.
    """
    tokens = header.metadata.tokens if isinstance(header, Luks2Header) else ()
    token = next((token for token in tokens if token.id == number), None)
    if token is None or token.type != KEYRING:
        what = "none" if token is None else f"type {token.type}"
        raise NoTokenError(f"token {number}: is {what}; wanted: one of type {KEYRING}")
    return token


def _choose_tokens(args: Arguments, header: Luks2Header) -> list[Token]:
    number, kind = args.number("token-id"), args.text("token-type")
    return [
        token
        for token in header.metadata.tokens
        if number in (None, token.id) and kind in (None, token.type)
    ]


def _list_keyslots(metadata: Metadata, key_slot: int | None) -> list[int]:
    """Those that may be tried: the one that is named, else all of the data's by priority."""
    if key_slot is not None:
        return [key_slot]
    bound = find_bound(metadata, 0)
    usable = [s for s in metadata.keyslots if s.id in bound and s.priority != PRIORITY_IGNORE]
    return [slot.id for slot in sorted(usable, key=lambda slot: -slot.priority)]
