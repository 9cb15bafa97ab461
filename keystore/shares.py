"""A master key in shares, any k of n of which make it again: SLIP-39 mnemonics in text files.

Source: SLIP-0039, "Shamir's Secret-Sharing for Mnemonic Codes"; its reference implementation, the
package shamir-mnemonic, does the mathematics. One group, no passphrase. Each file tells the master
key's MKVP, so that what comes out can be checked, and the words on its last line.

The package holds secrets in objects that cannot be wiped: only a process that ends right after may
call `split` and `combine` (daemon/keystored/ceremony.py).
"""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from .cca import MASTER_KEY_SIZE
from .errors import ConfigError, FormatError, UnsupportedError
from .verification import make_mkvp

#: SLIP-39 has 16; a message of the control socket carries the descriptors of 8.
SHARES_MAX: Final = 8
SHARES_MIN: Final = 2
FILE_MAX: Final = 4096
_TITLE: Final = "fusecrypt master key share (SLIP-39)"
_TEXT: Final = re.compile(
    rf"{re.escape(_TITLE)}\nMKVP: ([0-9a-f]{{16}})\n"
    r"Share: \d+ of \d+; any \d+ of them make the master key\n([a-z]+(?: [a-z]+){19,})\n"
)


@dataclass(frozen=True, slots=True)
class ShareFile:
    """One share as its file tells it."""

    mkvp: bytes
    words: str = field(repr=False)

    @classmethod
    def parse(cls, content: bytes, where: str) -> Self:
        """The share in a file.

        Raises:
            FormatError: there is none.
        """
        match = _TEXT.fullmatch(content.decode("ascii", "replace"))
        if match is None:
            raise FormatError(f"{where}: not a share of a master key")
        return cls(bytes.fromhex(match[1]), match[2])


def check_counts(threshold: int, count: int) -> None:
    """That ``threshold`` of ``count`` is a choice that shares the master key out.

    Raises:
        ConfigError: it is not.
    """
    if not SHARES_MIN <= threshold <= count <= SHARES_MAX:
        raise ConfigError(
            f"{threshold} of {count} shares; wanted: {SHARES_MIN} or more, of at most {SHARES_MAX}"
        )


def split(master_key: bytearray, threshold: int, count: int) -> list[bytes]:
    """The contents of the files, each choice of which was tried.

    Raises:
        ConfigError: as `check_counts`.
        UnsupportedError: the package is not installed.
    """
    check_counts(threshold, count)
    library = _load()
    (mnemonics,) = library.generate_mnemonics(1, [(threshold, count)], bytes(master_key))
    for chosen in itertools.combinations(mnemonics, threshold):
        assert library.combine_mnemonics(chosen) == master_key
    return [
        (
            f"{_TITLE}\nMKVP: {make_mkvp(master_key).hex()}\n"
            f"Share: {number} of {count}; any {threshold} of them make the master key\n{words}\n"
        ).encode()
        for number, words in enumerate(mnemonics, 1)
    ]


def combine(shares: Sequence[ShareFile]) -> bytes:
    """The master key, of which its MKVP and every share that was given is right.

    Raises:
        FormatError: words that are none, shares of different master keys, or too few.
        UnsupportedError: the package is not installed.
    """
    library = _load()
    parsed: list[Any] = []
    for number, share in enumerate(shares, 1):
        try:
            parsed.append(library.Share.from_mnemonic(share.words))
        except (library.MnemonicError, ValueError):  # whose message may have the words
            raise FormatError(f"share {number}: its words were altered") from None
    if not shares or len({share.mkvp for share in shares}) > 1:
        raise FormatError("the shares are of different master keys")
    threshold = parsed[0].member_threshold
    if len({share.index for share in parsed}) < threshold:
        raise FormatError(f"{len(shares)} shares; wanted: {threshold} different ones")
    words = list(dict.fromkeys(share.words for share in shares))
    # Each share that is not needed is tried in place of the last one that is.
    choices = [[*words[: threshold - 1], last] for last in words[threshold - 1 :]]
    found: set[bytes] = set()
    for choice in choices:
        try:
            found.add(library.combine_mnemonics(choice))
        except library.MnemonicError:
            raise FormatError("the shares do not belong together") from None
    secret = found.pop()
    if found or len(secret) != MASTER_KEY_SIZE or make_mkvp(bytearray(secret)) != shares[0].mkvp:
        raise FormatError("the shares make another master key than they tell")
    return secret


def _load() -> Any:  # noqa: ANN401  (it has no types)
    try:
        return importlib.import_module("shamir_mnemonic")
    except ImportError as error:
        raise UnsupportedError(
            "shares of a master key: not supported without the Python package shamir-mnemonic"
        ) from error
