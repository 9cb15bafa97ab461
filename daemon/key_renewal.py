"""The keys of open ``paes`` volumes as time goes by: forgotten, and derived again for the next I/O.

A key goes when its lease ends, and with the engine's session. The first request after that makes
the engine ask here; the secure key, which the daemon kept, goes to keystored once more. While no
adapter serves it, it is tried again as the delays say; then I/O fails (EIO), as that of the
kernel's paes does, and an I/O after a moment asks anew. So nobody has to tell that an adapter is
back.
"""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from ..dmcrypt.effective_key import derive_key
from ..keystore.errors import (
    BusyError,
    ConfigError,
    EngineError,
    MapperError,
    ProtectedKeyExpiredError,
)

if TYPE_CHECKING:
    from ..dmcrypt.effective_key import KeyService
    from ..dmcrypt.engine.client import Engine
    from ..dmcrypt.engine.reports import DeviceStats
    from .registry import Registry, Volume

log = logging.getLogger(__name__)

#: Seconds between one try and the next.
RETRY_DELAYS: Final = (0.2, 0.4, 0.8, 1.6)
#: Seconds after which I/O fails in any case: a keystored that hangs is no better than none.
PATIENCE: Final = 15.0
#: Milliseconds in which I/O fails at once after that; then it asks again.
DENIAL: Final = 2000
#: How often a volume's activity is looked at, as a part of the idle time; so much later than asked
#: for its key is forgotten at most.
_IDLE_PART: Final = 8
_SHORTEST_LOOK: Final = 0.1
#: The engine serves so many devices (DEVICE_SLOTS), and each asks once until it has its answer.
_DEVICES: Final = 1024


@dataclass(frozen=True, slots=True)
class Bumped:
    """What another session meant for the volumes, by name."""

    derived_again: tuple[str, ...]  # at their next I/O
    lost: tuple[str, ...]


