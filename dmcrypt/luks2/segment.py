"""The segment of a LUKS2 volume that is opened, and what of a header forbids it.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3.3.
"""

from __future__ import annotations

from ...keystore.errors import UnsupportedError
from ..segment import DataSegment
from ..units import ENCRYPTION_SECTOR_SIZES, Sector
from .model import Metadata
from .requirement import check_requirements


def get_data_segment(metadata: Metadata, *, read_only: bool) -> DataSegment:
    """The one crypt segment.

    Its end does not matter: as cryptsetup (LUKS2_activate), all that the device has is mapped, also
    where the segment's size is fixed.

    Raises:
        UnsupportedError: names what of the header is not supported.
    """
    check_requirements(metadata.config, read_only=read_only)
    regular = metadata.regular_segments
    if len(regular) != len(metadata.segments):
        raise UnsupportedError("segments: backup segments of a reencryption are not supported")
    segment = regular[0]
    for each in regular:
        if each.type != "crypt":
            raise UnsupportedError(
                f"segments.{each.id}.type: {each.type} is not supported, wanted crypt"
            )
        if each.integrity is not None:
            raise UnsupportedError(
                f"segments.{each.id}.integrity: {each.integrity} is not supported"
            )
    if len(regular) > 1:
        raise UnsupportedError(f"segments: {len(regular)} of them are not supported, wanted one")
    if segment.sector_size not in ENCRYPTION_SECTOR_SIZES:
        raise UnsupportedError(
            f"segments.{segment.id}.sector_size: {segment.sector_size} is not supported, "
            "wanted 512 to 4096"
        )
    return DataSegment(
        offset=segment.offset,
        cipher=segment.encryption or "",
        cipher_field=f"segments.{segment.id}.encryption",
        iv_offset=Sector(segment.iv_tweak),
        sector_size=segment.sector_size,
    )
