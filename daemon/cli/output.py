"""What ``fusecrypt`` prints: results on standard output, the rest on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from ...keystore.errors import ConfigError
from ..exitcodes import ExitCode, get_exit_code, get_kind
from .arguments import Arguments

JsonMode = Literal["off", "short", "pretty"]

#: Tools where -V means something else.
_MORE_COLUMNS = ("zkey", "lszcrypt", "chzcrypt")

# What cryptsetup -v says at the end, for its own codes.
_FAILURES = {
    ExitCode.WRONG_PARAMETERS: "wrong or missing parameters",
    ExitCode.NO_PERMISSION: "no permission or bad passphrase",
    ExitCode.OUT_OF_MEMORY: "out of memory",
    ExitCode.WRONG_DEVICE: "wrong device or file specified",
    ExitCode.BUSY: "device already exists or device is busy",
    ExitCode.COPROCESSOR_UNAVAILABLE: "coprocessor unavailable",
    ExitCode.HEADER_DAMAGED: "header damaged",
    ExitCode.REFUSED_BY_POLICY: "refused by policy",
    ExitCode.UNSUPPORTED: "not supported",
    ExitCode.PARTLY_DONE: "partly done",
}


@dataclass(frozen=True, slots=True)
class Output:
    """How the caller wants to be told."""

    json_mode: JsonMode = "off"
    is_verbose: bool = False
    is_quiet: bool = False
    shows_headers: bool = False  # the JSON of each LUKS2 header, for --debug-json

    def line(self, text: str) -> None:
        """A line of the result, for people; nothing when JSON is wanted."""
        if self.json_mode == "off":
            _write(sys.stdout, text)

    def json(self, value: Mapping[str, object]) -> None:
        """The result for programs; nothing when it is not wanted."""
        if self.json_mode == "off":
            return
        if self.json_mode == "pretty":
            _write(sys.stdout, json.dumps(value, indent=2))
        else:
            _write(sys.stdout, json.dumps(value, separators=(",", ":")))

    def note(self, text: str) -> None:
        """Something about what was done, with -v."""
        if self.is_verbose and self.json_mode == "off":
            _write(sys.stdout, text)

    def warn(self, text: str) -> None:
        """Something the caller should know, which stops nothing."""
        self.say("warning", text)

    def say(self, severity: Literal["note", "warning", "error"], text: str) -> None:
        """A finding, on standard error."""
        _write(sys.stderr, f"fusecrypt: {severity}: {text}")

    def debug(self, text: str) -> None:
        """Something for whoever looks for a fault, on standard error."""
        _write(sys.stderr, text)

    def error(self, error: BaseException) -> ExitCode:
        """Report a failure; returns its exit code."""
        code = get_exit_code(error)
        text = _describe(error)
        _write(sys.stderr, f"fusecrypt: {text}")
        with _dropping_what_cannot_be_written():
            self.json(
                {
                    "error": {
                        "message": text,
                        "kind": get_kind(error),
                        "exit_code": int(code),
                        "exit_name": code.name,
                    }
                }
            )
        return code

    def finish(self, code: ExitCode) -> None:
        """Say how it ended, in cryptsetup's words, with -v."""
        if code is ExitCode.OK:
            self.note("Command successful.")
        elif code in _FAILURES:
            self.note(f"Command failed with code -{code:d} ({_FAILURES[code]}).")


def make_early_output(words: Sequence[str]) -> Output:
    """The output for a command line that cannot be taken apart."""
    options = words[: words.index("--")] if "--" in words else words
    given = [word for word in options if word == "--json" or word.startswith("--json=")]
    if not given or given[-1] == "--json=off":
        return Output()
    return Output("pretty" if given[-1] == "--json=pretty" else "short")


def make_output(args: Arguments) -> Output:
    """The output that the options ask for.

    Raises:
        ConfigError: ``--json`` with another value.
    """
    mode: JsonMode = "off"
    if args.has("json"):
        match args.text("json"):
            case "":
                mode = "pretty" if _is_terminal() else "short"
            case "pretty":
                mode = "pretty"
            case "short":
                mode = "short"
            case "off":
                mode = "off"
            case other:
                raise ConfigError(f"--json: got {other!r}; wanted: pretty, short or off")
    is_verbose = args.has("verbose") and args.verb not in _MORE_COLUMNS
    return Output(
        mode,
        is_verbose=is_verbose,
        is_quiet=args.has("batch-mode"),
        shows_headers=args.has("debug-json"),
    )


def format_table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines with the columns aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


@contextlib.contextmanager
def _dropping_what_cannot_be_written() -> Generator[None, None, None]:
    """Give up standard output where it takes no more, so that the end of Python can flush it."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, 1)
        os.close(null)


def _is_terminal() -> bool:
    stream: TextIO | None = sys.stdout
    return stream is not None and stream.isatty()


def _describe(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return " ".join(str(error).split("\n"))


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # it was closed when we were started
        return
    stream.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    stream.flush()
