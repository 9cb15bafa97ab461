"""``fusecrypt audit verify|show``: what the keystored wrote down about the use of keys."""

from __future__ import annotations

import re
from pathlib import Path

from ...keystore.audit import Chain, Entry, list_files, read_log, survey_log
from ...keystore.errors import ConfigError, NotFoundError
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .output import Output, format_table


def run_verify(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Say whether lines were altered, moved or taken out."""
    head = _parse_head(args.text("head"))
    files, chain = _find(args, settings), Chain()
    for _ in read_log(files, chain):
        pass
    if head is not None:
        chain.check_head(*head)
    output.json(
        {
            "entries": chain.entries,
            "first": chain.first,
            "last": chain.last,
            "head": chain.head.hex(),
            "torn_bytes": chain.torn,
            "files": [str(path) for path in files],
        }
    )
    if chain.torn:
        output.warn(
            f"{files[-1]}: ends within a line, as after a crash; who was to get the answer got none"
        )
    if chain.entries:
        output.line(f"Lines {chain.first} to {chain.last} are whole and in order.")
        output.line(f"Head: {chain.last}:{chain.head.hex()}")
    else:
        output.line("The audit log is empty.")
    return ExitCode.OK


def run_show(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """The lines, checked; one that is bad is marked, and the others are shown."""
    lines = list(survey_log(_find(args, settings)))
    problems = [problem for _, problem in lines if problem]
    output.json(
        {"entries": [_describe(entry) for entry, _ in lines if entry], "problems": problems}
    )
    rows = [_make_row(entry, problem) for entry, problem in lines]
    if rows:
        for line in format_table([("TIME", "UID", "PID", "METHOD", "RESULT", "WHAT"), *rows]):
            output.line(line)
    for problem in problems:
        output.say("error", problem)
    return ExitCode.HEADER_DAMAGED if problems else ExitCode.OK


def _make_row(entry: Entry | None, problem: str) -> tuple[str, ...]:
    mark = f"BAD: {problem}" if problem else ""
    if entry is None:
        return ("?", "?", "?", "?", "?", mark)
    facts = (f"{name}={value}" for name, value in entry.facts.items())
    words = " ".join([*facts, *([mark] if mark else [])])
    return (entry.time, str(entry.uid), str(entry.pid), entry.method, entry.result, words)


def _find(args: Arguments, settings: Settings) -> list[Path]:
    if not args.positionals:
        return list_files(settings.keystore_dir)
    directory = Path(args.positionals[0])
    files = list_files(directory)
    if not files:
        raise NotFoundError(f"{directory}: no audit log there")
    return files


def _parse_head(text: str | None) -> tuple[int, bytes] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,11}):([0-9a-f]{64})", text)
    if match is None:
        raise ConfigError(f"--head: got {text!r}; wanted: what audit verify printed as head")
    return int(match[1]), bytes.fromhex(match[2])


def _describe(entry: Entry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "time": entry.time,
        "uid": entry.uid,
        "pid": entry.pid,
        "method": entry.method,
        "result": entry.result,
        **entry.facts,
    }
