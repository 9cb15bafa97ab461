"""The questions before something that cannot be undone."""

from __future__ import annotations

import sys

from ...keystore.errors import UnlockError
from .passphrase import MAX_TYPED, Passphrase, ask_terminal


class DeclinedError(UnlockError):
    """The one who was asked did not say yes."""


def ask_yes(question: str, refusal: str) -> None:
    """Have ``y`` or ``yes`` read from standard input; its end is a no.

    Raises:
        DeclinedError: it was something else; says ``refusal``.
    """
    sys.stderr.write(f"fusecrypt: {question} [y/N]? ")
    sys.stderr.flush()
    with Passphrase(MAX_TYPED) as answer:
        answer.read_line(0)
        is_yes = answer.get_bytes().strip().lower() in {b"y", b"yes"}
    if not is_yes:
        raise DeclinedError(f"{refusal}; wanted: y, or yes")


def ask_capitals(warning: str, *, before: str = "") -> bool:
    """Warn at the terminal as cryptsetup does, ``before`` first; whether YES was typed."""
    answer = ask_terminal(
        f"{before}\nWARNING!\n========\n{warning}\n\n"
        "Are you sure? (Type 'yes' in capital letters): "
    )
    return answer == b"YES"
