"""Reading a LUKS2 header: both copies, and which of them counts. Never writes.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 2.4; lib/luks2/luks2_disk_metadata.c
(LUKS2_disk_hdr_read), which also writes what it recovered: here that is update.repair_header's, on
request.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from ...keystore.errors import ConfigError, FormatError, UnsupportedError
from ..backing import Pread
from ..engine.messages import DigestSpec, KeyslotSpec
from ..segment import DataSegment
from ..superblock import find_superblock
from ..text_field import show_text
from . import digest, keyslot
from .binhdr import (
    BINHDR_SIZE,
    MAGIC_PRIMARY,
    MAGIC_SECONDARY,
    SECONDARY_OFFSETS,
    BinaryHeader,
    parse_version,
    verify,
)
from .json_area import JsonObject, find_duplicates, parse_json_area
from .metadata import parse_metadata
from .model import Metadata
from .requirement import find_unknown_flags
from .segment import get_data_segment
from .token import find_verification_pattern
from .validate import get_keyslots_end, validate

PRIMARY: Final = "primary"
SECONDARY: Final = "secondary"


class NotLuksError(ConfigError, FormatError):
    """No LUKS header at all, rather than a damaged one."""


# Nothing is repaired when opening; the real tool does it on its own, at each open.
_REMEDY: Final = "fusecrypt repair mends it"
_USES_OTHER: Final = f"using the secondary; {_REMEDY}"


@dataclass(frozen=True, slots=True)
class Luks2Header:
    """A LUKS2 header as read: the copy that counts, and what is wrong with the other."""

    binary: BinaryHeader
    metadata: Metadata
    root: JsonObject = field(repr=False)  # the whole JSON object, what we do not know included
    used: str  # PRIMARY or SECONDARY
    notes: tuple[str, ...] = ()  # one per damaged or outdated copy
    duplicates: tuple[str, ...] = ()  # paths of keys that the JSON object has more than once

    @property
    def uuid(self) -> str:
        """The UUID as it is shown, maybe empty."""
        return show_text(self.binary.uuid)

    @property
    def label(self) -> str:
        """The label as it is shown, maybe empty."""
        return show_text(self.binary.label)

    @property
    def subsystem(self) -> str:
        """The subsystem as it is shown, maybe empty."""
        return show_text(self.binary.subsystem)

    @property
    def is_damaged(self) -> bool:
        """Whether one of the two copies needs repair."""
        return bool(self.notes)

    @property
    def area_size(self) -> int:
        """Bytes of both copies and the keyslots area: what a header file must have."""
        return get_keyslots_end(self.metadata.config)

    # What LuksHeader asks of every version.

    @property
    def type(self) -> Literal["luks2"]:
        """The version."""
        return "luks2"

    def get_segment(self, *, read_only: bool) -> DataSegment:
        """As `get_data_segment`."""
        return get_data_segment(self.metadata, read_only=read_only)

    def list_notes(self) -> tuple[str, ...]:
        """Of damaged copies, flags that nobody told us of, and keys that stand there twice."""
        flags = find_unknown_flags(self.metadata.config)
        return (
            *self.notes,
            *(f"config.flags: {flag} is not known, ignored" for flag in flags),
            *(f"{path}: stands there more than once, the last counts" for path in self.duplicates),
        )

    def list_keyslots(self) -> tuple[int, ...]:
        """All, of whatever type."""
        return tuple(slot.id for slot in self.metadata.keyslots)

    def list_candidates(self, number: int | None = None) -> tuple[int, ...]:
        """As `keyslot.list_candidates`, for the segment that is opened."""
        slots = keyslot.list_candidates(self.metadata, self._segment_id, number)
        return tuple(slot.id for slot in slots)

    def make_keyslot_spec(self, number: int) -> KeyslotSpec:
        """As `keyslot.make_spec`."""
        slot = self.metadata.find_keyslot(number)
        assert slot is not None
        return keyslot.make_spec(slot)

    def make_digest_spec(self) -> DigestSpec:
        """As `digest.make_spec`, of the segment that is opened."""
        return digest.make_spec(digest.get_digest(self.metadata, self._segment_id))

    def find_key_size(self) -> int | None:
        """Bytes, as the first bound keyslot says."""
        bound = keyslot.find_bound(self.metadata, self._segment_id)
        return next((s.key_size for s in self.metadata.keyslots if s.id in bound), None)

    def find_verification_pattern(self) -> str | None:
        """As `token.find_verification_pattern`."""
        return find_verification_pattern(self.metadata)

    @property
    def _segment_id(self) -> int:
        return self.metadata.regular_segments[0].id


@dataclass(frozen=True, slots=True)
class _Copy:
    """One copy: readable with metadata that is valid, or neither; ``problem`` says why not."""

    binary: BinaryHeader | None = None
    metadata: Metadata | None = None
    root: JsonObject | None = None
    problem: str = ""
    duplicates: tuple[str, ...] = ()


def read_header(pread: Pread, size: int) -> Luks2Header:
    """The header of a LUKS2 volume, or of a detached header file, of ``size`` bytes.

    Raises:
        NotLuksError: there is no LUKS header.
        UnsupportedError: LUKS of another version.
        FormatError: both copies are damaged, or the file ends before its header does.
    """
    _check_version(pread, size)
    primary = _read_copy(pread, 0, is_secondary=False)
    if primary.binary is not None:
        secondary = _read_copy(pread, primary.binary.hdr_size, is_secondary=True)
    else:
        secondary = _find_secondary(pread)
    header = _choose(primary, secondary)
    if size < header.area_size:
        raise FormatError(
            f"header: the file is too small, {size} bytes, need at least {header.area_size}"
        )
    return header


def _check_version(pread: Pread, size: int) -> None:
    """Refuse other versions by name, going by the first copy that has a magic."""
    version = parse_version(pread(0, BINHDR_SIZE), MAGIC_PRIMARY)
    for offset in SECONDARY_OFFSETS:
        if version is not None:
            break
        version = parse_version(pread(offset, BINHDR_SIZE), MAGIC_SECONDARY)
    if version is None:
        found = find_superblock(pread, size)
        raise NotLuksError(
            "not a valid LUKS device: no LUKS magic at byte 0, nor at a place of the "
            f"secondary header{f'; there is {found}' if found else ''}"
        )
    if version != 2:
        raise UnsupportedError(f"LUKS version {version}: not supported, wanted 2")


def _read_copy(pread: Pread, offset: int, *, is_secondary: bool) -> _Copy:
    buf = pread(offset, BINHDR_SIZE)
    try:
        binary = BinaryHeader.parse(buf)
        if binary.is_secondary != is_secondary:
            return _Copy(problem="magic of the other copy")
        if binary.hdr_offset != offset:
            return _Copy(problem=f"hdr_offset at byte 256: {binary.hdr_offset}, wanted {offset}")
        if is_secondary and binary.hdr_size != offset:
            return _Copy(problem=f"hdr_size at byte 8: {binary.hdr_size}, wanted {offset}")
        area = pread(offset + BINHDR_SIZE, binary.json_size)
        if len(area) != binary.json_size:
            return _Copy(
                problem=f"JSON area: {len(area)} bytes to the end, wanted {binary.json_size}"
            )
        verify(buf, area)
    except (FormatError, UnsupportedError) as error:
        return _Copy(problem=str(error))
    try:
        root = parse_json_area(area)
        metadata = parse_metadata(root)
        validate(metadata, binary.json_size)
    except FormatError as error:
        return _Copy(binary=binary, problem=str(error))
    return _Copy(binary, metadata, root, duplicates=find_duplicates(area))


def _find_secondary(pread: Pread) -> _Copy:
    """The first intact secondary copy at one of its possible places."""
    found = _Copy(problem="no magic at any place of a secondary header")
    for offset in SECONDARY_OFFSETS:
        copy = _read_copy(pread, offset, is_secondary=True)
        if copy.binary is not None:
            return copy
        if parse_version(pread(offset, BINHDR_SIZE), MAGIC_SECONDARY) is not None:
            found = copy
    return found


def _choose(primary: _Copy, secondary: _Copy) -> Luks2Header:
    one, other = _to_header(primary, PRIMARY), _to_header(secondary, SECONDARY)
    if one is None and other is None:
        if primary.problem == secondary.problem:
            raise FormatError(f"both headers are damaged: {primary.problem}")
        raise FormatError(
            f"both headers are damaged: primary: {primary.problem}; secondary: {secondary.problem}"
        )
    if one is None:
        assert other is not None
        return _with_note(other, f"primary header is damaged ({primary.problem}), {_USES_OTHER}")
    if other is None:
        return _with_note(one, f"secondary header is damaged ({secondary.problem}); {_REMEDY}")
    if one.binary.seqid > other.binary.seqid:
        return _with_note(one, f"secondary header is outdated ({_order(other, one)}); {_REMEDY}")
    if one.binary.seqid < other.binary.seqid:
        note = f"primary header is outdated ({_order(one, other)}), {_USES_OTHER}"
        return _with_note(other, note)
    return one


def _to_header(copy: _Copy, name: str) -> Luks2Header | None:
    if copy.binary is None or copy.metadata is None or copy.root is None:
        return None
    return Luks2Header(copy.binary, copy.metadata, copy.root, name, duplicates=copy.duplicates)


def _with_note(header: Luks2Header, note: str) -> Luks2Header:
    return replace(header, notes=(note,))


def _order(older: Luks2Header, newer: Luks2Header) -> str:
    return f"sequence id {older.binary.seqid}, the other has {newer.binary.seqid}"
