"""What is wrong with a crypttab beyond its text: the key files and sources that its lines name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..keystore.errors import AccessError, UnsupportedError
from .crypttab import KEY_FILE_HASH, Crypttab, CrypttabEntry, Problem, is_unhashed
from .crypttab_options import Verdict
from .key_file import KEY_DIRS, OPEN_TO_ALL, is_open_to_all, refuse_kind
from .pkey import find_token_kind


def check_files(
    crypttab: Crypttab, device_dir: Path, key_dirs: Sequence[Path] = KEY_DIRS
) -> Crypttab:
    """The crypttab with the problems of the files as well. Opens none: a FIFO's writer would see.

    ``device_dir`` is the daemon's, below which keys are made when they are asked for.
    """
    entries = crypttab.own_entries
    found = [p for e in entries for p in _check_key_file(e, device_dir, key_dirs)]
    return dataclasses.replace(
        crypttab, problems=(*crypttab.problems, *found, *_find_shared_sources(entries))
    )


def _check_key_file(
    entry: CrypttabEntry, device_dir: Path, key_dirs: Sequence[Path]
) -> Iterator[Problem]:
    path = entry.key_file
    if path is None:
        names = (f"{key_dir}/{entry.name}.key" for key_dir in key_dirs)
        path = next((name for name in names if os.path.exists(name)), None)  # noqa: PTH110
    if path is None or find_token_kind(path, device_dir) is not None:
        return
    where = f"key file {path}"
    if entry.key_file is None and entry.type == "plain" and not is_unhashed(entry.options):
        text = f"{where}: {KEY_FILE_HASH.format(entry.options.hash)}"
        yield _make_problem(entry, Verdict.WRONG, text)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - the line's string as it is
        refuse_kind(mode, where)
    except FileNotFoundError:
        text = f"{where}: no such file now; without it the passphrase is asked for"
        yield _make_problem(entry, Verdict.NOTE, text)
    except OSError as error:
        yield _make_problem(
            entry, Verdict.WARNING, f"{where}: cannot be looked at: {error.strerror}"
        )
    except AccessError as error:
        yield _make_problem(entry, Verdict.WRONG, str(error))
    except UnsupportedError as error:
        yield _make_problem(entry, Verdict.UNSUPPORTED, str(error))
    else:
        if is_open_to_all(mode):
            yield _make_problem(entry, Verdict.WARNING, f"{where}: {OPEN_TO_ALL}")


def _find_shared_sources(entries: Sequence[CrypttabEntry]) -> Iterator[Problem]:
    first_of: dict[str, CrypttabEntry] = {}
    for entry in sorted(entries, key=lambda e: e.options.read_only):  # a writer shares with nobody
        first = first_of.setdefault(os.path.realpath(entry.source_path), entry)
        if first is entry or (first.options.read_only and entry.options.read_only):
            continue
        earlier, later = sorted((first, entry), key=entries.index)
        text = (
            f"source {later.source} is that of {earlier.name} ({earlier.file}:{earlier.line}), too;"
            " only one of the two can be open"
        )
        yield _make_problem(later, Verdict.WARNING, text)


def _make_problem(entry: CrypttabEntry, verdict: Verdict, text: str) -> Problem:
    return Problem(entry.file, entry.line, verdict, text, entry.name)
