"""``fusecrypt adapter master-key split|combine``: a master key in the hands of several people."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ...keystore.coprocessor import Apqn
from ...keystore.errors import AccessError, BusyError, ConfigError
from ...keystore.shares import SHARES_MAX, check_counts
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .adapter_master_key import parse_register
from .arguments import Arguments
from .output import Output
from .passphrase import is_handed_on
from .source import open_for_reading


def run_split(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Write the shares, or leave no file."""
    apqn, directory = Apqn.parse(args.positionals[0]), Path(args.positionals[1])
    register = parse_register(args)
    count, threshold = args.number("shares"), args.number("threshold")
    if count is None or threshold is None:
        raise ConfigError("wanted: --shares and --threshold")
    check_counts(threshold, count)
    names = [f"{apqn}-share-{i}-of-{count}" for i in range(1, count + 1)]
    made: list[Path] = []
    with contextlib.ExitStack() as stack:
        try:
            fds: list[int] = []
            for path in (directory / name for name in names):
                fds.append(_make(path))
                stack.callback(os.close, fds[-1])
                made.append(path)
            mkvp = Keystore(settings).split_master_key(apqn, register, threshold, fds)
        except BaseException:
            for path in made:
                path.unlink(missing_ok=True)
            raise
    output.json({"mkvp": mkvp, "threshold": threshold, "files": [str(path) for path in made]})
    for path in made:
        output.line(str(path))
    output.line(
        f"Any {threshold} of these {count} make the master key {mkvp}. Take each to another place."
    )
    return ExitCode.OK


def run_combine(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Put the master key together."""
    words, apqn = args.positionals, None
    if not args.has("dry-run"):
        apqn, words = Apqn.parse(words[0]), words[1:]
    if not 0 < len(words) <= SHARES_MAX:
        raise ConfigError(f"{len(words)} shares; wanted: at most {SHARES_MAX}, and one at least")
    with contextlib.ExitStack() as stack:
        fds: list[int] = []
        for path in words:
            file = stack.enter_context(open_for_reading(path, "share"))
            if not is_handed_on(file.fd):
                raise ConfigError(f"share {path}: wanted: a regular file")
            fds.append(file.fd)
        mkvp = Keystore(settings).combine_master_key(apqn, fds)
    output.json({"mkvp": mkvp, "apqn": str(apqn) if apqn else None})
    what = f"Adapter {apqn}: NEW is full" if apqn else "The shares make a master key"
    output.line(f"{what}, MKVP {mkvp}.")
    return ExitCode.OK


def _make(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise BusyError(f"share {path}: exists, and is not overwritten") from None
    except OSError as error:
        raise AccessError(f"share {path}: cannot make it: {error.strerror}") from None
