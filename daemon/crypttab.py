"""crypttab: text to entries, and which files and lines are ours.

Source: crypttab(5) of systemd 262, whose grammar this is: two to four fields between white space,
``#`` starts a comment only where a line starts, no quotes. Each problem names file, line and
option; it costs one entry, never the others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ..dmcrypt.plain import DEFAULTS_DIFFER, PlainParams, make_params
from ..dmcrypt.units import SECTOR_SIZE
from ..keystore.errors import AccessError, ConfigError, NotFoundError, UnsupportedError
from .config import CrypttabSource
from .crypttab_options import CrypttabOptions, Verdict, find_device_suffix, parse_options
from .device_spec import is_device_spec, resolve_device_spec
from .volume_name import check_volume_name

MAX_FILE_SIZE: Final = 4 << 20  # bytes

# systemd takes CR and NUL for ends of lines too, and a run of different ones for a single end.
_LINE_END: Final = re.compile(r"\n(?:\r\0?|\0\r?)?|\r(?:\n\0?|\0\n?)?|\0(?:\n\r?|\r\n?)?")
_WHITE_SPACE: Final = " \t\n\v\f\r"
KEY_FILE_HASH: Final = (
    "hash={} with a key file: systemd would hash the file, cryptsetup would not; wanted: hash=plain"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a crypttab line that its author should know."""

    file: str
    line: int
    verdict: Verdict
    message: str
    name: str | None = None  # of the volume
    option: str | None = None

    def __str__(self) -> str:
        parts = [f"{self.file}:{self.line}", self.name, self.option, self.message]
        text = ": ".join(part for part in parts if part)
        return text.encode("utf-8", "backslashreplace").decode()  # also for bytes not UTF-8

    @property
    def is_error(self) -> bool:
        """Whether the line is not used for it."""
        return self.severity == "error"

    @property
    def severity(self) -> Literal["note", "warning", "error"]:
        """The verdict, for whoever reads of it."""
        if self.verdict is Verdict.NOTE:
            return "note"
        return "warning" if self.verdict is Verdict.WARNING else "error"


@dataclass(frozen=True, slots=True)
class CrypttabEntry:
    """One line."""

    file: str
    line: int
    name: str
    source: str  # as written
    key_file: str | None  # absolute path; None: a discovered one, else ask
    options: CrypttabOptions
    is_ours: bool  # false: opened only when asked for by name
    problems: tuple[Problem, ...]

    @property
    def type(self) -> Literal["luks", "plain"]:
        """What the source is; LUKS unless the line says plain."""
        return self.options.type or "luks"

    @property
    def source_path(self) -> str:
        """The path of the image or device."""
        return resolve_device_spec(self.source)

    @property
    def question(self) -> str:
        """What whoever knows its passphrase is asked."""
        return f"Please enter passphrase for disk {self.source} ({self.name}):"

    @property
    def opens_at_start(self) -> bool:
        """Whether a starting daemon opens it.

        On a line with x-fusecrypt, noauto speaks to systemd only; elsewhere it speaks to us.
        """
        if not self.is_ours:
            return False
        if self.options.claim is not None:
            return self.options.claim == "start"
        return not self.options.noauto

    @property
    def is_required(self) -> bool:
        """Whether a start that could not open it was only partly done."""
        return self.opens_at_start and not self.options.nofail

    @property
    def keyfile_size(self) -> int:
        """Bytes to read of a key file; 0: to its end. In plain mode the key size decides."""
        if self.type == "plain":
            return (self.options.key_bits or 0) // 8
        return self.options.keyfile_size

    def check(self) -> None:
        """Refuse an entry with errors, naming the first.

        Raises:
            UnsupportedError: an option that we know and do not support.
            ConfigError: anything else.
        """
        for problem in self.problems:
            if problem.verdict is Verdict.UNSUPPORTED:
                raise UnsupportedError(str(problem))
            if problem.is_error:
                raise ConfigError(str(problem))


