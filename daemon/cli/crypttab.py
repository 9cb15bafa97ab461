"""``fusecrypt crypttab check``: what a start would make of the crypttab."""

from __future__ import annotations

from ..config import Settings, load_settings
from ..crypttab import load_crypttabs
from ..exitcodes import ExitCode
from .arguments import Arguments
from .output import Output, format_table


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """List our entries and every problem; status 1 if there is one, even a warning."""
    if args.positionals:
        (file,) = args.positionals
        settings = load_settings(runtime_dir=str(settings.runtime_dir), crypttab=file)
    crypttab = load_crypttabs(settings.crypttabs)
    problems = crypttab.own_problems
    entries = crypttab.own_entries
    rows = [
        (
            entry.name,
            entry.type,
            entry.source,
            entry.key_file or "-",
            "at start" if entry.opens_at_start else "by name",
            f"{entry.file}:{entry.line}",
        )
        for entry in entries
    ]
    if rows:
        for line in format_table([("NAME", "TYPE", "SOURCE", "KEY", "OPENED", "LINE"), *rows]):
            output.line(line)
    for problem in problems:
        output.say("error" if problem.is_error else "warning", str(problem))
    output.json(
        {
            "entries": [
                {"name": e.name, "type": e.type, "source": e.source, "file": e.file, "line": e.line}
                for e in entries
            ],
            "problems": [
                {"verdict": p.verdict.value, "message": str(p), "file": p.file, "line": p.line}
                for p in problems
            ],
        }
    )
    return ExitCode.WRONG_PARAMETERS if problems else ExitCode.OK
