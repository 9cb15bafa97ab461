"""Devices by raw tables, as dmsetup makes them; and the tables of all open volumes."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from ..dmcrypt.cipher_spec import CipherSpec
from ..dmcrypt.dm_table import TableLine, parse_table
from ..dmcrypt.engine.messages import FDS_MAX, TargetKind
from ..dmcrypt.table import Segment, Table
from ..dmcrypt.units import SECTOR_SIZE, Sector
from ..keystore.errors import AccessError, ConfigError, PolicyError, UnsupportedError
from .backing import DataArea, check_descriptor, get_data_area, lock_data_area
from .control.table_requests import ShownLine
from .registry import Description

if TYPE_CHECKING:
    from ..dmcrypt.engine.client import Engine, Secret
    from ..keystore.keys import ProtectedKey
    from .activation import Activator, OpenFile
    from .control.messages import KeyInput
    from .registry import Registry, Volume

log = logging.getLogger(__name__)

#: Where a key stands in a line that is taken apart for showing.
_MARK: Final = "\0"
_BACKED: Final = (TargetKind.CRYPT, TargetKind.LINEAR)

#: Has a table served with the keys of its lines; None: a line without one.
_Serve = Callable[[Sequence["ProtectedKey | None"]], Awaitable["Volume"]]


@dataclass(frozen=True, slots=True)
class _Plan:
    """A table whose files have been looked at: nothing but the keys is missing."""

    lines: tuple[TableLine, ...]
    areas: tuple[tuple[int, DataArea], ...]  # with the number of its file
    is_read_only: bool

    @property
    def area(self) -> DataArea:
        """All of them, in one."""
        _, first = self.areas[0]
        return dataclasses.replace(first, more=tuple(area for _, area in self.areas[1:]))


class TableVolumes:
    """Opens tables into one registry."""

    def __init__(self, engine: Engine, registry: Registry, activator: Activator) -> None:
        self._engine = engine
        self._registry = registry
        self._activator = activator

    async def open(
        self,
        name: str,
        texts: Sequence[str],
        files: Sequence[OpenFile],
        key: KeyInput | None,
        *,
        is_read_only: bool,
    ) -> Volume:
        """Open a table whose devices are the numbers of ``files``.

        Raises:
            ConfigError, UnsupportedError: as `parse_table`.
            AccessError: a file that is too small, or not open for writing.
            BusyError: the name is taken, or somebody else writes there.
            UnlockError: no key of this size.
        """
        lines = parse_table(texts)
        with self._registry.reserve(name):
            fds, paths = [file.fd for file in files], [file.path for file in files]
            plan = await trio.to_thread.run_sync(
                functools.partial(_make_plan, lines, fds, paths, is_read_only=is_read_only)
            )
            self._registry.claim(name, plan.area, paths[0])
            for number, area in plan.areas:
                await trio.to_thread.run_sync(lock_data_area, fds[number], area, paths[number])
            shown = tuple(_with_path(line, paths) for line in lines)

            async def serve(keys: Sequence[ProtectedKey | None]) -> Volume:
                table, description = _assemble(plan, keys), _describe(shown, paths)
                return await self._registry.add(name, table, fds, plan.area, description)

            volume = await self._with_keys(plan, key, serve)
        volume.lines = shown
        for line in lines:
            if line.cipher is not None and line.cipher.is_null:
                log.warning("%s: the data are not encrypted: %s", name, line.cipher.weakness)
        return volume

    def list_lines(self, name: str) -> list[ShownLine]:
        """The table of an open volume.

        Raises:
            NotFoundError: no such volume.
        """
        volume = self._registry.get(name)
        lines = volume.lines or (_line_of(volume),)
        shown: list[ShownLine] = []
        for line in lines:
            head, _, tail = line.format(_MARK if line.key_size else "-").partition(_MARK)
            shown.append(ShownLine(head, line.key_size, tail))
        return shown

    async def show_key(self, name: str, number: int, fd: int) -> None:
        """Have the engine write the clear key of a line, as hexadecimal text.

        Raises:
            NotFoundError: no such volume.
            ConfigError: no such line, or one without a key.
            PolicyError: the key is a secure key's.
        """
        volume = self._registry.get(name)
        lines = volume.lines or (_line_of(volume),)
        if number >= len(lines) or lines[number].key_size == 0:
            raise ConfigError(f"{name}: line {number + 1} of its table has no key")
        cipher = lines[number].cipher
        if cipher is None or cipher.takes_secure_keys:
            raise PolicyError(f"{name}: the key of a paes volume is never shown in clear")
        log.warning("%s: its clear key was shown", name)
        show = functools.partial(self._engine.show_key, volume.device.number, number, fd)
        await trio.to_thread.run_sync(show, abandon_on_cancel=True)

    async def _with_keys(self, plan: _Plan, key: KeyInput | None, serve: _Serve) -> Volume:
        sizes = [line.key_size for line in plan.lines]
        if not any(sizes):
            return await serve([None] * len(sizes))
        if key is None:
            raise ConfigError("table: has keys, and none came with it")

        def load(secret: Secret) -> list[ProtectedKey | None]:
            keys: list[ProtectedKey | None] = []
            at = 0
            for size in sizes:
                keys.append(self._engine.table_key(secret, at, size) if size else None)
                at += 2 * size
            return keys

        return await self._activator.use_secret(key, load, serve)


def _make_plan(
    lines: Sequence[TableLine], fds: Sequence[int], paths: Sequence[str], *, is_read_only: bool
) -> _Plan:
    """Blocks."""
    if len(fds) > FDS_MAX:
        raise UnsupportedError(f"table: {len(fds)} devices; not supported, at most {FDS_MAX}")
    areas: list[tuple[int, DataArea]] = []
    for number, line in enumerate(lines, 1):
        if line.target not in _BACKED:
            continue
        which = _file_number(line, len(fds))
        fd, path = fds[which], paths[which]
        size = check_descriptor(fd, path, is_read_only=is_read_only)
        start, length = line.offset * SECTOR_SIZE, line.length * SECTOR_SIZE
        if start + length > size:
            raise AccessError(
                f"line {number}: {path} has {size // SECTOR_SIZE} sectors, "
                f"wanted {line.offset + line.length}"
            )
        area = get_data_area(fd, start, length, is_read_only=is_read_only)
        if any(other.conflicts(area) for _, other in areas):
            raise ConfigError(f"line {number}: overlaps what another line maps of {path}")
        areas.append((which, area))
    if not areas:
        raise UnsupportedError("table: maps no file at all, which is not supported")
    return _Plan(tuple(lines), tuple(areas), is_read_only)


def _file_number(line: TableLine, count: int) -> int:
    if not line.device.isdecimal() or int(line.device) >= count:
        raise ConfigError(f"device {line.device}: wanted the number of one of {count} files")
    return int(line.device)


def _assemble(plan: _Plan, keys: Sequence[ProtectedKey | None]) -> Table:
    crypt = [line for line in plan.lines if line.cipher is not None]
    segments = tuple(
        Segment(
            start=line.start * SECTOR_SIZE,
            length=line.length * SECTOR_SIZE,
            target=line.target,
            backing_offset=line.offset * SECTOR_SIZE,
            cipher=line.cipher,
            iv_offset=line.iv_offset,
            iv_large_sectors=line.iv_large_sectors,
            any_xts_key=True,
            key=key,
            fd_index=int(line.device) if line.device else 0,
        )
        for line, key in zip(plan.lines, keys, strict=True)
    )
    return Table(
        segments,
        crypt[0].sector_size if crypt else SECTOR_SIZE,
        sum(segment.length for segment in segments),
        plan.is_read_only,
        discards=bool(crypt) and all(line.allow_discards for line in crypt),
    )


def _with_path(line: TableLine, paths: Sequence[str]) -> TableLine:
    if not line.device:
        return line
    return dataclasses.replace(line, device=paths[int(line.device)])


def _describe(lines: Sequence[TableLine], paths: Sequence[str]) -> Description:
    first = next((line for line in lines if line.cipher is not None), lines[0])
    return Description(
        type="TABLE",
        cipher=first.cipher.dm_name if first.cipher else "none",
        key_bits=first.key_size * 8,
        offset=first.offset,
        iv_offset=first.iv_offset,
        source=", ".join(paths),
    )


def _line_of(volume: Volume) -> TableLine:
    """The one line of a volume that was opened by other means."""
    description = volume.description
    device = volume.device
    options = ["allow_discards"] if volume.discards else []
    if device.sector_size != SECTOR_SIZE:
        options.append(f"sector_size:{device.sector_size}")
    if volume.iv_large_sectors:
        options.append("iv_large_sectors")
    return TableLine(
        start=0,
        length=device.size // SECTOR_SIZE,
        target=TargetKind.CRYPT,
        device=description.source,
        offset=description.offset,
        cipher=CipherSpec.parse(description.cipher),
        key_size=description.key_bits // 8,
        iv_offset=Sector(description.iv_offset),
        sector_size=device.sector_size,
        options=tuple(options),
    )
