"""What the control socket can be asked: the interface ``io.fusecrypt`` over the daemon's parts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import trio

from ...dmcrypt.backing import without_locks
from ...dmcrypt.engine.messages import ArenaKind
from ...dmcrypt.loopaes import LoopaesParams
from ...dmcrypt.plain import PlainParams
from ..activation import Activator, OpenFile, Prepared, Recipe, Serve
from ..entries import Entries, PassphraseRequiredError
from ..registry import Registry
from ..table_volumes import TableVolumes
from ..version import VERSION
from ..volume_changes import VolumeChanges
from .answers import Arena, Info, KeyStatus, Listing, SessionAnswer, Volume, VolumeStats
from .messages import OpenEntryRequest, OpenRequest
from .protocol import INTERFACE, PASSPHRASE_REQUIRED, Request
from .server import Method, RefusedError
from .table_requests import OpenTableRequest, ShowKeyRequest, pack_lines
from .volume_requests import (
    CloseRequest,
    RefreshRequest,
    ResizeRequest,
    ResumeRequest,
    StatusRequest,
    SuspendRequest,
)

if TYPE_CHECKING:
    from ...dmcrypt.engine.process import EngineProcess
    from ..config import Settings
    from ..key_renewal import KeyRenewal
    from ..registry import Volume as OpenVolume

# wire.h: the bits of wire_hello.sandbox.
_SANDBOX: Final = ("seccomp", "landlock", "not dumpable", "no capabilities")


class Methods:
    """Takes parameters apart, lets the parts work, puts the answer together."""

    def __init__(
        self,
        settings: Settings,
        process: EngineProcess,
        registry: Registry,
        activator: Activator,
        entries: Entries,
        renewal: KeyRenewal,
        *,
        read_ahead_kb: int,
    ) -> None:
        self._settings = settings
        self._process = process
        self._registry = registry
        self._activator = activator
        self._changes = VolumeChanges(process.engine, registry, activator, renewal)
        self._tables = TableVolumes(process.engine, registry, activator)
        self._entries = entries
        self._renewal = renewal
        self._read_ahead_kb = read_ahead_kb

    def get_table(self) -> dict[str, Method]:
        """Each method by its full name."""
        return {
            f"{INTERFACE}.GetInfo": self.get_info,
            f"{INTERFACE}.Open": self.open,
            f"{INTERFACE}.OpenEntry": self.open_entry,
            f"{INTERFACE}.Close": self.close,
            f"{INTERFACE}.CancelDeferredClose": self.cancel_deferred_close,
            f"{INTERFACE}.Suspend": self.suspend,
            f"{INTERFACE}.Resume": self.resume,
            f"{INTERFACE}.Resize": self.resize,
            f"{INTERFACE}.Refresh": self.refresh,
            f"{INTERFACE}.OpenTable": self.open_table,
            f"{INTERFACE}.Table": self.table,
            f"{INTERFACE}.ShowKey": self.show_key,
            f"{INTERFACE}.BumpSession": self.bump_session,
            f"{INTERFACE}.List": self.list,
            f"{INTERFACE}.Status": self.status,
        }

    async def check(self) -> None:
        """Come back if threads and engine answer.

        Raises:
            EngineError: the engine does not.
        """
        await trio.to_thread.run_sync(self._process.engine.status, abandon_on_cancel=True)

    async def get_info(self, _request: Request) -> Mapping[str, object]:
        hello = await trio.to_thread.run_sync(self._process.engine.status)
        kind = "memfd_secret" if hello.arena_kind is ArenaKind.MEMFD_SECRET else "mlock"
        sandbox = [name for bit, name in enumerate(_SANDBOX) if hello.sandbox & 1 << bit]
        return Info(
            version=VERSION,
            pid=os.getpid(),
            engine_pid=self._process.pid,
            runtime_dir=str(self._settings.runtime_dir),
            mount=str(self._settings.device_dir),
            arena=Arena(kind, hello.arena_size, hello.arena_used),
            sandbox=", ".join(sandbox) or "none",
            io_threads=hello.io_threads,
            cloned=hello.cloned,
            read_ahead_kb=self._read_ahead_kb,
            gcrypt=hello.gcrypt_version,
            volumes=len(self._registry),
        ).pack()

    async def open(self, call: Request) -> Mapping[str, object]:
        request = OpenRequest.parse(call.parameters, call.fds)
        recipe = Recipe(
            name=request.name,
            source=OpenFile(request.source.fd, request.source.path),
            header=OpenFile(request.header.fd, request.header.path) if request.header else None,
            is_read_only=request.read_only,
            key_slot=request.key_slot,
            plain=_make_params(request),
            luks=request.type,
            allow_discards=request.allow_discards,
            lease=request.lease,
            idle=request.idle,
        )

        async def unlock(prepared: Prepared, serve: Serve) -> OpenVolume:
            if request.key is not None:
                return await self._activator.unlock_with_secret(prepared, request.key, serve)
            assert request.volume_key is not None
            return await self._activator.unlock_with_volume_key(prepared, request.volume_key, serve)

        with without_locks(wanted=request.no_locks):
            volume = await self._activator.activate(recipe, unlock)
        return await self._describe_one(volume)

    async def open_entry(self, call: Request) -> Mapping[str, object]:
        request = OpenEntryRequest.parse(call.parameters, call.fds)
        try:
            volume = await self._entries.open_by_name(request.name, request.key)
        except PassphraseRequiredError as error:
            how = {"prompt": error.prompt, "tries": error.tries, "timeout": error.timeout}
            raise RefusedError(PASSPHRASE_REQUIRED, how) from None
        return await self._describe_one(volume)

    async def close(self, call: Request) -> Mapping[str, object]:
        request = CloseRequest.parse(call.parameters)
        await self._registry.close(request.name, is_deferred=request.deferred)
        return {}

    async def cancel_deferred_close(self, call: Request) -> Mapping[str, object]:
        self._registry.cancel_deferred(StatusRequest.parse(call.parameters).name)
        return {}

    async def suspend(self, call: Request) -> Mapping[str, object]:
        request = SuspendRequest.parse(call.parameters)
        return await self._describe_one(
            await self._changes.suspend(request.name, fail_io=request.fail_io)
        )

    async def resume(self, call: Request) -> Mapping[str, object]:
        request = ResumeRequest.parse(call.parameters, call.fds)
        header = OpenFile(request.header.fd, request.header.path)
        with without_locks(wanted=request.no_locks):
            volume = await self._changes.resume(request.name, header, request.key, request.key_slot)
        return await self._describe_one(volume)

    async def resize(self, call: Request) -> Mapping[str, object]:
        request = ResizeRequest.parse(call.parameters)
        return await self._describe_one(await self._changes.resize(request.name, request.size))

    async def refresh(self, call: Request) -> Mapping[str, object]:
        request = RefreshRequest.parse(call.parameters)
        return await self._describe_one(
            await self._changes.refresh(
                request.name,
                allow_discards=request.allow_discards,
                becomes_flag=request.becomes_flag,
            )
        )

    async def bump_session(self, _request: Request) -> Mapping[str, object]:
        bumped = await self._renewal.bump_session()
        return SessionAnswer(bumped.derived_again, bumped.lost).pack()

    async def list(self, _request: Request) -> Mapping[str, object]:
        volumes = await self._describe(self._registry.list_volumes())
        return Listing(volumes, self._entries.list_states()).pack()

    async def status(self, call: Request) -> Mapping[str, object]:
        request = StatusRequest.parse(call.parameters)
        return await self._describe_one(self._registry.get(request.name))

    async def open_table(self, call: Request) -> Mapping[str, object]:
        request = OpenTableRequest.parse(call.parameters, call.fds)
        volume = await self._tables.open(
            request.name,
            request.lines,
            [OpenFile(file.fd, file.path) for file in request.files],
            request.key,
            is_read_only=request.read_only,
        )
        return await self._describe_one(volume)

    async def table(self, call: Request) -> Mapping[str, object]:
        request = StatusRequest.parse(call.parameters)
        return pack_lines(self._tables.list_lines(request.name))

    async def show_key(self, call: Request) -> Mapping[str, object]:
        request = ShowKeyRequest.parse(call.parameters, call.fds)
        await self._tables.show_key(request.name, request.line, request.fd)
        return {}

    async def _describe_one(self, volume: OpenVolume) -> Mapping[str, object]:
        (described,) = await self._describe([volume])
        return described.pack()

    async def _describe(self, volumes: Sequence[OpenVolume]) -> tuple[Volume, ...]:
        # In a thread: a file may lie on a server that does not answer.
        deleted = await trio.to_thread.run_sync(
            lambda: [volume.backing.is_deleted() for volume in volumes], abandon_on_cancel=True
        )
        return tuple(
            self._make_volume(volume, is_deleted=is_deleted)
            for volume, is_deleted in zip(volumes, deleted, strict=True)
        )

    def _make_volume(self, volume: OpenVolume, *, is_deleted: bool) -> Volume:
        stats = self._registry.read_stats(volume)
        description = volume.description
        device_dir = self._settings.device_dir
        return Volume(
            name=volume.name,
            state=_get_state(volume),
            path=str(device_dir / "mapper" / volume.name),
            dm_path=str(device_dir / f"dm-{volume.minor}"),
            type=description.type,
            cipher=description.cipher,
            key_bits=description.key_bits,
            key_location=volume.key.origin,
            source=description.source,
            sector_size=volume.device.sector_size,
            offset=description.offset,
            iv_offset=description.iv_offset,
            size=volume.device.size,
            read_only=volume.device.is_read_only,
            in_use=volume.device.opens,
            deleted=is_deleted,
            uuid=description.uuid,
            label=description.label,
            header=description.header,
            keyslot=description.keyslot,
            flags=("discards",) if volume.discards else (),
            stats=VolumeStats(
                stats.reads, stats.writes, stats.flushes, stats.read_bytes, stats.write_bytes,
                stats.partial, stats.zeroed_bytes, stats.errors, stats.last_error, stats.in_flight,
            ),
            key=_describe_key(volume),
        )  # fmt: skip


def _get_state(volume: OpenVolume) -> str:
    """What a volume is foremost: what is said of its key counts only for one that goes on."""
    if volume.is_deferred or volume.device.is_closing:
        return "closing"
    if volume.is_suspended:
        return "suspended"
    if volume.key.state in ("lost", "unavailable"):
        return volume.key.state
    return "active"


def _describe_key(volume: OpenVolume) -> KeyStatus:
    key = volume.key
    derivation = key.derivation
    return KeyStatus(
        kind=key.kind,
        state="suspended" if volume.is_suspended else key.state,
        reason=key.reason or None,
        type=None if derivation is None else str(derivation.secure.key_type),
        mkvp=None if derivation is None else derivation.secure.mkvp.hex(),
        adapter=None if derivation is None else str(derivation.apqn),
        age=int(trio.current_time() - key.derived_at),
        derivations=key.derivations,
        lease=key.lease.lifetime,
        idle=key.lease.idle,
    )


def _make_params(request: OpenRequest) -> PlainParams | LoopaesParams | None:
    options = request.plain
    if options is None:
        return None
    if request.type == "loopaes":
        return LoopaesParams(
            options.cipher, options.key_bits, options.hash or "", options.offset, options.skip
        )
    return PlainParams(
        cipher=options.cipher,
        key_bits=options.key_bits,
        hash_name=options.hash,
        hash_length=options.hash_length,
        offset=options.offset,
        skip=options.skip,
        size=options.size,
        sector_size=options.sector_size,
        iv_large_sectors=options.iv_large_sectors,
    )
