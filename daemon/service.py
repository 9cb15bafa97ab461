"""What the service manager expects of a living service: signs of life, and time for a long start.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final

import trio

from ..keystore.errors import MapperError
from .notify import notify

log = logging.getLogger(__name__)

#: Seconds between two requests for more time, and how much each asks for. A start that hangs asks
#: for no more.
_EXTEND_PERIOD: Final = 10.0
_EXTENSION: Final = 40.0
_MICROSECONDS: Final = 1_000_000


def get_watchdog_timeout(environment: Mapping[str, str] | None = None) -> float | None:
    """Seconds within which systemd wants a sign of life of this process; None: it wants none."""
    env = os.environ if environment is None else environment
    if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        timeout = int(env.get("WATCHDOG_USEC", "")) / _MICROSECONDS
    except ValueError:
        return None
    return timeout if timeout > 0 else None


async def feed_watchdog(check: Callable[[], Awaitable[object]]) -> None:
    """Tell that we live, as long as ``check`` comes back in time. Runs until cancelled."""
    timeout = get_watchdog_timeout()
    if timeout is None:
        return
    period = timeout / 2
    while True:
        next_time = trio.current_time() + period
        with trio.move_on_after(period):
            try:
                await check()
            except MapperError as error:
                log.error("watchdog: %s", error)  # noqa: TRY400 (no bug of ours)
            else:
                notify("WATCHDOG=1")
        await trio.sleep_until(next_time)


@contextlib.asynccontextmanager
async def extended_start() -> AsyncGenerator[None, None]:
    """Have the start time-out prolonged inside: questions and key derivations take their time."""

    async def extend() -> None:
        while True:
            notify(f"EXTEND_TIMEOUT_USEC={_EXTENSION * _MICROSECONDS:.0f}")
            await trio.sleep(_EXTEND_PERIOD)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(extend)
        yield
        nursery.cancel_scope.cancel()
