"""Tokens of a LUKS2 header, changed: a header value in, a header value out. No I/O.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3.6; which numbers, keyslots and fields
the real tool takes: lib/luks2/luks2_token.c, luks2_token_keyring.c.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Final, cast

from ...keystore.errors import ConfigError, FormatError
from . import edit
from .json_area import JsonObject, Node, parse_json_object
from .recovery import Luks2Header
from .token import KEYRING

#: A change of a header, and one that gives a token its number.
Edit = Callable[[Luks2Header], Luks2Header]
Add = Callable[[Luks2Header], tuple[Luks2Header, int]]

TOKENS_MAX: Final = 32
_RESERVED: Final = "luks2-"
_KEYRING_FIELDS: Final = ("type", "keyslots", "key_description")


def make_keyring_token(
    header: Luks2Header, description: str, *, keyslot: int | None = None, is_unbound: bool = False
) -> JsonObject:
    """A token that names a key of the kernel's keyring, for one keyslot, none, or all.

    Raises:
        ConfigError: there is no such keyslot; an empty name.
    """
    if not description:
        raise ConfigError("--key-description: wanted: the name of a key")
    numbers = [slot.id for slot in header.metadata.keyslots]
    if keyslot is not None:
        numbers = [edit.get_keyslot(header, keyslot).id]
    return {
        "type": KEYRING,
        "keyslots": [] if is_unbound else [str(number) for number in numbers],
        "key_description": description,
    }


def parse_token(text: bytes) -> JsonObject:
    """The token that somebody gives as JSON.

    Raises:
        ConfigError: no token, or one of a type that LUKS2 reserves.
    """
    try:
        root = parse_json_object(text.strip(), "token")
        node = Node(root, "token")
        kind = node.text("type")
        node.references("keyslots")
        if kind == KEYRING:
            node.text("key_description")
    except FormatError as error:
        raise ConfigError(str(error)) from None
    is_keyring = kind == KEYRING and root.keys() == set(_KEYRING_FIELDS)
    if kind.startswith(_RESERVED) and not is_keyring:
        raise ConfigError(
            f"token.type: {kind} is reserved; wanted: {KEYRING} with {', '.join(_KEYRING_FIELDS)}, "
            f"or a type that does not begin with {_RESERVED}"
        )
    return root


def add_token(
    header: Luks2Header,
    token: JsonObject,
    *,
    number: int | None = None,
    replace: bool = False,
    keyslot: int | None = None,
) -> tuple[Luks2Header, int]:
    """A header with a token more, and its number: the lowest that is free, unless it is given.

    ``keyslot`` is assigned to it besides those that it names itself. With ``replace`` the token
    that is there goes.

    Raises:
        ConfigError: the number is in use or cannot be, a keyslot does not exist, no room.
    """
    tokens = _copy_tokens(header)
    if number is None:
        number = next((n for n in range(TOKENS_MAX) if str(n) not in tokens), None)
        if number is None:
            raise ConfigError(f"tokens: all {TOKENS_MAX} are in use")
    _check_number(number)
    if str(number) in tokens and not replace:
        raise ConfigError(f"token {number}: is in use; wanted: another one, or --token-replace")
    token = copy.deepcopy(token)
    if keyslot is not None:
        slots = cast("list[object]", token["keyslots"])
        name = str(edit.get_keyslot(header, keyslot).id)
        if name not in slots:
            slots.append(name)
    tokens[str(number)] = token
    try:
        return edit.change_tokens(header, tokens), number
    except FormatError as error:
        raise ConfigError(str(error)) from None


def remove_token(header: Luks2Header, number: int) -> Luks2Header:
    """A header without a token.

    Raises:
        ConfigError: there is no such token.
    """
    get_token_text(header, number)
    tokens = _copy_tokens(header)
    del tokens[str(number)]
    return edit.change_tokens(header, tokens)


def assign_token(header: Luks2Header, number: int, keyslot: int) -> Luks2Header:
    """A header whose token is for that keyslot, too.

    Raises:
        ConfigError: there is no such token or keyslot.
    """
    get_token_text(header, number)
    tokens = _copy_tokens(header)
    slots = cast("list[object]", cast("JsonObject", tokens[str(number)])["keyslots"])
    slots.append(str(edit.get_keyslot(header, keyslot).id))
    return edit.change_tokens(header, tokens)


def unassign_token(header: Luks2Header, number: int, keyslot: int) -> Luks2Header:
    """A header whose token is not for that keyslot any more.

    Raises:
        ConfigError: it was not, or there is no such token.
    """
    get_token_text(header, number)
    tokens = _copy_tokens(header)
    slots = cast("list[object]", cast("JsonObject", tokens[str(number)])["keyslots"])
    if str(keyslot) not in slots:
        raise ConfigError(f"token {number}: is not assigned to keyslot {keyslot}")
    slots[:] = [slot for slot in slots if slot != str(keyslot)]
    return edit.change_tokens(header, tokens)


def get_token_text(header: Luks2Header, number: int) -> str:
    """A token as JSON, without white space.

    Raises:
        ConfigError: there is no such token.
    """
    _check_number(number)
    token = next((token for token in header.metadata.tokens if token.id == number), None)
    if token is None:
        raise ConfigError(f"token {number}: is not in use")
    return token.text


def _check_number(number: int) -> None:
    if not 0 <= number < TOKENS_MAX:
        raise ConfigError(f"token {number}: is invalid, wanted 0 to {TOKENS_MAX - 1}")


def _copy_tokens(header: Luks2Header) -> JsonObject:
    return cast("JsonObject", copy.deepcopy(header.root["tokens"]))
