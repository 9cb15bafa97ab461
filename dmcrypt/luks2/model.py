"""LUKS2 metadata as values: keyslots, tokens, segments, digests, config.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3. What cryptsetup looks at only when it
uses it (salts, digests, costs) is kept as it stands and checked there: see keyslot.py and
digest.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..extent import Extent


@dataclass(frozen=True, slots=True)
class Kdf:
    """How a passphrase becomes the key of a keyslot area (sec. 3.2.3).

    Costs are None where they are not of its type.
    """

    type: str
    salt: str  # base64
    hash: str | None = None
    iterations: int | None = None
    time: int | None = None
    memory: int | None = None  # KiB
    cpus: int | None = None


@dataclass(frozen=True, slots=True)
class AntiForensic:
    """The anti-forensic split (sec. 3.2.2)."""

    type: str
    stripes: int
    hash: str


@dataclass(frozen=True, slots=True)
class Area:
    """Where a keyslot's key material lies, and under which cipher (sec. 3.2.1)."""

    type: str
    extent: Extent
    encryption: str | None = None
    key_size: int | None = None  # bytes


@dataclass(frozen=True, slots=True)
class Keyslot:
    """One keyslot (sec. 3.2). ``kdf`` and ``af`` are None for types other than ``luks2``."""

    id: int
    type: str
    key_size: int  # bytes of the volume key
    area: Area
    priority: int = 1  # 0 ignore, 1 normal, 2 prefer
    kdf: Kdf | None = None
    af: AntiForensic | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """One token (sec. 3.6), opaque but for its type and keyslots."""

    id: int
    type: str
    keyslots: tuple[int, ...]
    text: str = field(repr=False)  # the whole token as JSON


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment (sec. 3.3); cipher fields are None for types other than ``crypt``."""

    id: int
    type: str
    offset: int  # bytes
    size: int | None  # bytes; None: to the end of the device
    flags: tuple[str, ...] = ()
    encryption: str | None = None
    iv_tweak: int = 0  # 512-byte sectors
    sector_size: int = 512
    integrity: str | None = None

    @property
    def is_backup(self) -> bool:
        """Whether reencryption put it aside; not part of the device."""
        return any(flag.startswith("backup-") for flag in self.flags)


@dataclass(frozen=True, slots=True)
class Digest:
    """What tells the right volume key (sec. 3.4). Fields of its type are None where missing."""

    id: int
    type: str
    keyslots: tuple[int, ...]
    segments: tuple[int, ...]
    hash: str | None = None
    iterations: int | None = None
    salt: str | None = None  # base64
    digest: str | None = None  # base64


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes, flags and requirements (sec. 3.5)."""

    json_size: int  # bytes of the JSON area of one copy
    keyslots_size: int  # bytes of the keyslots area
    flags: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """All of the JSON area."""

    keyslots: tuple[Keyslot, ...]  # by id, as are the others
    tokens: tuple[Token, ...]
    segments: tuple[Segment, ...]
    digests: tuple[Digest, ...]
    config: Config

    @property
    def regular_segments(self) -> tuple[Segment, ...]:
        """The segments that make up the device."""
        return tuple(segment for segment in self.segments if not segment.is_backup)

    def find_keyslot(self, number: int) -> Keyslot | None:
        """The keyslot of that id."""
        return next((slot for slot in self.keyslots if slot.id == number), None)

    def find_digest_of_segment(self, number: int) -> Digest | None:
        """The digest of a segment's key."""
        return next((digest for digest in self.digests if number in digest.segments), None)
