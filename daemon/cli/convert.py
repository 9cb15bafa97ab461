"""``fusecrypt convert``: a LUKS1 header made a LUKS2 header, or the other way round."""

from __future__ import annotations

import contextlib

from ...dmcrypt.convert.to_luks1 import convert_to_luks1, plan_luks1
from ...dmcrypt.convert.to_luks2 import convert_to_luks2, plan_luks2
from ...dmcrypt.luks1 import Luks1Header
from ...dmcrypt.luks_change import AnyHeader, read_changeable
from ...keystore.errors import ConfigError
from ..backing import get_data_area, lock_data_area
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .header_change import HeaderAction, open_header
from .locating import locating
from .output import Output
from .source import open_source


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Convert a header.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    wanted = args.text("type")
    if wanted not in ("luks1", "luks2"):
        raise ConfigError(f"--type: got {wanted!r}; wanted: luks1 or luks2")
    with contextlib.ExitStack() as stack:
        action = stack.enter_context(open_header(args, settings, output, kind="luks"))
        path = action.file.path
        _refuse_use(args, action, stack)
        with locating(path):
            header = read_changeable(action.file.fd)
            if header.type == wanted:
                raise ConfigError(f"is {wanted.upper()} already")
            is_risky, notes = _plan(header)
        action.confirm(
            f"This operation will convert {path} to {wanted.upper()} format.", "was not converted"
        )
        if is_risky:
            output.warn(
                f"{path}: the key material of all keyslots must be moved within the place it has; "
                "if that is interrupted, one passphrase may open nothing until header restore"
            )
        if action.is_dry:
            for note in [f"The header would be {wanted.upper()}.", *notes]:
                output.line(note)
            output.line("Dry run: nothing was written.")
            output.json({"device": path, "dry_run": True, "type": wanted, "notes": notes})
            return ExitCode.OK
        with locating(path):
            if wanted == "luks2":
                convert_to_luks2(action.file.fd, action.keep, may_risk=is_risky)
            else:
                convert_to_luks1(action.file.fd, action.keep)
        action.finish({"type": wanted})
    return ExitCode.OK


def _plan(header: AnyHeader) -> tuple[bool, list[str]]:
    """Whether a cut may do harm, and what is to be said in a dry run."""
    if not isinstance(header, Luks1Header):
        plan_luks1(header)
        return False, []
    plan = plan_luks2(header)
    return plan.is_risky, [f"The key material would move by {plan.shift} bytes."]


def _refuse_use(args: Arguments, action: HeaderAction, stack: contextlib.ExitStack) -> None:
    """Refuse a volume that is open: who has it open, would read the header again."""
    if action.is_dry:
        return
    data = action.file
    if args.has("header"):
        data = stack.enter_context(open_source(args.positionals[0], read_only=False))
    lock_data_area(data.fd, get_data_area(data.fd, 0, 0, is_read_only=False), data.path)
