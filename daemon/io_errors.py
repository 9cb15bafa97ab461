"""The log's line about a device whose I/O fails: the engine counts errors and tells nobody."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from .registry import Registry

log = logging.getLogger(__name__)

#: Seconds between two looks at the counters: a read of memory for each volume.
_PAUSE: Final = 5.0


async def watch_io_errors(registry: Registry) -> None:
    """Log the first error of each device, within seconds; runs until cancelled.

    Only the first: a full disk would fill the log. ``status`` shows how many there were.
    """
    told: set[int] = set()  # node numbers
    while True:
        await trio.sleep(_PAUSE)
        volumes = registry.list_volumes()
        told &= {volume.device.number for volume in volumes}
        for volume in volumes:
            stats = registry.read_stats(volume)
            if stats.errors and volume.device.number not in told:
                told.add(volume.device.number)
                reason = os.strerror(stats.last_error)
                log.warning(
                    "%s: I/O fails: %s; further errors are only counted", volume.name, reason
                )
