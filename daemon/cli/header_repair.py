"""``repair``: a damaged header is mended from what is whole."""

from __future__ import annotations

from ...dmcrypt.luks1.restore import mend_header
from ...dmcrypt.luks2.change import changing, read_locked
from ...dmcrypt.probe import probe
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .header_change import HeaderAction, open_header
from .locating import locating
from .output import Output


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Write the good copy of a header over one that is damaged or outdated.

    Raises:
        MapperError: no copy is good; it cannot be written.
    """
    with open_header(args, settings, output) as action:
        is_luks1 = probe(action.file.pread, action.file.size) == "luks1"
        mended = _repair_luks1(action) if is_luks1 else _repair_luks2(action)
        if mended is None:
            return ExitCode.OK
        if not mended:
            output.note("No known problems detected for LUKS header.")
        for note in mended:
            output.note(f"Mended: {note}")
        action.finish({"problems": mended})
    return ExitCode.OK


def _repair_luks1(action: HeaderAction) -> tuple[str, ...] | None:
    """Mend the keyslots that are not in use, after a question: LUKS1 has no second copy.

    What was mended; None after a dry run, which shows it.
    """
    path = action.file.path
    with locating(path):
        notes = mend_header(action.file.fd, action.keep, dry_run=True)
    if not notes:
        return ()
    action.confirm(
        "Really try to repair LUKS device header?\n" + "\n".join(notes), "nothing was repaired"
    )
    if action.is_dry:
        for note in notes:
            action.output.line(note)
        action.output.line("Dry run: nothing was written.")
        action.output.json({"device": path, "dry_run": True, "notes": notes})
        return None
    with locating(path):
        return mend_header(action.file.fd, action.keep)


def _repair_luks2(action: HeaderAction) -> tuple[str, ...] | None:
    """Write the good copy over the other; what was mended, None after a dry run."""
    fd, path = action.file.fd, action.file.path
    with locating(path):
        header = read_locked(fd)
    if not header.is_damaged:
        return ()
    if action.is_dry:
        action.show_plan(header, header, *header.notes)
        return None
    with locating(path), changing(fd, action.keep) as change:
        notes = change.header.notes
        change.begin()
    return notes
