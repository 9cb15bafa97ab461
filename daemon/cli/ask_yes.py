"""The question before something that cannot be undone."""

from __future__ import annotations

import sys

from ...keystore.errors import UnlockError
from .passphrase import MAX_TYPED, Passphrase


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