class KeyRenewal:
    """Gives volumes of one registry their keys again."""

    def __init__(self, engine: Engine, registry: Registry, key_service: KeyService) -> None:
        self._engine = engine
        self._registry = registry
        self._key_service = key_service
        self._wanted_by, self._wanted = trio.open_memory_channel[int](_DEVICES)
        #: Whose key is being derived: whether its I/O asked once more meanwhile.
        self._renewing: dict[int, bool] = {}
        # A keystored that hangs must not take all threads of the daemon.
        self._derivations = trio.CapacityLimiter(8)

    def note_wanted(self, node: int) -> None:
        """I/O of a device waits for its key."""
        self._wanted_by.send_nowait(node)

    async def serve(self) -> None:
        """Derive what is wanted, end leases; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_leases)
            async for node in self._wanted:
                volume = self._registry.find(node)
                if volume is None:
                    continue  # closed meanwhile
                if node in self._renewing:
                    self._renewing[node] = True
                else:
                    self._renewing[node] = False
                    nursery.start_soon(self._renew_until_done, volume)

    async def bump_session(self) -> Bumped:
        """Have the engine begin another session, which voids all protected keys.

        Raises:
            BusyError: a volume is being changed; nothing has happened.
            EngineError: likewise.
        """
        started = trio.current_time()
        await trio.to_thread.run_sync(self._engine.bump_session, abandon_on_cancel=True)
        again: list[str] = []
        lost: list[str] = []
        for volume in self._registry.list_volumes():
            key = volume.key
            if key.is_random and key.state != "lost":
                key.note_gone("lost", "it was of a session that is over")
                lost.append(volume.name)
                log.error(
                    "%s: its random key is lost with the engine's session: I/O fails from now on; "
                    "to have a new one, and lose the data, close the volume and open it again",
                    volume.name,
                )
                continue
            is_of_old = key.derivation is not None and key.derived_at < started
            if is_of_old and not volume.is_suspended:
                again.append(volume.name)
                if key.state == "present":
                    key.note_gone("forgotten", "the engine's session is another one")
        log.info("another session of the engine: %d keys void, %d lost", len(again), len(lost))
        return Bumped(tuple(again), tuple(lost))

    async def wake(self, volume: Volume) -> None:
        """Give the engine a key that it forgot, for a change of the volume that needs it at rest.

        Raises:
            ConfigError: the key is lost.
            MapperError: it cannot be derived.
        """
        if volume.key.state == "lost":
            raise ConfigError(f"{volume.name}: its key is lost: {volume.key.reason}")
        if volume.key.state == "present":
            return
        try:
            await self._derive(volume)
        except ProtectedKeyExpiredError:  # another session has begun meanwhile
            await self._derive(volume)

    async def _renew_until_done(self, volume: Volume) -> None:
        node = volume.device.number
        try:
            is_wanted = True
            while is_wanted:
                self._renewing[node] = False
                await self._renew(volume)
                is_wanted = self._renewing[node]
        finally:
            del self._renewing[node]

    async def _renew(self, volume: Volume) -> None:
        fault = "keystored does not answer"
        with trio.move_on_after(PATIENCE):
            for delay in (0.0, *RETRY_DELAYS):
                await trio.sleep(delay)
                if volume.is_suspended or self._registry.find(volume.device.number) is None:
                    return  # it waits for its user now, or is closed
                try:
                    await self._derive(volume)
                except MapperError as error:
                    fault = str(error)
                    log.debug("%s: no key: %s", volume.name, fault)
                else:
                    return
        await self._deny(volume, fault)

    async def _derive(self, volume: Volume) -> None:
        key = volume.key
        assert key.derivation is not None
        derive = functools.partial(
            derive_key,
            self._engine,
            key.derivation.secure,
            self._key_service,
            pattern=key.derivation.pattern,
        )
        effective = await trio.to_thread.run_sync(
            derive, limiter=self._derivations, abandon_on_cancel=True
        )
        give = functools.partial(self._engine.renew_key, volume.device.number, 0, effective.key)
        if not await trio.to_thread.run_sync(give):
            return
        # no await from here: what the engine has and what is said of it change together.
        was_unavailable = key.state == "unavailable"
        key.note_derived(effective, trio.current_time())
        log.info(
            "%s: key derived again (%s)%s",
            volume.name,
            effective.origin,
            ", I/O goes on" if was_unavailable else "",
        )
        self._registry.note_changed()

    async def _deny(self, volume: Volume, fault: str) -> None:
        if volume.key.state != "unavailable":
            log.error("%s: I/O fails: its key cannot be derived: %s", volume.name, fault)
        volume.key.note_gone("unavailable", fault)
        deny = functools.partial(self._engine.deny_key, volume.device.number, milliseconds=DENIAL)
        try:
            await trio.to_thread.run_sync(deny)
        except EngineError as error:
            log.debug("%s: %s", volume.name, error)  # closed meanwhile

    async def _watch_leases(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                next_look = math.inf
                for volume in self._registry.list_volumes():
                    look, reason = self._look_at(volume, now)
                    if reason:
                        volume.key.note_gone("forgotten", reason)
                        nursery.start_soon(self._forget, volume)
                    next_look = min(next_look, look)
                with trio.move_on_at(next_look):
                    await self._registry.wait_changed()

    def _look_at(self, volume: Volume, now: float) -> tuple[float, str]:
        """When to look again; and why the key is to go now, if it is."""
        key = volume.key
        lease = key.lease
        if not lease or key.state != "present" or volume.is_suspended or volume.device.is_closing:
            return math.inf, ""
        look = math.inf
        if lease.lifetime:
            look = key.derived_at + lease.lifetime
            if look <= now:
                return math.inf, f"its lease of {lease.lifetime} s is over"
        if lease.idle:
            activity = _count(self._registry.read_stats(volume))
            if activity != key.activity:
                key.activity, key.active_at = activity, now
            if key.active_at + lease.idle <= now:
                return math.inf, f"no I/O for {lease.idle} s"
            pause = max(lease.idle / _IDLE_PART, _SHORTEST_LOOK)
            look = min(look, key.active_at + lease.idle, now + pause)
        return look, ""

    async def _forget(self, volume: Volume) -> None:
        forget = functools.partial(self._engine.forget_key, volume.device.number)
        try:
            await trio.to_thread.run_sync(forget, abandon_on_cancel=True)
        except BusyError:
            await trio.sleep(1)
            if volume.key.state == "forgotten":
                volume.key.note_kept()
            self._registry.note_changed()
        except EngineError as error:
            if not volume.device.is_closing:
                log.warning("%s: %s", volume.name, error)
        else:
            log.info("%s: key forgotten: %s", volume.name, volume.key.reason)


def _count(stats: DeviceStats) -> int:
    """A number that grows with every request."""
    return stats.reads + stats.writes + stats.flushes + stats.zeroed_bytes + stats.errors
