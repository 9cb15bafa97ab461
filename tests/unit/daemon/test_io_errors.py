"""The log's line about failing I/O."""

import errno
from types import SimpleNamespace

import trio

from fusecrypt.daemon.io_errors import watch_io_errors


class Counters:
    """What of a registry is looked at."""

    def __init__(self):
        self.errors = {}
        self.looks = 0

    def list_volumes(self):
        self.looks += 1
        return [
            SimpleNamespace(name=f"v{number}", device=SimpleNamespace(number=number))
            for number in self.errors
        ]

    def read_stats(self, volume):
        last_error = errno.ENOSPC if self.errors[volume.device.number] else 0
        return SimpleNamespace(errors=self.errors[volume.device.number], last_error=last_error)


async def test_the_first_error_of_each_device_is_logged_once(caplog, autojump_clock):  # noqa: ARG001
    registry = Counters()
    registry.errors = {1: 0, 2: 0}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_io_errors, registry)
        await trio.sleep(60)
        assert registry.looks > 1
        assert caplog.messages == []
        for count in (1, 5, 9):
            registry.errors[2] = count
            await trio.sleep(60)
        reason = "I/O fails: No space left on device; further errors are only counted"
        assert caplog.messages == [f"v2: {reason}"]
        registry.errors = {3: 1}  # another device
        await trio.sleep(60)
        assert caplog.messages == [f"v2: {reason}", f"v3: {reason}"]
        nursery.cancel_scope.cancel()
