"""From descriptors and a passphrase to an open volume.

What blocks (header, key derivation, engine) runs in threads. How many key derivations run at once
is bounded by memory: one of Argon2 may take gibibytes.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from ..dmcrypt.backing import locked, pread_from
from ..dmcrypt.effective_key import KeyService
from ..dmcrypt.engine.client import Engine, Secret
from ..dmcrypt.engine.messages import SecretMode
from ..dmcrypt.loopaes import LoopaesParams, open_loopaes
from ..dmcrypt.luks2 import Luks2Header
from ..dmcrypt.luks2.requirement import allows_discards
from ..dmcrypt.luks_header import LuksHeader, read_luks_header
from ..dmcrypt.open_volume import (
    OpenedVolume,
    check_luks,
    get_key_size,
    is_xts,
    open_luks,
    open_luks_with_key,
    open_plain,
)
from ..dmcrypt.plain import PlainParams
from ..dmcrypt.units import SECTOR_SIZE
from ..keystore.errors import (
    ConfigError,
    EngineError,
    ProtectedKeyExpiredError,
    UnlockError,
)
from .backing import (
    DataArea,
    check_descriptor,
    get_data_area,
    get_data_length,
    lock_data_area,
)
from .control.messages import KeyInput, VolumeKeyInput
from .live_key import NO_LEASE, Lease, make_live_key
from .registry import Description, Registry, Volume

log = logging.getLogger(__name__)

#: What cryptsetup lets Argon2 take by default, at most; bytes.
_KDF_MEMORY: Final = 1 << 30
#: Seconds in which a passphrase must come through a pipe once it was announced.
_SECRET_TIMEOUT: Final = 60.0
#: Sessions of the engine in which one key is tried. Nobody begins so many during one opening.
_SESSIONS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A descriptor, which stays its owner's, and how it is called in messages."""

    fd: int
    path: str
    lock_fd: int | None = None  # cryptsetup's lock of a device, where we may not open it ourselves


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to open, and how; all but the key."""

    name: str
    source: OpenFile
    header: OpenFile | None = None
    is_read_only: bool = False
    key_slot: int | None = None
    plain: PlainParams | LoopaesParams | None = None  # None: LUKS
    luks: str = "luks"  # or only luks1, luks2
    allow_discards: bool = False
    lease: int | None = None  # seconds, 0: none; None: as the settings say
    idle: int | None = None  # likewise


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe whose source has been looked at: nothing but the key is missing."""

    recipe: Recipe
    source_size: int  # bytes
    area: DataArea
    header: LuksHeader | None  # None: plain, loopaes


Derived = TypeVar("Derived")
Used = TypeVar("Used")

#: Has an opened volume served.
Serve = Callable[[OpenedVolume], Awaitable[Volume]]
#: Gets the key of a prepared volume, as often as it takes, and has the volume served with it.
Unlock = Callable[[Prepared, Serve], Awaitable[Volume]]


