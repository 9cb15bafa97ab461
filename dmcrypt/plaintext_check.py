"""What is to be said about a volume once it can be read: does its sector size suit what it holds?

Source: the superblocks of ext4 (fs/ext4/ext4.h, s_log_block_size), XFS (xfs_format.h, sb_blocksize
and sb_sectsize) and Btrfs (btrfs_tree.h, sectorsize).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .backing import Pread
from .finding import Finding, Severity

_EXT_AT: Final = 1024
_EXT_MAGIC: Final = b"\x53\xef"
_EXT_MAGIC_AT: Final = 56
_EXT_BLOCK_AT: Final = 24
_EXT_LARGEST: Final = 6  # 64 KiB
_XFS_BLOCK_AT: Final = 4
_XFS_SECTOR_AT: Final = 102
_BTRFS_AT: Final = 65536
_BTRFS_MAGIC_AT: Final = 64
_BTRFS_SECTOR_AT: Final = 144
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What a volume holds; ``unit`` is the least that it writes, in bytes."""

    name: str
    unit: int
    where: str


def find_file_system(pread: Pread) -> FileSystem | None:
    """The file system in a plaintext, if it is one whose units we know."""
    ext = pread(_EXT_AT, 1024)
    if ext[_EXT_MAGIC_AT : _EXT_MAGIC_AT + 2] == _EXT_MAGIC:
        exponent = int.from_bytes(ext[_EXT_BLOCK_AT : _EXT_BLOCK_AT + 4], "little")
        if exponent <= _EXT_LARGEST:
            return FileSystem("ext4", 1024 << exponent, f"byte {_EXT_AT + _EXT_BLOCK_AT}")
    xfs = pread(0, 512)
    if xfs[:4] == b"XFSB":
        sector = int.from_bytes(xfs[_XFS_SECTOR_AT : _XFS_SECTOR_AT + 2], "big")
        return FileSystem("XFS", sector, f"byte {_XFS_SECTOR_AT}")
    btrfs = pread(_BTRFS_AT, 512)
    if btrfs[_BTRFS_MAGIC_AT : _BTRFS_MAGIC_AT + 8] == b"_BHRfS_M":
        sector = int.from_bytes(btrfs[_BTRFS_SECTOR_AT : _BTRFS_SECTOR_AT + 4], "little")
        return FileSystem("Btrfs", sector, f"byte {_BTRFS_AT + _BTRFS_SECTOR_AT}")
    return None


def check_plaintext(pread: Pread, sector_size: int) -> list[Finding]:
    """Findings about the sector size of a volume that is read with ``pread``."""
    found = find_file_system(pread)
    if found is None:
        return []
    if found.unit < sector_size:
        return [
            Finding(
                Severity.WARNING,
                "sector-size",
                f"{found.name} writes {found.unit} bytes at a time, sectors have {sector_size}: "
                "each such write reads a sector first, and a power cut may lose its neighbours",
                f"{found.where} of the plaintext",
                f"cryptsetup reencrypt --sector-size {found.unit} FILE",
            )
        ]
    if sector_size < _PAGE <= found.unit:
        return [
            Finding(
                Severity.NOTE,
                "sector-size",
                f"{found.name} writes {found.unit} bytes at a time: sectors of {_PAGE} instead of "
                f"{sector_size} are faster",
                f"{found.where} of the plaintext",
            )
        ]
    return []
