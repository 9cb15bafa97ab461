"""``resize``: an open volume gets another size."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

from ...dmcrypt.units import SECTOR_SIZE
from ...keystore.errors import ConfigError
from ..config import Settings
from ..control.answers import Volume
from ..control.volume_requests import ResizeRequest
from ..exitcodes import ExitCode
from .arguments import Arguments
from .output import Output
from .volume import connect, parse_name

#: The kernel takes a size for outdated if a write ends just then: asked again so often.
_ATTEMPTS: Final = 100
_PAUSE: Final = 0.01  # seconds


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Grow or shrink a volume within its file or device; to all of that without a size."""
    name = parse_name(args, settings)
    size = _parse_size(args)
    with connect(settings, name) as client:
        reply = client.call("Resize", ResizeRequest(name, size).pack())
    volume = Volume.parse(reply)
    _show_kernel(volume)
    output.note(f"{name} has {volume.size // SECTOR_SIZE} sectors.")
    output.json(reply)
    return ExitCode.OK


def _parse_size(args: Arguments) -> int | None:
    """As cryptsetup: nothing, or 0, is all there is."""
    sectors, size = args.number("size"), args.size("device-size")
    if sectors is not None and size is not None:
        raise ConfigError("--size and --device-size: wanted: one of them")
    if size is not None and size % SECTOR_SIZE:
        raise ConfigError(f"--device-size: {size} bytes; wanted: a multiple of {SECTOR_SIZE}")
    return size or (sectors or 0) * SECTOR_SIZE or None


def _show_kernel(volume: Volume) -> None:
    """Have the kernel look: a loop device asks it, and it would not ask us."""
    with contextlib.suppress(OSError):  # root cannot look into a user's mount
        fd = os.open(volume.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for _ in range(_ATTEMPTS):
                if os.lseek(fd, 0, os.SEEK_END) == volume.size:
                    break
                time.sleep(_PAUSE)
        finally:
            os.close(fd)
