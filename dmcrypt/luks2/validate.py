"""What must hold between the parts of LUKS2 metadata.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3; the verdicts are those of cryptsetup's
lib/luks2/luks2_json_metadata.c (LUKS2_hdr_validate).
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Final

from ...keystore.errors import FormatError
from ..extent import Extent
from ..units import SECTOR_SIZE, UINT64_MAX
from .binhdr import BINHDR_SIZE, HDR_SIZES
from .model import Config, Metadata, Segment

KEYSLOTS_SIZE_MAX: Final = 128 * 1024 * 1024
AREA_ALIGNMENT: Final = 4096


def validate(metadata: Metadata, json_size: int) -> None:
    """Check metadata found in a JSON area of ``json_size`` bytes.

    Raises:
        FormatError: cryptsetup would refuse it, too.
    """
    config = metadata.config
    if config.json_size != json_size:
        raise FormatError(
            f"config.json_size: got {config.json_size}, the binary header says {json_size}"
        )
    _check_references(metadata)
    _check_segments(metadata)
    _check_config(config, metadata.segments)
    _check_areas(metadata)


def get_keyslots_end(config: Config) -> int:
    """The first byte behind both header copies and the keyslots area."""
    return 2 * (config.json_size + BINHDR_SIZE) + config.keyslots_size


def _check_references(metadata: Metadata) -> None:
    keyslots = {slot.id for slot in metadata.keyslots}
    segments = {segment.id for segment in metadata.segments}
    for token in metadata.tokens:
        _check_known(f"tokens.{token.id}.keyslots", token.keyslots, keyslots)
    digests = Counter(number for digest in metadata.digests for number in set(digest.keyslots))
    for slot in metadata.keyslots:
        if slot.type == "luks2" and digests[slot.id] != 1:
            raise FormatError(f"keyslots.{slot.id}: has {digests[slot.id]} digests, wanted one")
    for digest in metadata.digests:
        _check_known(f"digests.{digest.id}.keyslots", digest.keyslots, keyslots)
        _check_known(f"digests.{digest.id}.segments", digest.segments, segments)


def _check_known(path: str, references: tuple[int, ...], known: set[int]) -> None:
    for number in references:
        if number not in known:
            raise FormatError(f"{path}: {number} does not exist")


def _check_segments(metadata: Metadata) -> None:
    if not metadata.segments:
        raise FormatError("segments: empty, wanted at least one")
    with_digest = {number for digest in metadata.digests for number in digest.segments}
    for segment in metadata.segments:
        _check_segment(segment, has_digest=segment.id in with_digest)
    regular = metadata.regular_segments
    if not regular:
        raise FormatError("segments: only backups, wanted a regular one")
    for index, segment in enumerate(metadata.segments):
        if segment.id != index:
            raise FormatError(f"segments: number {index} is missing")
    if regular != metadata.segments[: len(regular)]:
        raise FormatError("segments: a backup precedes a regular one")
    extents: list[Extent] = []
    for segment in regular:
        if segment.size is None and segment is not regular[-1]:
            raise FormatError(f"segments.{segment.id}.size: dynamic, but it is not the last one")
        size = UINT64_MAX - segment.offset if segment.size is None else segment.size
        extents.append(Extent(segment.offset, size))
    _check_apart("segments", extents)


def _check_segment(segment: Segment, *, has_digest: bool) -> None:
    path = f"segments.{segment.id}"
    if segment.offset % SECTOR_SIZE:
        raise FormatError(f"{path}.offset: {segment.offset} is not a multiple of {SECTOR_SIZE}")
    if segment.size is not None and (segment.size == 0 or segment.size % SECTOR_SIZE):
        raise FormatError(
            f"{path}.size: {segment.size} is not a positive multiple of {SECTOR_SIZE}"
        )
    if segment.type != "crypt":
        return
    if segment.sector_size == 0 or segment.sector_size % SECTOR_SIZE:
        raise FormatError(
            f"{path}.sector_size: {segment.sector_size} is not a positive multiple of {SECTOR_SIZE}"
        )
    if segment.size is not None and segment.size % segment.sector_size:
        raise FormatError(
            f"{path}.size: {segment.size} is not a multiple of the sector size "
            f"{segment.sector_size}"
        )
    if not has_digest:
        raise FormatError(f"{path}: no digest refers to it")


def _check_config(config: Config, segments: tuple[Segment, ...]) -> None:
    hdr_size = config.json_size + BINHDR_SIZE
    if hdr_size not in HDR_SIZES:
        raise FormatError(
            f"config.json_size: {config.json_size} is not of a header size that exists"
        )
    if config.keyslots_size % AREA_ALIGNMENT or config.keyslots_size > KEYSLOTS_SIZE_MAX:
        raise FormatError(
            f"config.keyslots_size: got {config.keyslots_size}, wanted a multiple of "
            f"{AREA_ALIGNMENT} "
            f"up to {KEYSLOTS_SIZE_MAX}"
        )
    # A segment at byte 0 is that of a detached header.
    first = min((s.offset for s in segments if not s.is_backup), default=0)
    end = get_keyslots_end(config)
    if first and first < end:
        raise FormatError(
            f"config.keyslots_size: the keyslots area ends at {end}, behind the data at {first}"
        )


def _check_areas(metadata: Metadata) -> None:
    begin = 2 * (metadata.config.json_size + BINHDR_SIZE)
    end = get_keyslots_end(metadata.config)
    extents: list[Extent] = []
    for slot in metadata.keyslots:
        extent = slot.area.extent
        if extent.length == 0 or extent.offset < begin or extent.end > end:
            raise FormatError(
                f"keyslots.{slot.id}.area: {extent}, wanted within the keyslots area, {begin} "
                f"to {end}"
            )
        extents.append(extent)
    _check_apart("keyslots", extents)


def _check_apart(what: str, extents: list[Extent]) -> None:
    ordered = sorted(extents)
    for one, other in pairwise(ordered):
        if one.overlaps(other):
            raise FormatError(f"{what}: {one} and {other} overlap")
