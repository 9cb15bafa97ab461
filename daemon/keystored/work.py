"""The one at a time who works with the adapters' files, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

Result = TypeVar("Result")


class Work:
    """Runs what blocks."""

    def __init__(self) -> None:
        # One at a time: they share one directory of state.
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, function: Callable[[], Result]) -> Result:
        """What the function returns, once all before it have returned."""
        # Abandoned at the end only: what it writes to the disk is whole or not there.
        return await trio.to_thread.run_sync(
            function, limiter=self._limiter, abandon_on_cancel=True
        )
