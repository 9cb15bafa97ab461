"""What can be done with an open volume without closing it: suspend, resume, resize."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import trio

from ..dmcrypt.backing import locked, pread_from
from ..dmcrypt.luks_header import read_luks_header
from ..dmcrypt.resume_volume import find_key_again
from ..keystore.errors import BusyError, ConfigError, EngineError
from .activation import keeps_discards
from .backing import check_descriptor

if TYPE_CHECKING:
    from ..dmcrypt.effective_key import EffectiveKey
    from ..dmcrypt.engine.client import Engine, Secret
    from ..dmcrypt.luks_header import LuksHeader
    from ..keystore.keys import ProtectedKey
    from .activation import Activator, OpenFile
    from .control.messages import KeyInput
    from .key_renewal import KeyRenewal
    from .registry import Registry, Volume

log = logging.getLogger(__name__)

_LUKS_ONLY = "this operation is supported only for LUKS device"


class VolumeChanges:
    """Changes volumes of one registry; of each volume one thing at a time."""

    def __init__(
        self, engine: Engine, registry: Registry, activator: Activator, renewal: KeyRenewal
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._activator = activator
        self._renewal = renewal

    async def suspend(self, name: str, *, fail_io: bool) -> Volume:
        """Finish what runs, have the engine forget the key, and let I/O wait, or fail.

        Of a suspended volume ``fail_io`` ends the waiting. The daemon itself keeps no key of an
        open volume.

        Raises:
            NotFoundError: no such volume.
            ConfigError: it is no LUKS volume, or suspended already.
            EngineError: it is suspended, but the backing store failed to sync.
        """
        volume = self._registry.get(name)
        if volume.header is None:
            raise ConfigError(f"{name}: {_LUKS_ONLY}")
        if volume.is_suspended and (volume.fails_io or not fail_io):
            raise ConfigError(f"{name}: is suspended already")
        with self._changing(volume):
            number = volume.device.number
            was_suspended = volume.is_suspended
            # Whatever the sync says, from then on there is no key.
            volume.is_suspended = True
            volume.fails_io = fail_io
            if not was_suspended:
                # Once reads wait, dropping their pages would wait for them.
                await _finish(functools.partial(self._forget_pages, number))
            await _finish(
                functools.partial(self._engine.suspend, number, wipe_keys=True, fail_io=fail_io)
            )
        log.info("%s: suspended, %s", name, "I/O fails" if fail_io else "I/O waits")
        return volume

    async def resume(
        self, name: str, header: OpenFile, key: KeyInput, key_slot: int | None
    ) -> Volume:
        """Open a keyslot again, compare the key with what was opened, and let I/O go on.

        Raises:
            NotFoundError: no such volume.
            ConfigError: it is not suspended.
            UnlockError: not the right passphrase, or the header of another volume.
        """
        volume = self._registry.get(name)
        if volume.header is None:
            raise ConfigError(f"{name}: {_LUKS_ONLY}")
        if not volume.is_suspended:
            raise ConfigError(f"{name}: is not suspended")
        find = functools.partial(
            _find_key, self._activator, header, volume, volume.header, key_slot
        )

        async def go_on(found: EffectiveKey) -> None:
            await _finish(functools.partial(self._resume, volume.device.number, found.key))
            # no await from here: what the engine has and what is said of it change together.
            volume.is_suspended = False
            volume.key.note_derived(found, trio.current_time())
            self._registry.note_changed()

        with self._changing(volume):
            await self._activator.use_secret(key, find, go_on)
        log.info("%s: resumed", name)
        return volume

    async def resize(self, name: str, size: int | None) -> Volume:
        """Give a volume ``size`` bytes; None: all that its backing file has now.

        Raises:
            NotFoundError: no such volume.
            ConfigError: no whole sectors, the backing file ends before, or it is suspended.
            BusyError: another volume lies there.
        """
        volume = self._registry.get(name)
        if volume.is_suspended:
            raise ConfigError(f"{name}: is suspended")
        with self._changing(volume):
            await self._renewal.wake(volume)
            old = volume.area
            room = await trio.to_thread.run_sync(volume.backing.get_size) - old.start
            unit = volume.device.sector_size
            size = room // unit * unit if size is None else size
            if size % unit:
                raise ConfigError(f"{name}: {size} bytes are not a multiple of the sector size")
            if not 0 < size <= room:
                raise ConfigError(f"{name}: device is too small: room for {max(room, 0)} bytes")
            new = dataclasses.replace(old, end=old.start + size)
            self._registry.check_area(volume, new)
            # Nobody else is to take what both of them are, meanwhile.
            volume.area = dataclasses.replace(old, end=max(old.end, new.end))
            try:
                await _finish(functools.partial(self._engine.resize, volume.device.number, size))
            except BaseException:
                volume.area = old
                raise
            # no await from here: size and area change together.
            volume.area = new
            volume.device.size = size
            await _finish(functools.partial(self._forget_pages, volume.device.number))
        log.info("%s: has %d bytes now", name, size)
        return volume

    async def refresh(
        self, name: str, *, allow_discards: bool, becomes_flag: bool = False
    ) -> Volume:
        """Let discards reach the backing file, or no longer; a flag in the header says so, too.

        ``becomes_flag``: the caller makes the flag the same, and what it was counts no more.

        Raises:
            NotFoundError: no such volume.
            ConfigError: it is suspended, or read-only.
        """
        volume = self._registry.get(name)
        if volume.is_suspended:
            raise ConfigError(f"{name}: is suspended")
        if allow_discards and volume.device.is_read_only:
            raise ConfigError(f"{name}: is read-only, and cannot discard")
        with self._changing(volume):
            has_flag = keeps_discards(volume.header) if volume.has_flag is None else volume.has_flag
            if becomes_flag:
                has_flag = allow_discards
            discards = (allow_discards or has_flag) and not volume.device.is_read_only
            await self._renewal.wake(volume)
            number = volume.device.number
            await _finish(functools.partial(self._engine.refresh, number, discards=discards))
            volume.discards = discards
            volume.has_flag = has_flag
            await _finish(functools.partial(self._forget_pages, number))
        log.info("%s: discards are %s", name, "passed on" if discards else "not passed on")
        return volume

    def _resume(self, number: int, key: ProtectedKey) -> None:
        self._engine.rekey(number, 0, key)
        self._engine.resume(number)

    def _forget_pages(self, number: int) -> None:
        try:
            self._engine.invalidate(number)
        except EngineError as error:
            log.warning("pages of node %d stay cached: %s", number, error)

    @contextlib.contextmanager
    def _changing(self, volume: Volume) -> Generator[None, None, None]:
        if volume.is_changing or volume.device.is_closing:
            raise BusyError(f"{volume.name}: is being changed or closed")
        volume.is_changing = True
        try:
            yield
        finally:
            volume.is_changing = False
            if not volume.device.opens:  # a deferred close that this kept from happening
                self._registry.note_idle(volume.device)


async def _finish(work: Callable[[], None]) -> None:
    """Do it in a thread, and to its end: what the engine began is not left half done."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(work)


def _find_key(
    activator: Activator,
    file: OpenFile,
    volume: Volume,
    was: LuksHeader,
    key_slot: int | None,
    secret: Secret,
) -> EffectiveKey:
    """Blocks."""
    derivation = volume.key.derivation
    size = check_descriptor(file.fd, file.path, is_read_only=True)
    with locked(file.fd, exclusive=False, lock_fd=file.lock_fd):
        header = read_luks_header(pread_from(file.fd), size)
    return find_key_again(
        activator.engine,
        header,
        file.fd,
        secret,
        was=was,
        pattern=None if derivation is None else derivation.pattern,
        key_slot=key_slot,
        data_size=volume.area.end,
        key_service=activator.key_service,
    )
