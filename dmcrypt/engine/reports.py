"""What the engine tells of itself and its devices: bytes to values. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ...keystore.errors import EngineError
from . import messages
from .wire_enums import ArenaKind, EventKind


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the engine tells unasked."""

    kind: EventKind
    node: int = 0  # whose I/O waits for a key (KEY_WANTED)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """From the body of an EVENT message."""
        kind, node = messages.EVENT.unpack(body)
        return cls(EventKind(kind), node)


@dataclass(frozen=True, slots=True)
class Hello:
    """The engine's own account of itself."""

    protocol: int
    arena_kind: ArenaKind
    arena_size: int
    arena_used: int
    kdf_memory: int
    io_threads: int
    cloned: int  # descriptors of /dev/fuse beside the first; 0: the threads share one
    stats_slots: int
    sandbox: int  # bits: 0 seccomp, 1 landlock, 2 not dumpable, 3 no capabilities
    public_key: bytes  # X25519
    pattern: bytes
    gcrypt_version: str

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises EngineError: another protocol, or a body of another length."""
        if len(body) != messages.HELLO.size:
            raise EngineError(f"engine's greeting: {len(body)} bytes, wanted {messages.HELLO.size}")
        fields = messages.HELLO.unpack(body)
        if fields[0] != messages.PROTOCOL:
            raise EngineError(f"engine speaks protocol {fields[0]}, wanted {messages.PROTOCOL}")
        version = fields[-1].rstrip(b"\0").decode("ascii", "replace")
        return cls(*(fields[0], ArenaKind(fields[1]), *fields[2:-1], version))


@dataclass(frozen=True, slots=True)
class DeviceStats:
    """Counters of one device since it was added; sizes in bytes, requests otherwise."""

    node: int
    reads: int
    writes: int
    flushes: int
    read_bytes: int
    write_bytes: int
    partial: int  # requests that began or ended inside a sector
    zeroed_bytes: int
    errors: int
    last_error: int  # errno of the backing store
    in_flight: int

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """One ``wire_stats`` out of the shared memory."""
        return cls(*messages.STATS.unpack(body))
