"""``config`` and ``luksUUID --uuid``: what a header says beside keys."""

from __future__ import annotations

from typing import Final

from ...dmcrypt.luks2 import Luks2Header, edit
from ...dmcrypt.luks2.keyslot import PRIORITY_IGNORE, PRIORITY_NORMAL, PRIORITY_PREFER
from ...dmcrypt.luks_change import read_changeable, set_uuid
from ...dmcrypt.volume_uuid import parse_uuid
from ...keystore.errors import ConfigError
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .header_change import open_header, run_edit
from .locating import locating
from .output import Output

_PRIORITIES: Final = {
    "prefer": PRIORITY_PREFER,
    "normal": PRIORITY_NORMAL,
    "ignore": PRIORITY_IGNORE,
}


def run_config(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Set a keyslot's priority, label, subsystem, or all of them in one step.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    labels = edit.LabelChange(args.text("label"), args.text("subsystem"))
    priority, number = _parse_priority(args), args.number("key-slot")
    if priority is None and labels == edit.LabelChange():
        raise ConfigError("config: wanted: --priority, --label or --subsystem")
    if priority is not None and number is None:
        raise ConfigError("--priority: wanted: --key-slot, too")

    def change(header: Luks2Header) -> Luks2Header:
        if priority is not None and number is not None:
            header = edit.set_priority(header, number, priority)
        return edit.set_labels(header, labels)

    with open_header(args, settings, output, only_luks2=True) as action:
        done = run_edit(action, change)
        if done is not None:
            _, after = done
            action.finish({"label": after.label, "subsystem": after.subsystem})
    return ExitCode.OK


def run_set_uuid(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Give a volume another UUID.

    Raises:
        MapperError: why not; then the header is as it was.
    """
    uuid = parse_uuid(args.text("uuid") or "")
    with open_header(args, settings, output) as action:
        question = f"This gives {action.file.path} another UUID; what names the volume by it fails."
        action.confirm(question, "the UUID was not changed")
        fd = action.file.fd
        with locating(action.file.path):
            header = read_changeable(fd, action.kind)
            before, after = set_uuid(fd, header, uuid, action.keep, dry_run=action.is_dry)
        if action.is_dry:
            action.show_plan(before, after)
        else:
            action.finish({"uuid": after.uuid})
    return ExitCode.OK


def _parse_priority(args: Arguments) -> int | None:
    text = args.text("priority")
    if text is None:
        return None
    if text not in _PRIORITIES:
        raise ConfigError(f"--priority: got {text!r}; wanted: {', '.join(_PRIORITIES)}")
    return _PRIORITIES[text]
