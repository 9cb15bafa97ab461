"""``fusecrypt crypttab check``: what a start would make of the crypttab."""

from __future__ import annotations

from pathlib import Path

from ..config import Settings, load_settings
from ..crypttab import Crypttab, load_crypttabs
from ..crypttab_check import check_files
from ..exitcodes import ExitCode
from ..pkey import SYSFS
from .arguments import Arguments
from .output import Output, format_table


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """List our entries and every problem; status 1 if there is one, even a warning."""
    if args.positionals:
        (file,) = args.positionals
        settings = load_settings(runtime_dir=str(settings.runtime_dir), crypttab=file)
    # Without a runtime directory there is no daemon either that would make keys below it.
    has_place = isinstance(settings.runtime_place, Path)
    device_dir = settings.device_dir if has_place else SYSFS
    crypttab = check_files(load_crypttabs(settings.crypttabs), device_dir)
    problems = crypttab.own_problems
    entries = [
        {
            "name": entry.name,
            "type": entry.type,
            "source": entry.source,
            "key": entry.key_file,
            "opened": "at start" if entry.opens_at_start else "by name",
            "file": entry.file,
            "line": entry.line,
        }
        for entry in crypttab.own_entries
    ]
    output.json(
        {
            "files": crypttab.files,
            "foreign_lines": crypttab.foreign_lines,
            "entries": entries,
            "problems": [
                {"verdict": p.severity, "message": str(p), "file": p.file, "line": p.line}
                for p in problems
            ],
        }
    )
    if output.json_mode == "off":
        _print_entries(crypttab, settings, output)
        for problem in problems:
            output.say(problem.severity, str(problem))
    return ExitCode.OK if all(p.severity == "note" for p in problems) else ExitCode.WRONG_PARAMETERS


def _print_entries(crypttab: Crypttab, settings: Settings, output: Output) -> None:
    rows = [
        (
            entry.name,
            entry.type,
            entry.source,
            entry.key_file or "-",
            "at start" if entry.opens_at_start else "by name",
            f"{entry.file}:{entry.line}",
        )
        for entry in crypttab.own_entries
    ]
    if rows:
        for line in format_table([("NAME", "TYPE", "SOURCE", "KEY", "OPENED", "LINE"), *rows]):
            output.line(line)
    elif crypttab.files:
        count = crypttab.foreign_lines
        others = f"; {count} line{'' if count == 1 else 's'} not ours" if count else ""
        output.line(f"no entry of ours in {', '.join(crypttab.files)}{others}")
    else:
        looked = ", ".join(str(source.path) for source in settings.crypttabs)
        output.line(f"no crypttab: none of {looked} exists")
