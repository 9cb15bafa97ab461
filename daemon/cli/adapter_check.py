"""``fusecrypt adapter check``: whether adapters can serve the same keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ...keystore.coprocessor import AdapterInfo, Apqn
from ...keystore.cross_check import CrossCheck, cross_check
from ...keystore.errors import CoprocessorError
from ...keystore.tokens import KeyType
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .output import Output

#: One that every adapter of its kind knows: it is about adapters and their master keys only.
_TYPES: Final = (KeyType.CCA_AESDATA, KeyType.EP11_AES, KeyType.PKCS11_AES)


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Say what is wrong with the adapters; 1 if something is."""
    apqns = [Apqn.parse(text) for text in args.positionals]
    adapters = Keystore(settings).list_adapters()
    if not adapters:
        raise CoprocessorError("there is no adapter; 'fusecrypt adapter create' makes one")
    found = [*_check_kinds(adapters, apqns)]
    warnings = [text for one in found for text in one.warnings]
    notes = [text for one in found for text in one.notes]
    is_proper = not warnings
    output.json({"proper": is_proper, "warnings": warnings, "notes": notes})
    for text in warnings:
        output.warn(text)
    for text in notes:
        output.line(f"Note: {text}.")
    for line in [line for one in found for line in one.table]:
        output.line(line)
    return ExitCode.OK if is_proper else ExitCode.WRONG_PARAMETERS


def _check_kinds(adapters: Sequence[AdapterInfo], apqns: Sequence[Apqn]) -> Iterator[CrossCheck]:
    """Each kind of adapter for itself: their master keys are of different kinds, too."""
    kinds = [t for t in _TYPES if any(a.is_usable and a.is_kind_for(t) for a in adapters)]
    if not apqns:
        for key_type in kinds or _TYPES[:1]:
            yield cross_check(adapters, (), key_type)
        return
    of_kind = {
        key_type: [a.apqn for a in adapters if a.apqn in apqns and a.is_kind_for(key_type)]
        for key_type in _TYPES
    }
    others = [apqn for apqn in apqns if not any(apqn in named for named in of_kind.values())]
    for key_type, named in of_kind.items():
        if named:
            yield cross_check(adapters, named + others, key_type)
            others = []
    if others:
        yield cross_check(adapters, others, _TYPES[0])
