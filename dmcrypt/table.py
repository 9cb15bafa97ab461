"""A mapped device's table: which bytes of it lie where, under which cipher and key."""

from __future__ import annotations

from dataclasses import dataclass

from ..keystore.errors import ConfigError
from ..keystore.keys import ProtectedKey
from .cipher_spec import CipherSpec
from .engine.messages import DeviceSpec, SegmentSpec, TargetKind
from .units import ENCRYPTION_SECTOR_SIZES, NO_SECTORS, SECTOR_SIZE, Sector


@dataclass(frozen=True, slots=True)
class Segment:
    """One run of a device's bytes, and where it lies in the backing store."""

    start: int
    length: int
    target: TargetKind
    backing_offset: int = 0
    cipher: CipherSpec | None = None
    iv_offset: Sector = NO_SECTORS
    iv_large_sectors: bool = False
    any_xts_key: bool = False  # of a raw table: one with equal halves is taken, as by the kernel
    key: ProtectedKey | None = None
    fd_index: int = 0

    def to_spec(self) -> SegmentSpec:
        """As the engine takes it."""
        return SegmentSpec(
            start=self.start,
            length=self.length,
            target=self.target,
            fd_index=self.fd_index,
            backing_offset=self.backing_offset,
            cipher=self.cipher.dm_name if self.cipher else "",
            iv_offset=self.iv_offset,
            iv_large_sectors=self.iv_large_sectors,
            any_xts_key=self.any_xts_key,
            key=self.key,
        )


@dataclass(frozen=True, slots=True)
class Table:
    """All of a device: segments without gaps, from byte 0 to ``size``."""

    segments: tuple[Segment, ...]
    sector_size: int
    size: int
    read_only: bool
    discards: bool = False  # hole punching reaches the backing store

    def __post_init__(self) -> None:
        """Raises ConfigError: what dm-crypt's constructor refuses."""
        if self.sector_size not in ENCRYPTION_SECTOR_SIZES:
            raise ConfigError(f"sector size {self.sector_size}: wanted 512, 1024, 2048 or 4096")
        at = 0
        for segment in self.segments:
            assert segment.start == at
            assert segment.length > 0
            at += segment.length
            if segment.target is TargetKind.CRYPT:
                _check_crypt(segment, self.sector_size)
        assert at == self.size

    def to_device(self, node: int) -> DeviceSpec:
        """As the engine takes it, to be served under FUSE node id ``node``."""
        segments = tuple(segment.to_spec() for segment in self.segments)
        return DeviceSpec(
            node, self.size, self.sector_size, self.read_only, segments, self.discards
        )


def _check_crypt(segment: Segment, sector_size: int) -> None:
    assert segment.cipher is not None
    if segment.length % sector_size:
        raise ConfigError(
            f"device size {segment.length}: not a multiple of the sector size {sector_size}"
        )
    # dm-crypt.c crypt_ctr: the IV offset counts 512-byte sectors, but must begin an encryption
    # sector.
    if segment.iv_offset * SECTOR_SIZE % sector_size:
        raise ConfigError(
            f"IV offset {segment.iv_offset} [512-byte sectors]: not a multiple of "
            f"{sector_size // SECTOR_SIZE}, as the sector size {sector_size} demands"
        )