@dataclass(frozen=True, slots=True)
class Crypttab:
    """Entries by name, in order, and the problems of lines that are no entries."""

    entries: tuple[CrypttabEntry, ...] = ()
    problems: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()  # that were read, in order
    foreign_lines: int = 0  # of them, those that are not ours

    def find(self, name: str) -> CrypttabEntry | None:
        """The entry of that name, ours or not."""
        return next((entry for entry in self.entries if entry.name == name), None)

    @property
    def own_entries(self) -> tuple[CrypttabEntry, ...]:
        """The entries that are ours."""
        return tuple(entry for entry in self.entries if entry.is_ours)

    @property
    def own_problems(self) -> tuple[Problem, ...]:
        """All there is to say about our lines, in order of files and lines."""
        of_entries = [problem for entry in self.own_entries for problem in entry.problems]
        ranks = {file: rank for rank, file in enumerate(self.files)}
        # A file that could not be read has no rank, and comes first.
        return tuple(
            sorted((*self.problems, *of_entries), key=lambda p: (ranks.get(p.file, -1), p.line))
        )


def parse_crypttab(text: str, file: str, *, whole: bool) -> Crypttab:
    """Read one file's text.

    Args:
        text: the contents; bytes that are not UTF-8 as surrogate escapes.
        file: its name, for messages.
        whole: every line is ours; otherwise only those with x-fusecrypt.
    """
    entries: list[CrypttabEntry] = []
    problems: list[Problem] = []
    foreign_lines = 0
    for number, raw in enumerate(_LINE_END.split(text), 1):
        line = raw.strip(_WHITE_SPACE)
        if not line or line.startswith("#"):
            continue
        fields = re.split(f"[{_WHITE_SPACE}]+", line)
        if len(fields) < 2:
            if whole:
                message = "one field; wanted: NAME SOURCE [KEY [OPTIONS]]"
                problems.append(Problem(file, number, Verdict.WRONG, message, fields[0]))
            else:
                foreign_lines += 1
            continue
        name, source, key, options, *extra = (*fields, "", "")
        entry = _make_entry(file, number, (name, source, key, options), whole=whole)
        if len(extra) > 2:  # beyond the two put there above
            warning = Problem(
                file, number, Verdict.WARNING, f"text after the options ignored: {extra[0]}", name
            )
            entry = _add_problem(entry, warning)
        entries.append(entry)
        foreign_lines += not entry.is_ours
    return _merge([Crypttab(tuple(entries), tuple(problems), (file,), foreign_lines)])


