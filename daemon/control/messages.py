"""What the methods of ``io.fusecrypt`` take and return, as values.

Each ``parse`` checks everything and raises `ParameterError`; each ``pack`` makes what it reads. The
interface, method by method, is described in docs/manual/fusecryptd.8.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

from ..volume_name import check_volume_name
from .fields import Fields, ParameterError, PassedFds, pack_value

__all__ = [
    "CloseRequest",
    "EntryState",
    "Info",
    "KeyInput",
    "Listing",
    "OpenEntryRequest",
    "OpenRequest",
    "ParameterError",
    "PassedFds",
    "PassedFile",
    "PlainOptions",
    "StatusRequest",
    "Volume",
    "VolumeKeyInput",
    "VolumeStats",
]

VolumeType = Literal["luks", "luks1", "luks2", "plain"]
SecretInput = Literal["line", "all"]


@dataclass(frozen=True, slots=True)
class PassedFile:
    """A file that the caller opened with its own rights."""

    fd: int
    path: str  # as the user named it, made absolute; for messages and `status` only

    def pack(self, fds: PassedFds) -> dict[str, object]:
        return {"fd": fds.add(self.fd), "path": self.path}


@dataclass(frozen=True, slots=True)
class KeyInput:
    """Where a passphrase or key file is read from."""

    fd: int
    mode: SecretInput  # "line": up to the first newline; "all": to the end
    keyfile: bool  # plain mode: the bytes are the key itself, not a passphrase to be hashed
    offset: int = 0  # bytes to skip
    size: int = 0  # bytes to take at most; 0: all

    def pack(self, fds: PassedFds) -> dict[str, object]:
        return {
            "fd": fds.add(self.fd),
            "mode": self.mode,
            "keyfile": self.keyfile,
            "offset": self.offset,
            "size": self.size,
        }

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(
            fields.fd("fd"),
            "line" if fields.choice("mode", ("line", "all")) == "line" else "all",
            fields.flag("keyfile"),
            fields.integer("offset", default=0),
            fields.integer("size", default=0),
        )


@dataclass(frozen=True, slots=True)
class VolumeKeyInput:
    """A file with the volume key itself (``--volume-key-file``)."""

    fd: int
    size: int  # bytes; 0: what the header says

    def pack(self, fds: PassedFds) -> dict[str, object]:
        return {"fd": fds.add(self.fd), "size": self.size}


@dataclass(frozen=True, slots=True)
class PlainOptions:
    """The parameters of plain mode; all of ``offset``, ``skip``, ``size`` in 512-byte sectors."""

    cipher: str
    key_bits: int
    hash: str | None  # None: key file; "plain": no hash
    offset: int = 0
    skip: int = 0
    size: int | None = None
    sector_size: int = 512
    iv_large_sectors: bool = False
    hash_length: int = 0  # bytes of the digest to take (NAME:N); 0: all that the key needs

    @classmethod
    def parse(cls, fields: Fields) -> Self:
        return cls(
            cipher=fields.text("cipher"),
            key_bits=fields.integer("key_bits"),
            hash=fields.optional_text("hash"),
            offset=fields.integer("offset", default=0),
            skip=fields.integer("skip", default=0),
            size=fields.optional_integer("size"),
            sector_size=fields.integer("sector_size", default=512),
            iv_large_sectors=fields.flag("iv_large_sectors"),
            hash_length=fields.integer("hash_length", default=0),
        )


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """``Open``: a volume from descriptors."""

    name: str
    type: VolumeType
    source: PassedFile
    header: PassedFile | None = None
    key: KeyInput | None = None
    volume_key: VolumeKeyInput | None = None
    key_slot: int | None = None
    read_only: bool = False
    plain: PlainOptions | None = None

    def pack(self, fds: PassedFds) -> dict[str, object]:
        """The parameters; the descriptors are added to ``fds``."""
        content: dict[str, object] = {
            "name": self.name,
            "type": self.type,
            "source": self.source.pack(fds),
            "read_only": self.read_only,
        }
        if self.header is not None:
            content["header"] = self.header.pack(fds)
        if self.key is not None:
            content["key"] = self.key.pack(fds)
        if self.volume_key is not None:
            content["volume_key"] = self.volume_key.pack(fds)
        if self.key_slot is not None:
            content["key_slot"] = self.key_slot
        if self.plain is not None:
            content["plain"] = pack_value(self.plain)
        return content

    @classmethod
    def parse(cls, parameters: Mapping[str, object], fds: Sequence[int]) -> Self:
        fields = Fields("parameters", parameters, fds)
        kind = cast("VolumeType", fields.choice("type", get_args(VolumeType)))
        plain = fields.optional_object("plain")
        key = fields.optional_object("key")
        request = cls(
            name=_parse_name(fields),
            type=kind,
            source=_parse_file(fields.object("source")),
            header=_parse_optional_file(fields, "header"),
            key=None if key is None else KeyInput.parse(key),
            volume_key=_parse_volume_key(fields),
            key_slot=fields.optional_integer("key_slot"),
            read_only=fields.flag("read_only"),
            plain=None if plain is None else PlainOptions.parse(plain),
        )
        if (request.type == "plain") != (request.plain is not None):
            raise ParameterError("plain", "given exactly when type is plain")
        if (request.key is None) == (request.volume_key is None):
            raise ParameterError("key", "either key or volume_key")
        return request


@dataclass(frozen=True, slots=True)
class OpenEntryRequest:
    """``OpenEntry``: a volume by its crypttab line."""

    name: str
    key: KeyInput | None = None

    def pack(self, fds: PassedFds) -> dict[str, object]:
        content: dict[str, object] = {"name": self.name}
        if self.key is not None:
            content["key"] = self.key.pack(fds)
        return content

    @classmethod
    def parse(cls, parameters: Mapping[str, object], fds: Sequence[int]) -> Self:
        fields = Fields("parameters", parameters, fds)
        key = fields.optional_object("key")
        return cls(_parse_name(fields), None if key is None else KeyInput.parse(key))


@dataclass(frozen=True, slots=True)
class CloseRequest:
    """``Close``: one volume."""

    name: str
    deferred: bool = False

    def pack(self) -> dict[str, object]:
        return {"name": self.name, "deferred": self.deferred}

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        fields = Fields("parameters", parameters)
        return cls(_parse_name(fields), fields.flag("deferred"))


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """``Status``: one volume."""

    name: str

    def pack(self) -> dict[str, object]:
        return {"name": self.name}

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        return cls(_parse_name(Fields("parameters", parameters)))


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
class Volume:
    """One opened volume."""

    name: str
    state: str  # "active"; "closing" after close --deferred
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
    stats: VolumeStats = VolumeStats()

    def pack(self) -> dict[str, object]:
        return pack_value(self)

    @classmethod
    def parse(cls, parameters: Mapping[str, object]) -> Self:
        return cls.parse_fields(Fields("parameters", parameters))

    @classmethod
    def parse_fields(cls, fields: Fields) -> Self:
        stats = fields.optional_object("stats")
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
            stats=VolumeStats() if stats is None else VolumeStats.parse(stats),
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


def _parse_name(fields: Fields) -> str:
    name = fields.text("name")
    check_volume_name(name)
    return name


def _parse_file(fields: Fields) -> PassedFile:
    return PassedFile(fields.fd("fd"), fields.text("path"))


def _parse_optional_file(fields: Fields, name: str) -> PassedFile | None:
    inner = fields.optional_object(name)
    return None if inner is None else _parse_file(inner)


def _parse_volume_key(fields: Fields) -> VolumeKeyInput | None:
    inner = fields.optional_object("volume_key")
    if inner is None:
        return None
    return VolumeKeyInput(inner.fd("fd"), inner.integer("size", default=0))
