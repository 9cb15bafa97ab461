"""What every action that changes a LUKS header needs: the file, the backup, the question, the plan.

No daemon takes part: a header lies outside of what a daemon serves, and cryptsetup's lock keeps
changes apart.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...dmcrypt.luks2 import Luks2Header
from ...dmcrypt.luks_change import AnyHeader, dump_text
from ...dmcrypt.old_header import Keep, OldHeader
from ...dmcrypt.probe import probe
from ...keystore.errors import ConfigError, UnlockError
from ..config import Settings
from ..header_history import HeaderHistory
from .arguments import Arguments
from .ask_yes import ask_capitals
from .locating import locating
from .luks_source import show_json
from .output import Output
from .passphrase import is_terminal
from .source import SourceFile, open_source


class NotConfirmedError(UnlockError):
    """The one who was asked did not say YES; cryptsetup ends with 2 as well."""


@dataclass(slots=True)
class HeaderAction:
    """One action on the header of one file."""

    args: Arguments
    output: Output
    file: SourceFile
    kind: str  # luks, luks1 or luks2: what the header must be
    _history: HeaderHistory
    _backups: list[Path] = field(default_factory=list[Path])

    @property
    def is_dry(self) -> bool:
        """Whether nothing is to be written."""
        return self.args.has("dry-run")

    @property
    def has_backup(self) -> bool:
        """Whether an old header was kept."""
        return bool(self._backups)

    @property
    def keep(self) -> Keep:
        """Keeps the header that is replaced."""

        def keep(old: OldHeader) -> None:
            reason = self.args.verb.replace(" ", "-")
            self._backups.append(self._history.keep(old, reason))

        return keep

    def confirm(self, warning: str, refusal: str) -> None:
        """Have the one at the terminal type YES; who is none, or gave -q, is not asked.

        Raises:
            NotConfirmedError: he typed something else.
        """
        if self.is_dry or self.output.is_quiet or not is_terminal():
            return
        if not ask_capitals(warning):
            raise NotConfirmedError(f"{self.file.path}: {refusal}; wanted: YES")

    def finish(self, result: Mapping[str, object]) -> None:
        """Say what was done, and where the old header is."""
        show_json(self.file, self.output)
        for path in self._backups:
            self.output.note(f"Header backup {path} made.")
        backup = str(self._backups[0]) if self._backups else None
        self.output.json({"device": self.file.path, **result, "header_backup": backup})

    def show_plan(self, before: AnyHeader, after: AnyHeader, *notes: str) -> None:
        """Say what a change would do, as a difference of what luksDump prints."""
        changes = diff_headers(before, after, self.file.path)
        for line in (*notes, *changes):
            self.output.line(line)
        self.output.line("Dry run: nothing was written.")
        self.output.json(
            {"device": self.file.path, "dry_run": True, "notes": notes, "changes": changes}
        )


@contextlib.contextmanager
def open_header(
    args: Arguments,
    settings: Settings,
    output: Output,
    *,
    read_only: bool = False,
    only_luks2: bool = False,
    kind: str | None = None,
) -> Generator[HeaderAction, None, None]:
    """The file with the header that the command line names, open for changing it.

    A volume that is open, here or in the kernel, is no hindrance. ``only_luks2`` refuses LUKS1,
    which has no such thing as the action changes. ``kind`` stands for --type, where that means
    something else. It keeps others from having a block device open, too.

    Raises:
        NotFoundError, AccessError: as `open_source`.
        ConfigError: the device is write-protected, or of another type than it must be.
        MapperError: what is raised within, with the path before it.
    """
    is_exclusive = kind is not None
    kind = kind or _parse_kind(args, only_luks2=only_luks2)
    spec = args.text("header") or args.positionals[0]
    is_dry = read_only or args.has("dry-run")
    with open_source(spec, read_only=is_dry, is_exclusive=is_exclusive) as file:
        if file.is_read_only and not is_dry:
            raise ConfigError(f"{file.path}: is write-protected")
        found = probe(file.pread, file.size)
        if found is not None and kind not in ("luks", found):
            raise ConfigError(f"{file.path}: not a valid {kind.upper()} device")
        show_json(file, output)
        yield HeaderAction(args, output, file, kind, HeaderHistory(settings.state_dir))


def _parse_kind(args: Arguments, *, only_luks2: bool) -> str:
    kind = args.text("type") or "luks"
    known = ("luks", "luks2") if only_luks2 else ("luks", "luks1", "luks2")
    if kind not in known:
        raise ConfigError(f"--type: got {kind!r}; wanted: {' or '.join(known)}")
    return "luks2" if only_luks2 else kind


def diff_headers(before: AnyHeader, after: AnyHeader, path: str) -> list[str]:
    """What differs between two headers, line by line as luksDump PATH prints them."""
    one, other = (dump_text(header, path).splitlines() for header in (before, after))
    return list(difflib.unified_diff(one, other, "before", "after", lineterm="", n=1))


def run_edit(
    action: HeaderAction, edit: Callable[[Luks2Header], Luks2Header]
) -> tuple[Luks2Header, Luks2Header] | None:
    """Replace a LUKS2 header by what ``edit`` makes of it; None after a dry run, which shows it.

    Raises:
        MapperError: what ``edit`` raises, or writing.
    """
    from ...dmcrypt.luks2.change import edit_header

    with locating(action.file.path):
        before, after = edit_header(action.file.fd, edit, action.keep, dry_run=action.is_dry)
    if action.is_dry:
        action.show_plan(before, after)
        return None
    return before, after
