"""Passphrases of several keyslots of one volume: from key files, standard input, or a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, replace

from ...dmcrypt.engine.client import Engine
from ...dmcrypt.luks2 import Luks2Header
from ...dmcrypt.luks2.key_change import UnlockedKey
from ...dmcrypt.luks2.volume_key_change import OpenKeyslot
from ...keystore.errors import NoKeyError
from ...keystore.keys import ProtectedKey
from ..secure_volume import SecureVolume
from .arguments import Arguments
from .key_input import KeyOptions, make_key_options
from .own_engine import read_secret
from .passphrase import NoInputError, write_terminal


@dataclass(frozen=True, slots=True)
class Unlocked:
    """The keyslots that the passphrases open, all of one key."""

    keys: tuple[UnlockedKey, ...]
    slots: tuple[OpenKeyslot, ...]

    @property
    def key(self) -> ProtectedKey:
        """The volume key in them."""
        return self.keys[0].key

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(slot.keyslot.id for slot in self.slots)


@contextlib.contextmanager
def unlock_keyslots(
    engine: Engine,
    volume: SecureVolume,
    header: Luks2Header,
    numbers: Collection[int],
    args: Arguments,
    path: str,
    *,
    only_one: bool = False,
) -> Generator[Unlocked, None, None]:
    """The keyslots of ``numbers`` that can be opened with what is given; one at least.

    ``only_one``: when one is open, nothing more is asked for.

    Raises:
        NoKeyError: a passphrase that opens none, as often as may be tried.
        MapperError: it cannot be read.
    """
    left = sorted(numbers)
    keys: list[UnlockedKey] = []
    slots: list[OpenKeyslot] = []
    with contextlib.ExitStack() as stack:
        tries = make_key_options(args).tries
        for options, prompt in _list_sources(args, path, left, keys):
            try:
                secret = stack.enter_context(read_secret(engine, options, prompt))
            except NoInputError:
                if not keys:
                    raise
                break
            if keys and options.is_interactive and secret.length == 0:
                break
            found = volume.unlock_each(header, secret, left)
            if not found:
                tries -= 1
                _refuse(options, path, is_last=tries == 0)
                continue
            for each in found:
                assert each.keyslot is not None
                keys.append(each)
                slots.append(OpenKeyslot(each.keyslot, secret))
                left.remove(each.keyslot.id)
            if only_one or not left:
                break
        yield Unlocked(tuple(keys), tuple(slots))


def _refuse(options: KeyOptions, path: str, *, is_last: bool) -> None:
    """Say that a passphrase opens nothing, to who may type another one.

    Raises:
        NoKeyError: there is nobody, or it was the last try.
    """
    what = options.key_file or "no key available with this passphrase"
    error = NoKeyError(f"{path}: {what}" + (": opens no keyslot" * options.is_file))
    if is_last or not options.is_interactive:
        raise error
    write_terminal(f"{error}\n")


def _list_sources(
    args: Arguments, path: str, left: list[int], keys: list[UnlockedKey]
) -> Iterator[tuple[KeyOptions, str]]:
    """Where the next passphrase comes from, and how it is asked for; as long as one is wanted."""
    base = make_key_options(args)
    files = args.texts("key-file")
    for file in files:
        yield replace(base, key_file=file), f"Enter passphrase for '{path}': "
    while not files:
        prompt = f"Enter passphrase for '{path}': "
        if keys:
            names = ", ".join(map(str, left))
            prompt = f"Enter another passphrase for '{path}' (keyslot {names}; nothing: no more): "
        yield replace(base, key_file=None), prompt
