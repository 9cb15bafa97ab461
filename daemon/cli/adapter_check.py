"""``fusecrypt adapter check``: whether adapters can serve the same keys."""

from __future__ import annotations

from ...keystore.coprocessor import Apqn, Fill, RegisterState
from ...keystore.cross_check import cross_check
from ...keystore.errors import CoprocessorError
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .output import Output, format_table


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Say what is wrong with the adapters; 1 if something is."""
    apqns = [Apqn.parse(text) for text in args.positionals]
    adapters = Keystore(settings).list_adapters()
    if not adapters:
        raise CoprocessorError("there is no adapter; 'fusecrypt adapter create' makes one")
    findings, able = cross_check(adapters, apqns)
    is_proper = not any(finding.is_warning for finding in findings)
    output.json(
        {
            "proper": is_proper,
            "apqns": [str(adapter.apqn) for adapter in able],
            "findings": [
                {
                    "apqn": str(finding.apqn) if finding.apqn else None,
                    "severity": "warning" if finding.is_warning else "note",
                    "text": finding.text,
                }
                for finding in findings
            ],
        }
    )
    for finding in findings:
        if finding.is_warning:
            output.warn(str(finding))
        else:
            output.line(f"Note: {finding}.")
    rows = [("CARD.DOMAIN", "NEW MK", "CURRENT MK", "OLD MK", "TYPE")]
    rows += [
        (str(a.apqn), _show(a.new), _show(a.current), _show(a.old), a.type)
        for a in adapters
        if not apqns or a.apqn in apqns
    ]
    if len(rows) > 1:
        for line in format_table(rows):
            output.line(line)
    return ExitCode.OK if is_proper else ExitCode.WRONG_PARAMETERS


def _show(register: RegisterState) -> str:
    return "partially loaded" if register.state is Fill.PARTIAL else str(register)