class Activator:
    """Opens volumes with one engine into one registry."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        key_service: KeyService,
        *,
        default_lease: Lease = NO_LEASE,
    ) -> None:
        self.engine = engine
        self.key_service = key_service
        self._default_lease = default_lease
        self._registry = registry
        self._kdf_memory = trio.CapacityLimiter(_count_kdfs())
        # Reading a header or key file is short, but a slow disk must not stop the others.
        self._files = trio.CapacityLimiter(8)

    async def activate(self, recipe: Recipe, unlock: Unlock) -> Volume:
        """Open a volume. The name is taken from now on, whatever the outcome is later.

        Raises:
            MapperError: why it stays closed; nothing has been changed.
        """
        with self._registry.reserve(recipe.name):
            prepared = await trio.to_thread.run_sync(
                _prepare, recipe, limiter=self._files, abandon_on_cancel=True
            )
            # Before anybody is asked for a passphrase that would help nobody.
            self._registry.claim(recipe.name, prepared.area, recipe.source.path)
            await trio.to_thread.run_sync(
                lock_data_area, recipe.source.fd, prepared.area, recipe.source.path
            )
            return await unlock(prepared, functools.partial(self._serve, prepared))

    async def unlock_with_secret(self, prepared: Prepared, key: KeyInput, serve: Serve) -> Volume:
        """One try with the passphrase or key file that a descriptor yields.

        Raises:
            UnlockError: it is not the right one, or did not come.
        """
        derive = functools.partial(self._open, prepared, is_key_file=key.keyfile)
        return await self.use_secret(key, derive, serve)

    async def unlock_with_volume_key(
        self, prepared: Prepared, key: VolumeKeyInput, serve: Serve
    ) -> Volume:
        """The volume with its key itself, from a file; compared with the header's digest.

        Raises:
            UnlockError: it is not the key of this volume.
        """
        header = prepared.header
        if header is None:
            raise ConfigError("a volume without a header has no volume key beside its key file")
        size = get_key_size(header)
        if key.size not in (0, size):
            raise UnlockError(f"volume key of {key.size} bytes, this volume has one of {size}")
        file = KeyInput(key.fd, "all", keyfile=True, size=size)
        derive = functools.partial(self._open_with_key, prepared, header, size)
        return await self.use_secret(file, derive, serve)

    async def use_secret(
        self,
        key: KeyInput,
        derive: Callable[[Secret], Derived],
        use: Callable[[Derived], Awaitable[Used]],
    ) -> Used:
        """What ``use`` makes of what ``derive``, in a thread, makes of a passphrase or key file.

        Keys are void in another session of the engine. If one has begun before they are in use,
        both are done again, with the same secret.

        Raises:
            UnlockError: no passphrase or key file came.
            MapperError: as ``derive`` and ``use``.
        """
        with await self._load_secret(key) as secret:
            sessions = 0
            while True:
                sessions += 1
                public_key = self.engine.hello.public_key
                try:
                    return await use(await self._run_kdf(derive, secret))
                except (ProtectedKeyExpiredError, EngineError):
                    # EngineError: the key went from the device before that could go on with it.
                    if sessions == _SESSIONS_MAX or not await self._has_other_session(public_key):
                        raise
                log.info("another session of the engine has begun: the key is derived again")

    async def _run_kdf(self, derive: Callable[[Secret], Derived], secret: Secret) -> Derived:
        return await trio.to_thread.run_sync(
            derive, secret, limiter=self._kdf_memory, abandon_on_cancel=True
        )

    async def _has_other_session(self, public_key: bytes) -> bool:
        """Whether the engine has another public key now, as each session has its own."""
        self.engine.hello = await trio.to_thread.run_sync(
            self.engine.status, abandon_on_cancel=True
        )
        return self.engine.hello.public_key != public_key

    async def _serve(self, prepared: Prepared, opened: OpenedVolume) -> Volume:
        recipe = prepared.recipe
        assert opened.table.size == prepared.area.end - prepared.area.start
        key = make_live_key(
            opened.effective,
            lease=recipe.lease,
            idle=recipe.idle,
            default=self._default_lease,
            now=trio.current_time(),
        )
        volume = await self._registry.add(
            recipe.name,
            dataclasses.replace(opened.table, discards=_allows_discards(prepared)),
            [recipe.source.fd],
            prepared.area,
            _describe(recipe, opened),
            prepared.header,
            key,
        )
        for note in opened.notes:
            log.warning("%s: %s", recipe.name, note)
        return volume

    async def _load_secret(self, key: KeyInput) -> Secret:
        mode = SecretMode.LINE if key.mode == "line" else SecretMode.ALL
        # A thread that reads from a silent pipe could not be stopped: wait for the first byte here.
        if stat.S_ISFIFO(os.fstat(key.fd).st_mode):
            with trio.move_on_after(_SECRET_TIMEOUT) as patience:
                await trio.lowlevel.wait_readable(key.fd)
            if patience.cancelled_caught:
                raise UnlockError(f"no passphrase came in {_SECRET_TIMEOUT:.0f} seconds")
        load = functools.partial(
            self.engine.load_secret, key.fd, mode, offset=key.offset, size=key.size
        )
        return await trio.to_thread.run_sync(load, limiter=self._files, abandon_on_cancel=True)

    def _open(self, prepared: Prepared, secret: Secret, *, is_key_file: bool) -> OpenedVolume:
        recipe = prepared.recipe
        if isinstance(recipe.plain, LoopaesParams):
            return open_loopaes(
                self.engine,
                recipe.plain,
                secret,
                data_size=prepared.source_size,
                read_only=recipe.is_read_only,
            )
        if recipe.plain is not None:
            return open_plain(
                self.engine,
                recipe.plain,
                secret,
                keyfile=is_key_file,
                data_size=prepared.source_size,
                read_only=recipe.is_read_only,
                key_service=self.key_service,
            )
        assert prepared.header is not None
        return open_luks(
            self.engine,
            prepared.header,
            (recipe.header or recipe.source).fd,
            secret,
            key_slot=recipe.key_slot,
            data_size=prepared.source_size,
            read_only=recipe.is_read_only,
            key_service=self.key_service,
        )

    def _open_with_key(
        self, prepared: Prepared, header: LuksHeader, size: int, secret: Secret
    ) -> OpenedVolume:
        key = self.engine.plain_key(secret, key_size=size, hash_name="", xts=is_xts(header))
        return open_luks_with_key(
            self.engine,
            header,
            key,
            data_size=prepared.source_size,
            read_only=prepared.recipe.is_read_only,
            key_service=self.key_service,
        )


def _prepare(recipe: Recipe) -> Prepared:
    """Look at source and header; refuse what no key could open. Blocks."""
    source = recipe.source
    is_read_only = recipe.is_read_only
    size = check_descriptor(source.fd, source.path, is_read_only=is_read_only)
    if recipe.plain is not None:
        start = recipe.plain.offset * SECTOR_SIZE
        length = get_data_length(recipe.plain, size, source.path)
        area = get_data_area(source.fd, start, length, is_read_only=is_read_only)
        return Prepared(recipe, size, area, None)
    header = _read_header(recipe, size)
    check_luks(header, size, read_only=is_read_only)
    start = header.get_segment(read_only=is_read_only).offset
    length = (size - start) // SECTOR_SIZE * SECTOR_SIZE
    area = get_data_area(source.fd, start, length, is_read_only=is_read_only)
    return Prepared(recipe, size, area, header)


def _read_header(recipe: Recipe, size: int) -> LuksHeader:
    file = recipe.source
    if recipe.header is not None:
        file = recipe.header
        size = check_descriptor(file.fd, file.path, is_read_only=True)
    pread = pread_from(file.fd)
    # cryptsetup's own lock, for as long as the header is read.
    with locked(file.fd, exclusive=False, lock_fd=file.lock_fd):
        return read_luks_header(pread, size, recipe.luks)


def keeps_discards(header: LuksHeader | None) -> bool:
    """Whether a flag in the header allows discards."""
    return isinstance(header, Luks2Header) and allows_discards(header.metadata.config)


def _allows_discards(prepared: Prepared) -> bool:
    """As cryptsetup: the opener or a flag in the header allows them; read-only there are none."""
    recipe = prepared.recipe
    return (recipe.allow_discards or keeps_discards(prepared.header)) and not recipe.is_read_only


def _describe(recipe: Recipe, opened: OpenedVolume) -> Description:
    return Description(
        type=opened.type.upper(),
        cipher=opened.cipher,
        key_bits=opened.key_bits,
        offset=opened.offset // SECTOR_SIZE,
        iv_offset=opened.iv_offset,
        source=recipe.source.path,
        uuid=opened.uuid or None,
        label=opened.label or None,
        header=recipe.header.path if recipe.header else None,
        keyslot=opened.keyslot,
    )


def _count_kdfs() -> int:
    """How many key derivations may run at once: a quarter of the memory, and no more than CPUs."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, memory // 4 // _KDF_MEMORY))
