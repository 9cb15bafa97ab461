"""What an image begins with: LUKS of which version, or which other superblock.

Source: LUKS2 On-Disk Format Specification 1.1.4 sec. 2.1; the other magics from util-linux
libblkid/src/superblocks.
"""

from __future__ import annotations

from typing import Final, Literal

from .backing import Pread
from .luks2.binhdr import (
    BINHDR_SIZE,
    MAGIC_PRIMARY,
    MAGIC_SECONDARY,
    SECONDARY_OFFSETS,
    parse_version,
)

#: Name, byte offset, magic.
_SUPERBLOCKS: Final = (
    ("BitLocker", 3, b"-FVE-FS-"),
    ("NTFS", 3, b"NTFS    "),
    ("FAT", 54, b"FAT1"),
    ("FAT32", 82, b"FAT32   "),
    ("exFAT", 3, b"EXFAT   "),
    ("GPT partition table", 512, b"EFI PART"),
    ("LVM2 physical volume", 512, b"LABELONE"),
    ("MD RAID member", 4096, b"\xfc\x4e\x2b\xa9"),
    ("XFS", 0, b"XFSB"),
    ("squashfs", 0, b"hsqs"),
    ("ext2/ext3/ext4", 0x438, b"\x53\xef"),
    ("Btrfs", 0x10040, b"_BHRfS_M"),
    ("F2FS", 0x400, b"\x10\x20\xf5\xf2"),
    ("swap", 4086, b"SWAPSPACE2"),
    ("ISO 9660", 0x8001, b"CD001"),
    ("qcow2 image", 0, b"QFI\xfb"),
    ("partition table", 510, b"\x55\xaa"),
)


def probe(pread: Pread, size: int) -> Literal["luks1", "luks2"] | None:
    """The version of LUKS that an image's header claims; None when it claims none.

    A wiped primary header of LUKS2 is made up for by the secondary one. Nothing is verified.
    """
    version = parse_version(pread(0, min(size, BINHDR_SIZE)), MAGIC_PRIMARY)
    if version is not None:
        return {1: "luks1", 2: "luks2"}.get(version)  # type: ignore[return-value]
    for offset in SECONDARY_OFFSETS:
        if parse_version(pread(offset, BINHDR_SIZE), MAGIC_SECONDARY) == 2:
            return "luks2"
    return None


def find_superblock(pread: Pread, size: int) -> str | None:
    """The name of another known superblock or partition table at its place in the image."""
    for name, offset, magic in _SUPERBLOCKS:
        if offset + len(magic) <= size and pread(offset, len(magic)) == magic:
            return name
    return None
