"""Superblocks and partition tables that are not LUKS, known by their magic.

Source: util-linux libblkid/src/superblocks and partitions.
"""

from __future__ import annotations

from typing import Final

from .backing import Pread

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


def find_superblock(pread: Pread, size: int) -> str | None:
    """The name of another known superblock or partition table at its place in the image."""
    for name, offset, magic in _SUPERBLOCKS:
        if offset + len(magic) <= size and pread(offset, len(magic)) == magic:
            return name
    return None
