"""``fusecrypt adapter check``: whether adapters can serve the same keys."""

from __future__ import annotations

from ...keystore.coprocessor import Apqn
from ...keystore.cross_check import cross_check
from ...keystore.errors import CoprocessorError
from ...keystore.tokens import KeyType
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .output import Output


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Say what is wrong with the adapters; 1 if something is."""
    apqns = [Apqn.parse(text) for text in args.positionals]
    adapters = Keystore(settings).list_adapters()
    if not adapters:
        raise CoprocessorError("there is no adapter; 'fusecrypt adapter create' makes one")
    # Every card knows this type: it is about the cards and their master keys only.
    found = cross_check(adapters, apqns, KeyType.CCA_AESDATA)
    is_proper = not found.warnings
    output.json({"proper": is_proper, "warnings": list(found.warnings), "notes": list(found.notes)})
    for text in found.warnings:
        output.warn(text)
    for text in found.notes:
        output.line(f"Note: {text}.")
    for line in found.table:
        output.line(line)
    return ExitCode.OK if is_proper else ExitCode.WRONG_PARAMETERS
