"""``resize``: an open volume gets another size."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Final

from ...dmcrypt.units import SECTOR_SIZE
from ..config import Settings
from ..control.answers import Volume
from ..control.volume_requests import ResizeRequest
from ..exitcodes import ExitCode
from .arguments import Arguments
from .data_size import parse_data_size
from .output import Output
from .volume import connect, parse_name

#: The kernel takes a size for outdated if a write ends just then: asked again so often.
_ATTEMPTS: Final = 100
_PAUSE: Final = 0.01  # seconds


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Grow or shrink a volume within its file or device; to all of that without a size."""
    name = parse_name(args, settings)
    size = parse_data_size(args)
    with connect(settings, name) as client:
        reply = client.call("Resize", ResizeRequest(name, size).pack())
    volume = Volume.parse(reply)
    _show_kernel(volume)
    output.note(f"{name} has {volume.size // SECTOR_SIZE} sectors.")
    output.json(reply)
    return ExitCode.OK


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
