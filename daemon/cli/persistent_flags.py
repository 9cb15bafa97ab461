"""``--persistent``: a header remembers how its volume is to be opened."""

from __future__ import annotations

from typing import Final

from ...dmcrypt.luks2 import Luks2Header, edit
from ...dmcrypt.luks_change import AnyHeader
from ...keystore.errors import ConfigError
from ..config import Settings
from ..control.answers import Volume
from .arguments import Arguments
from .header_change import open_header, run_edit
from .output import Output

#: The options that a header can remember, and what it calls them (on-disk format, sec. 3.5).
_FLAGS: Final = {
    "allow-discards": "allow-discards",
    "perf-same_cpu_crypt": "same-cpu-crypt",
    "perf-submit_from_crypt_cpus": "submit-from-crypt-cpus",
    "perf-no_read_workqueue": "no-read-workqueue",
    "perf-no_write_workqueue": "no-write-workqueue",
}


def check_persistent(args: Arguments, header: AnyHeader, *, read_only: bool) -> None:
    """Refuse --persistent where no header could be changed.

    Raises:
        ConfigError: says why.
    """
    if not args.has("persistent"):
        return
    if not isinstance(header, Luks2Header):
        raise ConfigError("--persistent: only a LUKS2 header remembers options")
    if read_only:
        raise ConfigError("--persistent: not with --readonly; the header is changed")


def check_volume(volume: Volume) -> None:
    """Refuse --persistent for an open volume whose header could not be changed.

    Raises:
        ConfigError: says why.
    """
    if volume.type != "LUKS2":
        raise ConfigError(f"--persistent: {volume.name}: only a LUKS2 header remembers options")
    if volume.read_only:
        raise ConfigError(f"--persistent: {volume.name}: is read-only; the header is changed")


def keep_flags(args: Arguments, settings: Settings, output: Output) -> None:
    """Have the header remember the options that were given, and no others.

    Raises:
        MapperError: it cannot be changed; the volume is open all the same.
    """
    flags = [flag for name, flag in _FLAGS.items() if args.has(name)]

    def change(header: Luks2Header) -> Luks2Header:
        return edit.set_flags(header, flags, known=_FLAGS.values())

    with open_header(args, settings, output, only_luks2=True) as action:
        run_edit(action, change)