def _open_file(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def load_crypttabs(
    sources: Iterable[CrypttabSource], open_file: Callable[[Path], int] = _open_file
) -> Crypttab:
    """Read all the files and put them together; what is missing and not required is skipped.

    ``open_file`` gives a descriptor, which is closed here.

    Raises:
        NotFoundError: a file that the user named does not exist.
        AccessError: a file cannot be read.
        ConfigError: a file is too large.
    """
    tables: list[Crypttab] = []
    for source in sources:
        text = _read(source, open_file)
        if text is not None:
            tables.append(parse_crypttab(text, str(source.path), whole=source.whole))
    return _merge(tables)


def _read(source: CrypttabSource, open_file: Callable[[Path], int]) -> str | None:
    try:
        with os.fdopen(open_file(source.path), "rb") as file:
            raw = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        if not source.required:
            return None
        raise NotFoundError(f"crypttab {source.path}: no such file") from None
    except OSError as error:
        raise AccessError(f"crypttab {source.path}: cannot read it: {error.strerror}") from None
    if len(raw) > MAX_FILE_SIZE:
        raise ConfigError(f"crypttab {source.path}: larger than {MAX_FILE_SIZE} bytes")
    return raw.decode("utf-8", "surrogateescape")


def _merge(tables: Sequence[Crypttab]) -> Crypttab:
    """One table; of several lines for a name the first of ours is used, else the first."""
    chosen: dict[str, CrypttabEntry] = {}
    problems: list[Problem] = []
    for table in tables:
        problems += table.problems
        for entry in table.entries:
            first = chosen.get(entry.name)
            if first is None or (entry.is_ours and not first.is_ours):
                chosen[entry.name] = entry
            elif entry.is_ours:
                message = f"this name was given at {first.file}:{first.line}; line not used"
                problems.append(Problem(entry.file, entry.line, Verdict.WRONG, message, entry.name))
    files = tuple(file for table in tables for file in table.files)
    foreign_lines = sum(table.foreign_lines for table in tables)
    return Crypttab(tuple(chosen.values()), tuple(problems), files, foreign_lines)


def _make_entry(
    file: str, line: int, fields: tuple[str, str, str, str], *, whole: bool
) -> CrypttabEntry:
    name, source, key, option_text = fields
    options, remarks = parse_options("" if _is_unset(option_text) else option_text)
    problems = [
        Problem(file, line, remark.verdict, remark.text, name, remark.option) for remark in remarks
    ]

    def add(verdict: Verdict, message: str, option: str | None = None) -> None:
        problems.append(Problem(file, line, verdict, message, name, option))

    try:
        check_volume_name(name)
    except ConfigError as error:
        add(Verdict.WRONG, str(error))
    if not is_device_spec(source):
        add(Verdict.WRONG, f"source {source!r}; wanted: an absolute path, UUID= or LABEL=")
    key_file: str | None = None
    if not _is_unset(key):
        if not key.startswith("/"):
            add(Verdict.WARNING, f"key file {key!r} ignored; wanted: an absolute path")
        elif find_device_suffix(key) is not None:
            add(Verdict.UNSUPPORTED, f"key file {key}: not supported: a key file on another device")
        else:
            key_file = key
    has_key_file = key_file is not None
    for verdict, message in _check_mode(options, has_key_file=has_key_file):
        add(verdict, message)
    is_ours = whole or options.claim is not None
    if not whole and options.claim is not None and not options.noauto:
        add(Verdict.WARNING, "without noauto systemd opens this volume too", "x-fusecrypt")
    return CrypttabEntry(file, line, name, source, key_file, options, is_ours, tuple(problems))


def is_unhashed(options: CrypttabOptions) -> bool:
    """Whether a key file's bytes are the key of a plain volume, for all who read the line."""
    return options.hash in {None, "plain"}


def make_plain(options: CrypttabOptions, *, has_key_file: bool) -> PlainParams:
    """What the options of a line for a plain volume say.

    Raises:
        ConfigError: something is missing, or cannot be.
        UnsupportedError: a cipher that we do not serve.
    """
    return make_params(
        cipher=options.cipher,
        key_bits=options.key_bits,
        hash_spec=options.hash,
        # A key file that is discovered later needs no hash either; a passphrase then is refused.
        has_keyfile=has_key_file or options.hash is None,
        offset=options.offset,
        skip=options.skip,
        sector_size=options.sector_size or SECTOR_SIZE,
    )


def _is_unset(field: str) -> bool:
    return field in {"", "-", "none"}


def _check_mode(o: CrypttabOptions, *, has_key_file: bool) -> Iterable[tuple[Verdict, str]]:
    if o.type != "plain":
        plain_only = {
            "cipher=": o.cipher,
            "size=": o.key_bits,
            "hash=": o.hash,
            "sector-size=": o.sector_size,
            "offset=": o.offset,
            "skip=": o.skip,
        }
        given = ", ".join(name for name, value in plain_only.items() if value)
        if given:
            hint = "" if o.type else "; for a volume without a header add plain"
            yield Verdict.WARNING, f"{given} ignored: the LUKS header decides{hint}"
        return
    missing = [
        name for name, value in (("cipher=", o.cipher), ("size=", o.key_bits)) if value is None
    ]
    if o.hash is None and not has_key_file:
        missing.append("hash=")
    if missing:
        text = f"plain without {', '.join(missing)}: {DEFAULTS_DIFFER}, a wrong guess destroys data"
        yield Verdict.WRONG, text
    else:
        try:
            make_plain(o, has_key_file=has_key_file)
        except ConfigError as error:
            yield Verdict.WRONG, str(error)
        except UnsupportedError as error:
            yield Verdict.UNSUPPORTED, str(error)
    if has_key_file and not is_unhashed(o):
        yield Verdict.WRONG, KEY_FILE_HASH.format(o.hash)
    if o.keyfile_size:
        yield Verdict.WARNING, "keyfile-size= ignored: in plain mode the key size decides"


def _add_problem(entry: CrypttabEntry, problem: Problem) -> CrypttabEntry:
    return CrypttabEntry(
        entry.file,
        entry.line,
        entry.name,
        entry.source,
        entry.key_file,
        entry.options,
        entry.is_ours,
        (*entry.problems, problem),
    )
