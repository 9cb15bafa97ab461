"""What the methods of ``io.fusecrypt`` return, as values: ``pack`` makes what ``parse`` reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from .fields import Fields, pack_value


@dataclass(frozen=True, slots=True)
class VolumeStats:
    """What the engine counted since the volume was opened."""

    reads: int = 0
    writes: int = 0
    flushes: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    partial: int = 0  # requests that began or ended within a sector
    zeroed_bytes: int = 0
    errors: int = 0
    last_error: int = 0  # errno of the backing store; 0: none
    in_flight: int = 0

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(*(fields.integer(f.name, default=0) for f in dataclasses.fields(cls)))


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """The key of an opened volume."""

    kind: str = "clear"  # "secure"; "random": a protected key of one session
    state: str = "present"  # in the engine; else "forgotten", "unavailable", "lost", "suspended"
    reason: str | None = None  # why it is not there
    type: str | None = None  # of a secure key, as "CCA-AESDATA"
    mkvp: str | None = None  # of the master key that wraps it
    adapter: str | None = None  # who derived it last
    age: int = 0  # seconds since then, or since the volume was opened or resumed
    derivations: int = 1  # how often the engine got it
    lease: int = 0  # seconds; 0: none
    idle: int = 0  # likewise

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(
            kind=fields.choice("kind", ("secure", "random", "clear")),
            state=fields.text("state"),
            reason=fields.optional_text("reason"),
            type=fields.optional_text("type"),
            mkvp=fields.optional_text("mkvp"),
            adapter=fields.optional_text("adapter"),
            age=fields.integer("age"),
            derivations=fields.integer("derivations"),
            lease=fields.integer("lease"),
            idle=fields.integer("idle"),
        )


@dataclass(frozen=True, slots=True)
class SessionAnswer:
    """``BumpSession``: what became of the volumes, by name."""

    derived_again: tuple[str, ...]  # at their next I/O
    lost: tuple[str, ...]  # their keys were random ones of the session before

    def pack(self) -> dict[str, object]:
        return pack_value(self)

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        fields = Fields("parameters", parameters)
        return cls(tuple(fields.texts("derived_again")), tuple(fields.texts("lost")))


@dataclass(frozen=True, slots=True)
class Volume:
    """One opened volume."""

    name: str
    state: str  # "active"; "suspended" after luksSuspend; "lost", "unavailable": its key; "closing"
    path: str  # RUNTIME/dev/mapper/NAME
    dm_path: str  # RUNTIME/dev/dm-N
    type: str  # "LUKS2" or "PLAIN"
    cipher: str
    key_bits: int
    key_location: str
    source: str
    sector_size: int
    offset: int  # of the data, in 512-byte sectors
    iv_offset: int  # likewise
    size: int  # bytes
    read_only: bool
    in_use: int  # open file handles
    deleted: bool  # the backing file has no name any more
    uuid: str | None = None
    label: str | None = None
    header: str | None = None
    keyslot: int | None = None
    flags: tuple[str, ...] = ()  # "discards"
    stats: VolumeStats = VolumeStats()
    key: KeyStatus = KeyStatus()

    def pack(self) -> dict[str, object]:
        return pack_value(self)

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        return cls.parse_fields(Fields("parameters", parameters))

    @classmethod
    def parse_fields(cls, fields: Fields) -> Self:
        return cls(
            name=fields.text("name"),
            state=fields.text("state"),
            path=fields.text("path"),
            dm_path=fields.text("dm_path"),
            type=fields.text("type"),
            cipher=fields.text("cipher"),
            key_bits=fields.integer("key_bits"),
            key_location=fields.text("key_location"),
            source=fields.text("source"),
            sector_size=fields.integer("sector_size"),
            offset=fields.integer("offset"),
            iv_offset=fields.integer("iv_offset"),
            size=fields.integer("size"),
            read_only=fields.flag("read_only"),
            in_use=fields.integer("in_use"),
            deleted=fields.flag("deleted"),
            uuid=fields.optional_text("uuid"),
            label=fields.optional_text("label"),
            header=fields.optional_text("header"),
            keyslot=fields.optional_integer("keyslot"),
            flags=tuple(fields.texts("flags")),
            stats=fields.optional("stats", VolumeStats.parse) or VolumeStats(),
            key=fields.optional("key", KeyStatus.parse) or KeyStatus(),
        )


@dataclass(frozen=True, slots=True)
class EntryState:
    """One crypttab line of ours, and what became of it."""

    name: str
    state: str  # "open", "closed" or "failed"
    error: str | None = None

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        state = fields.choice("state", ("open", "closed", "failed"))
        return cls(fields.text("name"), state, fields.optional_text("error"))


@dataclass(frozen=True, slots=True)
class Listing:
    """``List``: all volumes and crypttab entries."""

    volumes: tuple[Volume, ...]
    entries: tuple[EntryState, ...]

    def pack(self) -> dict[str, object]:
        return pack_value(self)

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        fields = Fields("parameters", parameters)
        return cls(
            tuple(Volume.parse_fields(item) for item in fields.objects("volumes")),
            tuple(EntryState.parse(item) for item in fields.objects("entries")),
        )


@dataclass(frozen=True, slots=True)
class Arena:
    """The engine's key memory."""

    kind: str  # "memfd_secret" or "mlock"
    size: int  # bytes
    used: int  # bytes


@dataclass(frozen=True, slots=True)
class Info:
    """``GetInfo``: the daemon and its engine."""

    version: str
    pid: int
    engine_pid: int
    runtime_dir: str
    mount: str
    arena: Arena
    sandbox: str
    io_threads: int
    cloned: int  # FUSE descriptors, one a thread
    read_ahead_kb: int
    gcrypt: str
    volumes: int

    def pack(self) -> dict[str, object]:
        return pack_value(self)

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        fields = Fields("parameters", parameters)
        arena = fields.object("arena")
        return cls(
            version=fields.text("version"),
            pid=fields.integer("pid"),
            engine_pid=fields.integer("engine_pid"),
            runtime_dir=fields.text("runtime_dir"),
            mount=fields.text("mount"),
            arena=Arena(arena.text("kind"), arena.integer("size"), arena.integer("used")),
            sandbox=fields.text("sandbox"),
            io_threads=fields.integer("io_threads"),
            cloned=fields.integer("cloned"),
            read_ahead_kb=fields.integer("read_ahead_kb"),
            gcrypt=fields.text("gcrypt"),
            volumes=fields.integer("volumes"),
        )
