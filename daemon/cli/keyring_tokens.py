"""Passphrases that a LUKS2 header's tokens name: keys of the kernel's keyring.

What follows when none helps is as with `cryptsetup open` of version 2.6.1: a passphrase is asked
for, or with --token-only nothing, and the exit code is 1 where no token could help, 2 where none
did. Tokens of other types than luks2-keyring need hardware or programs, and are passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ...dmcrypt.luks2 import Luks2Header
from ...dmcrypt.luks2.keyslot import PRIORITY_IGNORE, find_bound
from ...dmcrypt.luks2.model import Metadata, Token
from ...dmcrypt.luks2.token import KEYRING, get_key_description
from ...dmcrypt.luks_change import AnyHeader
from ...keystore.errors import ConfigError, MapperError, NoKeyError
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
    """A token's passphrase, as far as the keyring has it, and a keyslot that it is for."""

    token: int
    description: str  # the key's name
    keyslot: int


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
        MapperError: what the last attempt raised.
        ConfigError: --token-only, and there is no token that could help.
        NoKeyError: --token-only, and none did.
    """
    offers = list_offers(args, header, key_slot, output)
    for offer in offers:
        passphrase = read_user_key(offer.description)
        if passphrase is None:
            output.note(f"Token {offer.token}: no key {offer.description!r} in the keyring.")
            continue
        with passphrase, passphrase.pipe() as fd:
            try:
                return attempt(KeyInput(fd, "all", keyfile=False), offer.keyslot)
            except MapperError as error:
                if get_kind(error) != NoKeyError.__name__:
                    raise
            output.note(f"Token {offer.token}: does not open keyslot {offer.keyslot}.")
    if not args.has("token-only"):
        return try_keys(make_key_options(args), prompt, lambda key: attempt(key, key_slot))
    if not offers:
        raise ConfigError("--token-only: no usable token; wanted: one of type luks2-keyring")
    raise NoKeyError("--token-only: no token opens its keyslot with what the keyring has")


def list_offers(
    args: Arguments, header: AnyHeader, key_slot: int | None, output: Output
) -> list[Offer]:
    """What the tokens offer, in the order to try it. ``key_slot`` leaves out the other keyslots.

    Unlike with cryptsetup 2.6.1, which opens any keyslot by a token whichever one was named.

    Raises:
        FormatError: a token that does not say which key.
    """
    if not isinstance(header, Luks2Header):
        return []
    usable = _list_keyslots(header.metadata, key_slot)
    offers: list[Offer] = []
    for token in _choose_tokens(args, header):
        if token.type == KEYRING:
            description = get_key_description(token)
            offers += [Offer(token.id, description, n) for n in usable if n in token.keyslots]
        elif args.has("token-id") or args.has("token-type"):
            output.warn(f"token {token.id}: type {token.type}: not supported")
    return offers


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
