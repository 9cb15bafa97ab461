"""The open volumes: what is open under which name, and how one is closed.

One trio task at a time changes it, between checkpoints. The tree shows what is here; the engine
serves it. A volume enters the engine first, then registry and tree together. It leaves the tree
first, then the engine, which drains, and the registry last: its file is not reopened before that.
"""

from __future__ import annotations

import contextlib
import logging
import math
import stat
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from ..dmcrypt.engine.messages import DeviceSpec
from ..dmcrypt.engine.reports import DeviceStats
from ..keystore.errors import BusyError, EngineError, NotFoundError
from .backing import BackingFile, DataArea
from .live_key import LiveKey
from .tree import Device, Times, Tree
from .volume_name import NAME_TAKEN

if TYPE_CHECKING:
    from ..dmcrypt.dm_table import TableLine
    from ..dmcrypt.engine.client import Engine
    from ..dmcrypt.luks_header import LuksHeader
    from ..dmcrypt.table import Table

log = logging.getLogger(__name__)

#: Seconds that a close waits for RELEASE requests, which the kernel sends asynchronously.
RELEASE_TIMEOUT: Final = 2.0


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose the devices are."""

    uid: int
    gid: int
    mode: int  # of a writable device; a read-only one loses its write bits


@dataclass(frozen=True, slots=True)
class Description:
    """What ``status`` tells of a volume that the data path does not need."""

    type: str  # "LUKS2" or "PLAIN"
    cipher: str
    key_bits: int
    offset: int  # of the data, in 512-byte sectors
    iv_offset: int  # likewise
    source: str
    uuid: str | None = None
    label: str | None = None
    header: str | None = None
    keyslot: int | None = None


@dataclass(slots=True, eq=False)
class Volume:
    """An open volume."""

    name: str
    minor: int
    device: Device
    slot: int  # of the engine's statistics
    description: Description
    area: DataArea
    backing: BackingFile
    key: LiveKey = field(default_factory=LiveKey)
    links: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    header: LuksHeader | None = None  # as it was when the volume was opened; None: not LUKS
    discards: bool = False
    has_flag: bool | None = None  # for discards, that came into the header since; None: as it was
    iv_large_sectors: bool = False
    lines: tuple[TableLine, ...] = ()  # of a raw table
    is_deferred: bool = False
    is_suspended: bool = False  # the engine has no key
    fails_io: bool = False  # while suspended; else I/O waits
    is_changing: bool = False
    idle: trio.Event = field(default_factory=trio.Event)


class Registry:
    """All open volumes of one mount."""

    def __init__(
        self,
        engine: Engine,
        tree: Tree,
        ownership: Ownership,
        *,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._engine = engine
        self.tree = tree
        self._ownership = ownership
        self._now = now
        self._volumes: dict[str, Volume] = {}
        self._opening: dict[str, DataArea | None] = {}
        # A close waits for the disk: more at once would only queue there.
        self._disk = trio.CapacityLimiter(4)
        # Bound: one wake-up is enough, however many volumes became idle meanwhile.
        self._wake, self._woken = trio.open_memory_channel[None](1)
        self._changed = trio.Event()

    def __len__(self) -> int:
        return len(self._volumes)

    def list_volumes(self) -> list[Volume]:
        """The open volumes, in the order in which they were opened."""
        return list(self._volumes.values())

    def get(self, name: str) -> Volume:
        """The open volume of this name.

        Raises:
            NotFoundError: there is none.
        """
        volume = self._volumes.get(name)
        if volume is None:
            raise NotFoundError(f"{name}: no such volume is open")
        return volume

    def find(self, node: int) -> Volume | None:
        """The open volume whose device has this node number."""
        return next((v for v in self._volumes.values() if v.device.number == node), None)

    def note_changed(self) -> None:
        """A volume came, or has a key again: `wait_changed` comes back."""
        self._changed.set()

    async def wait_changed(self) -> None:
        """Come back when a volume came, or has a key again; for one waiter."""
        await self._changed.wait()
        self._changed = trio.Event()

    def is_open(self, name: str) -> bool:
        """Whether a volume of this name is open."""
        return name in self._volumes

    def read_stats(self, volume: Volume) -> DeviceStats:
        """What the engine counted; a read of shared memory."""
        return self._engine.stats(volume.slot)

    @contextlib.contextmanager
    def reserve(self, name: str) -> Generator[None, None, None]:
        """Keep a name for a volume that is being opened.

        Raises:
            BusyError: a volume has it, or is about to.
        """
        if name in self._volumes:
            raise BusyError(f"{name}: {NAME_TAKEN}")
        if name in self._opening:
            raise BusyError(f"{name}: a volume of this name is being opened")
        self._opening[name] = None
        try:
            yield
        finally:
            del self._opening[name]

    def claim(self, name: str, area: DataArea, path: str) -> None:
        """Keep a data area for a reserved name.

        The file's own lock keeps other daemons out, but not a second use of the same description.

        Raises:
            BusyError: an open volume lies there, and one of the two writes.
        """
        self._check_area(name, area, path)
        self._opening[name] = area

    def check_area(self, volume: Volume, area: DataArea) -> None:
        """Refuse what would lie where another volume does.

        Raises:
            BusyError: naming the other.
        """
        self._check_area(volume.name, area, volume.description.source)

    def _check_area(self, name: str, area: DataArea, path: str) -> None:
        held = {v.name: v.area for v in self._volumes.values()} | self._opening
        for other, theirs in held.items():
            if other != name and theirs is not None and theirs.conflicts(area):
                raise BusyError(f"{path}: is open already, as volume {other}")

    async def add(
        self,
        name: str,
        table: Table,
        fds: Sequence[int],
        area: DataArea,
        description: Description,
        header: LuksHeader | None = None,
        key: LiveKey | None = None,
    ) -> Volume:
        """Have the engine serve a table under a reserved and claimed name, and show it.

        ``fds`` stay the caller's. The first is the volume's source. ``header`` is None where the
        volume has none, and then it cannot be suspended.
        """
        assert self._opening.get(name) == area
        number = self.tree.get_node_number()
        spec = table.to_device(number)
        slot, backing = await trio.to_thread.run_sync(
            self._add_to_engine, spec, fds, description.source, limiter=self._disk
        )
        # no await from here: name, number and device appear together.
        now = self._now()
        mode = self._ownership.mode & ~(0o222 if spec.read_only else 0)
        device = Device(
            number,
            stat.S_IFREG | mode,
            self._ownership.uid,
            self._ownership.gid,
            Times(now, now, now),
            size=spec.size,
            sector_size=spec.sector_size,
            is_read_only=spec.read_only,
        )
        minor = self._find_free_minor()
        volume = Volume(
            name, minor, device, slot, description, area, backing, key or LiveKey(),
            header=header, discards=spec.discards,
            iv_large_sectors=any(s.iv_large_sectors for s in spec.segments),
        )  # fmt: skip
        self._volumes[name] = volume
        self.tree.add_device(device, name, minor)
        self._add_links(volume)
        self.note_changed()
        rights = ", read-only" if spec.read_only else ""
        log.info("%s: open, %d bytes of %s%s", name, spec.size, description.source, rights)
        return volume

    def note_idle(self, device: Device) -> None:
        """The kernel has let go of the last handle of a device."""
        volume = self.find(device.number)
        if volume is None:
            return  # closed, whoever had it open
        volume.idle.set()
        if volume.is_deferred:
            with contextlib.suppress(trio.WouldBlock):
                self._wake.send_nowait(None)

    async def close_deferred(self) -> None:
        """Close the volumes whose deferred close has become possible; runs until cancelled."""
        async for _ in self._woken:
            for volume in self.list_volumes():
                device = volume.device
                # Somebody else may have closed it while we closed the one before.
                is_free = not (device.opens or device.is_closing or volume.is_changing)
                if volume.is_deferred and is_free:
                    # The one who asked for it is gone: what failed goes to the log.
                    with contextlib.suppress(BusyError):
                        await self._close_logged(volume)

    async def close(self, name: str, *, is_deferred: bool = False) -> None:
        """Flush and close a volume; ``is_deferred``: now, or when its last user is gone.

        Raises:
            NotFoundError: no such volume.
            BusyError: somebody has it open, and it stays as it was.
            EngineError: it is closed, but the backing store failed to sync.
        """
        volume = self.get(name)
        if volume.device.is_closing or volume.is_changing:
            raise BusyError(f"{name}: is being closed or changed")
        if is_deferred and volume.device.opens:
            volume.is_deferred = True
            log.info("%s: will be closed when it is no longer in use", name)
            return
        await self._close(volume)

    def cancel_deferred(self, name: str) -> None:
        """Let a volume stay open that was to be closed when its last user is gone.

        Raises:
            NotFoundError: no such volume.
            BusyError: it is being closed.
        """
        volume = self.get(name)
        if volume.device.is_closing:
            raise BusyError(f"{name}: is being closed")
        volume.is_deferred = False

    async def close_all(self, deadline: float) -> list[str]:
        """Flush and close everything, whoever has it open; the names of what was not flushed.

        Callers get errors from now on. At ``deadline`` (of trio's clock) the volumes whose backing
        store hangs are given up.
        """
        failed: list[str] = []

        async def close_one(volume: Volume) -> None:
            try:
                is_flushed = await self._remove(volume, deadline)
            except EngineError as error:
                log.error("%s: %s", volume.name, error)  # noqa: TRY400 (no bug of ours)
                is_flushed = False
            if not is_flushed:
                failed.append(volume.name)

        async with trio.open_nursery() as nursery:
            for volume in self.list_volumes():
                if not volume.device.is_closing:
                    volume.device.is_closing = True
                    nursery.start_soon(close_one, volume)
        return failed

    async def _close_logged(self, volume: Volume) -> None:
        try:
            await self._close(volume)
        except EngineError as error:
            log.error("%s: %s", volume.name, error)  # noqa: TRY400 (no bug of ours)

    async def _close(self, volume: Volume) -> None:
        device = volume.device
        device.is_closing = True
        try:
            await self._wait_idle(volume)
        except BaseException:
            device.is_closing = False
            raise
        await self._remove(volume)

    async def _wait_idle(self, volume: Volume) -> None:
        with trio.move_on_after(RELEASE_TIMEOUT):
            while volume.device.opens:
                volume.idle = trio.Event()
                await volume.idle.wait()
        if volume.device.opens:
            count = volume.device.opens
            raise BusyError(f"{volume.name}: in use, {count} open handle{'s' * (count > 1)}")

    async def _remove(self, volume: Volume, deadline: float = math.inf) -> bool:
        """Take it away everywhere; whether that came to an end before ``deadline``."""
        # no await from here: the names disappear together. The volume keeps its area until the
        # engine is done, so nobody opens the file between.
        names = self.tree.remove_device(volume.device, volume.name, volume.minor)
        self.tree.remove_links(volume.links)
        names += volume.links
        for other in self._volumes.values():
            if other.device.links:
                self._add_links(other)
        # Not to be left half done: the engine would keep a device that nobody can close.
        with trio.CancelScope(shield=True, deadline=deadline) as scope:
            try:
                await trio.to_thread.run_sync(
                    self._drop, volume, names, limiter=self._disk, abandon_on_cancel=True
                )
            finally:
                volume.backing.close()
                del self._volumes[volume.name]
        if scope.cancelled_caught:
            log.error("%s: not flushed: the backing store does not answer", volume.name)
        else:
            log.info("%s: closed", volume.name)
        return not scope.cancelled_caught

    def _add_to_engine(
        self, spec: DeviceSpec, fds: Sequence[int], path: str
    ) -> tuple[int, BackingFile]:
        """Blocks."""
        backing = BackingFile(fds[0], path)
        try:
            return self._engine.add_device(spec, fds), backing
        except BaseException:
            backing.close()
            raise

    def _drop(self, volume: Volume, names: Sequence[tuple[int, bytes]]) -> None:
        """Blocks. The key goes first; then no plaintext stays in the page cache."""
        try:
            self._engine.remove_device(volume.device.number)
        except EngineError:
            # Of a deleted file nothing could be kept anyhow, as has been told.
            if not volume.backing.is_deleted():
                raise
        finally:
            self._engine.invalidate(volume.device.number, names)

    def _add_links(self, volume: Volume) -> None:
        volume.links += self.tree.add_disk_links(
            volume.minor, uuid=volume.description.uuid or "", label=volume.description.label or ""
        )

    def _find_free_minor(self) -> int:
        taken = {volume.minor for volume in self._volumes.values()}
        return next(n for n in range(len(taken) + 1) if n not in taken)
