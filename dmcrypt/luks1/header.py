"""The LUKS1 header: bytes to a value and back, and what the value says about opening. No I/O.

Source: LUKS1 On-Disk Format Specification 1.2.3, section 3, figures 1 and 2; what is refused
follows lib/luks1/keymanage.c (_check_and_convert_hdr, LUKS_check_keyslots, LUKS_check_device_size).
Integers are big-endian; places are in sectors of 512 bytes on disk, in bytes here.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from ...keystore.errors import (
    FormatError,
    NotFoundError,
    UnsupportedError,
)
from ..backing import Pread
from ..engine.messages import DigestSpec, Kdf, KdfType, KeyslotSpec
from ..extent import Extent
from ..kdf_policy import check_pbkdf2
from ..pbkdf import HASH_SIZES
from ..segment import DataSegment
from ..text_field import pack_text, parse_text
from ..units import SECTOR_SIZE, UINT32_MAX, round_up
from ..unlock import NoKeyslotError

MAGIC: Final = b"LUKS\xba\xbe"
VERSION: Final = 1
HEADER_SIZE: Final = 592
KEYSLOTS: Final = 8
DIGEST_SIZE: Final = 20
SALT_SIZE: Final = 32
#: cryptsetup makes no other split, and takes no header that has another.
STRIPES: Final = 4000
#: Fig. 2: what ``active`` of a keyslot may be.
DISABLED: Final = 0x0000DEAD
ENABLED: Final = 0x00AC71F3
#: The hashes that have enough bytes for the digest.
HASHES: Final = tuple(name for name, size in HASH_SIZES.items() if size >= DIGEST_SIZE)
#: Those that no header of ours names, but others' may: cryptsetup leaves them to its library.
_OLD_HASHES: Final = ("sha512-224", "sha512-256", "rmd160", "tiger", "stribog256", "stribog512")

_LAYOUT: Final = struct.Struct(f">6sH32s32s32sII{DIGEST_SIZE}s{SALT_SIZE}sI40s")
_KEYSLOT: Final = struct.Struct(f">II{SALT_SIZE}sII")
assert _LAYOUT.size + KEYSLOTS * _KEYSLOT.size == HEADER_SIZE
_NAME_SIZE: Final = 32
_UUID_SIZE: Final = 40
_CIPHER_AT: Final = 8
_HASH_AT: Final = 72
_PAYLOAD_AT: Final = 104
_KEY_BYTES_AT: Final = 108
_DIGEST_ITERATIONS_AT: Final = 164


@dataclass(frozen=True, slots=True)
class Keyslot:
    """One of the eight keyslots (fig. 2), in use or not."""

    state: int  # ENABLED, DISABLED, or what a damaged header says
    iterations: int
    salt: bytes
    area_offset: int  # bytes
    stripes: int

    @property
    def is_enabled(self) -> bool:
        """Whether it holds the volume key."""
        return self.state == ENABLED

    def disabled(self) -> Keyslot:
        """The keyslot with nothing in it."""
        return replace(self, state=DISABLED, iterations=0, salt=bytes(SALT_SIZE))


@dataclass(frozen=True, slots=True)
class Luks1Header:
    """The header (fig. 1): one cipher, one hash, eight keyslots for one volume key."""

    cipher_name: str
    cipher_mode: str
    hash_name: str  # of PBKDF2, the AF split and the digest
    payload_offset: int  # bytes before the data; 0: on another device
    key_size: int  # bytes
    digest: bytes
    digest_salt: bytes
    digest_iterations: int
    uuid: str
    keyslots: tuple[Keyslot, ...]

    @classmethod
    def parse(cls, buf: bytes) -> Self:
        """Decode and check ``HEADER_SIZE`` bytes.

        Raises:
            FormatError: too short, no magic, sizes that cannot be, areas that overlap.
            UnsupportedError: another version of LUKS, or a hash that we do not have.
        """
        header = cls.decode(buf)
        _check(header)
        return header

    @classmethod
    def decode(cls, buf: bytes) -> Self:
        """What stands in ``HEADER_SIZE`` bytes, to be looked at: nothing is checked.

        Raises:
            FormatError: too short, or no magic.
            UnsupportedError: another version of LUKS.
        """
        if len(buf) < HEADER_SIZE:
            raise FormatError(f"LUKS1 header: {len(buf)} bytes, wanted {HEADER_SIZE}")
        magic, version, name, mode, hash_name, payload, key_size, *rest = _LAYOUT.unpack_from(buf)
        if magic != MAGIC:
            raise FormatError("magic at byte 0: no LUKS magic")
        if version != VERSION:
            raise UnsupportedError(f"LUKS version {version}: not supported, wanted {VERSION}")
        digest, digest_salt, digest_iterations, uuid = rest
        slots = _KEYSLOT.iter_unpack(buf[_LAYOUT.size : HEADER_SIZE])
        return cls(
            cipher_name=parse_text(name),
            cipher_mode=parse_text(mode),
            hash_name=parse_text(hash_name),
            payload_offset=payload * SECTOR_SIZE,
            key_size=key_size,
            digest=digest,
            digest_salt=digest_salt,
            digest_iterations=digest_iterations,
            uuid=parse_text(uuid),
            keyslots=tuple(
                Keyslot(state, iterations, salt, sector * SECTOR_SIZE, stripes)
                for state, iterations, salt, sector, stripes in slots
            ),
        )

    def pack(self) -> bytes:
        """The header's bytes.

        Raises:
            FormatError: a name that does not fit its field.
        """
        head = _LAYOUT.pack(
            MAGIC,
            VERSION,
            pack_text("cipher name", self.cipher_name, _NAME_SIZE),
            pack_text("cipher mode", self.cipher_mode, _NAME_SIZE),
            pack_text("hash", self.hash_name, _NAME_SIZE),
            self.payload_offset // SECTOR_SIZE,
            self.key_size,
            self.digest,
            self.digest_salt,
            self.digest_iterations,
            pack_text("UUID", self.uuid, _UUID_SIZE),
        )
        return head + b"".join(
            _KEYSLOT.pack(
                slot.state,
                slot.iterations,
                slot.salt,
                slot.area_offset // SECTOR_SIZE,
                slot.stripes,
            )
            for slot in self.keyslots
        )

    def with_keyslot(self, number: int, slot: Keyslot) -> Luks1Header:
        """The header with another keyslot ``number``."""
        slots = (*self.keyslots[:number], slot, *self.keyslots[number + 1 :])
        return replace(self, keyslots=slots)

    def get_area(self, number: int) -> Extent:
        """Where the key material of a keyslot lies, or will."""
        slot = self.keyslots[number]
        return Extent(slot.area_offset, get_area_size(self.key_size, slot.stripes))

    @property
    def area_size(self) -> int:
        """Bytes of header and key material: what a header file must have."""
        last = max(slot.area_offset for slot in self.keyslots)
        return last + get_area_size(self.key_size)

    @property
    def cipher(self) -> str:
        """Of data and key material, as dm-crypt spells it."""
        return f"{self.cipher_name}-{self.cipher_mode}"

    # What LuksHeader asks of every version.

    @property
    def type(self) -> Literal["luks1"]:
        """The version."""
        return "luks1"

    @property
    def label(self) -> str:
        """LUKS1 has none."""
        return ""

    @property
    def subsystem(self) -> str:
        """LUKS1 has none."""
        return ""

    @property
    def notes(self) -> tuple[str, ...]:
        """One for each keyslot that is neither enabled nor disabled."""
        return tuple(
            f"keyslot {number}: active at byte {_LAYOUT.size + number * _KEYSLOT.size}: "
            f"{slot.state:#010x}, wanted {ENABLED:#010x} or {DISABLED:#010x}; it is not used"
            for number, slot in enumerate(self.keyslots)
            if slot.state not in (ENABLED, DISABLED)
        )

    def get_segment(self, *, read_only: bool) -> DataSegment:  # noqa: ARG002 (nothing forbids to write)
        """All behind the payload offset, counted from there."""
        return DataSegment(self.payload_offset, self.cipher, f"cipher at byte {_CIPHER_AT}")

    def list_notes(self) -> tuple[str, ...]:
        """As `notes`."""
        return self.notes

    def list_keyslots(self) -> tuple[int, ...]:
        """The enabled ones."""
        return tuple(number for number, slot in enumerate(self.keyslots) if slot.is_enabled)

    def list_candidates(self, number: int | None = None) -> tuple[int, ...]:
        """The enabled ones by number; all of them hold the one volume key.

        Raises:
            NotFoundError: keyslot ``number`` is not enabled.
            NoKeyslotError: no keyslot is.
        """
        enabled = self.list_keyslots()
        if number is not None:
            if number not in enabled:
                raise NotFoundError(f"keyslot {number}: does not exist")
            return (number,)
        if not enabled:
            raise NoKeyslotError(f"no usable keyslot: none of the {KEYSLOTS} is enabled")
        return enabled

    def make_keyslot_spec(self, number: int) -> KeyslotSpec:
        """An enabled keyslot: its area has the data's cipher, IVs counted from the area's begin.

        Raises:
            FormatError: no iterations.
            PolicyError: too many.
        """
        slot = self.keyslots[number]
        if slot.iterations == 0:
            raise FormatError(f"iterations: got 0, wanted 1 to {UINT32_MAX}")
        check_pbkdf2(f"keyslot {number}", slot.iterations)
        area = self.get_area(number)
        return KeyslotSpec(
            key_size=self.key_size,
            stripes=slot.stripes,
            af_hash=self.hash_name,
            area_offset=area.offset,
            area_length=area.length,
            area_cipher=self.cipher,
            area_key_size=self.key_size,
            kdf=Kdf(KdfType.PBKDF2, slot.salt, slot.iterations, hash_name=self.hash_name),
        )

    def make_digest_spec(self) -> DigestSpec:
        """The digest of the volume key.

        Raises:
            FormatError: no iterations.
            PolicyError: too many.
        """
        if self.digest_iterations == 0:
            raise FormatError(
                f"digest iterations at byte {_DIGEST_ITERATIONS_AT}: got 0, wanted 1 to "
                f"{UINT32_MAX}"
            )
        check_pbkdf2("digest", self.digest_iterations)
        return DigestSpec(
            self.hash_name, self.digest_iterations, self.digest_salt, self.digest, DIGEST_SIZE
        )

    def find_key_size(self) -> int:
        """Bytes of the volume key."""
        return self.key_size

    def find_verification_pattern(self) -> None:
        """LUKS1 has no tokens, so no secure keys."""


def read_header(pread: Pread, size: int) -> Luks1Header:
    """The header of a LUKS1 volume, or of a detached header file, of ``size`` bytes.

    Raises:
        FormatError, UnsupportedError: as `Luks1Header.parse`, or the file ends before the key
            material does.
    """
    header = Luks1Header.parse(pread(0, HEADER_SIZE))
    if size < header.area_size:
        raise FormatError(
            f"header: the file is too small, {size} bytes, need at least {header.area_size}"
        )
    return header


def get_area_size(key_size: int, stripes: int = STRIPES) -> int:
    """Bytes of the key material of one keyslot: whole sectors."""
    return round_up(key_size * stripes, SECTOR_SIZE)


def _check(header: Luks1Header) -> None:
    if header.hash_name.lower() not in (*HASHES, *_OLD_HASHES):
        raise UnsupportedError(
            f"hash at byte {_HASH_AT}: {header.hash_name!r} is not supported, wanted one of "
            f"{', '.join(HASHES)}"
        )
    if header.key_size == 0:
        raise FormatError(f"key size at byte {_KEY_BYTES_AT}: got 0, wanted 1 or more")
    for number in range(KEYSLOTS):
        _check_area(header, number)
    _check_overlaps(header)


def _check_area(header: Luks1Header, number: int) -> None:
    """An area lies behind the header and before the data, whether its keyslot is in use or not."""
    area = header.get_area(number)
    stripes = header.keyslots[number].stripes
    if stripes != STRIPES:
        raise FormatError(f"keyslot {number}: stripes: got {stripes}, wanted {STRIPES}")
    where = f"keyslot {number}: key material offset"
    if area.offset < HEADER_SIZE:
        raise FormatError(
            f"{where}: byte {area.offset} lies in the header, wanted {HEADER_SIZE} or more"
        )
    if header.payload_offset and not area.offset < area.end <= header.payload_offset:
        raise FormatError(
            f"{where}: {area} for a key of {header.key_size} bytes, wanted before the data at byte "
            f"{header.payload_offset} (payload offset at byte {_PAYLOAD_AT})"
        )


def _check_overlaps(header: Luks1Header) -> None:
    places = sorted((slot.area_offset, number) for number, slot in enumerate(header.keyslots))
    for (offset, number), (following, other) in itertools.pairwise(places):
        end = offset + get_area_size(header.key_size)
        if following < end:
            raise FormatError(
                f"keyslot {other}: key material offset: byte {following} lies in the area of "
                f"keyslot {number}, which ends at byte {end}"
            )
