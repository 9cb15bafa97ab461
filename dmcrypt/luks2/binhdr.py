"""LUKS2 binary header: bytes to a value and back. No I/O.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 2.1 and figure 2.
Integers are big-endian; sizes and offsets are in bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final, Self

from ...keystore.errors import ConfigError, FormatError, UnsupportedError
from ..text_field import pack_text, parse_text

BINHDR_SIZE: Final = 4096
MAGIC_PRIMARY: Final = b"LUKS\xba\xbe"
MAGIC_SECONDARY: Final = b"SKUL\xba\xbe"
VERSION: Final = 2
LABEL_SIZE: Final = 48
UUID_SIZE: Final = 40
SALT_SIZE: Final = 64
# Sec. 2.1, table 1. Also where to look for the second copy when the first is torn.
SECONDARY_OFFSETS: Final = tuple(0x4000 << i for i in range(9))
#: A copy's size, JSON area included, is one of these (the secondary follows the primary directly).
HDR_SIZES: Final = SECONDARY_OFFSETS

_LAYOUT: Final = struct.Struct(">6sHQQ48s32s64s40s48sQ184x64s3584x")
assert _LAYOUT.size == BINHDR_SIZE
_CHECKSUM_AT: Final = 448
_CHECKSUM_SIZE: Final = 64
_VERSION: Final = struct.Struct(">6sH")


@dataclass(frozen=True, slots=True)
class BinaryHeader:
    """One of the two copies of the fixed header that precedes the JSON area."""

    is_secondary: bool
    hdr_size: int  # bytes, JSON area included
    seqid: int  # the copy with the higher value wins (sec. 2.1)
    label: str
    checksum_alg: str
    salt: bytes  # makes the two copies' checksums differ
    uuid: str
    subsystem: str
    hdr_offset: int  # where this copy says it lies
    checksum: bytes = b""

    @classmethod
    def parse(cls, buf: bytes) -> Self:
        """Decode ``BINHDR_SIZE`` bytes. Does not verify the checksum: see `verify`.

        Raises:
            FormatError: too short, bad magic, size, place, or text.
            UnsupportedError: another version of LUKS.
        """
        if len(buf) < BINHDR_SIZE:
            raise FormatError(f"binary header: {len(buf)} bytes, wanted {BINHDR_SIZE}")
        (
            magic,
            version,
            hdr_size,
            seqid,
            label,
            checksum_alg,
            salt,
            uuid,
            subsystem,
            hdr_offset,
            checksum,
        ) = _LAYOUT.unpack_from(buf)
        if magic not in (MAGIC_PRIMARY, MAGIC_SECONDARY):
            raise FormatError("magic at byte 0: no LUKS magic")
        if version != VERSION:
            raise UnsupportedError(f"LUKS version {version}: not supported, wanted {VERSION}")
        if hdr_size not in HDR_SIZES:
            raise FormatError(
                f"hdr_size at byte 8: {hdr_size}, wanted a power of two from {HDR_SIZES[0]} "
                f"to {HDR_SIZES[-1]}"
            )
        return cls(
            is_secondary=magic == MAGIC_SECONDARY,
            hdr_size=hdr_size,
            seqid=seqid,
            label=parse_text(label),
            checksum_alg=parse_text(checksum_alg),
            salt=salt,
            uuid=parse_text(uuid),
            subsystem=parse_text(subsystem),
            hdr_offset=hdr_offset,
            checksum=checksum,
        )

    @classmethod
    def make_first(
        cls, hdr_size: int, uuid: str, *, label: str = "", subsystem: str = ""
    ) -> BinaryHeader:
        """Of a new volume; salts and checksums are made when it is written (update.py)."""
        return cls(
            is_secondary=False,
            hdr_size=hdr_size,
            seqid=1,
            label=label,
            checksum_alg="sha256",
            salt=bytes(SALT_SIZE),
            uuid=uuid,
            subsystem=subsystem,
            hdr_offset=0,
        )

    @property
    def json_size(self) -> int:
        """Bytes of the JSON area behind the binary header."""
        return self.hdr_size - BINHDR_SIZE

    def pack(self) -> bytes:
        """The header's bytes, with ``checksum`` as it stands."""
        return _LAYOUT.pack(
            MAGIC_SECONDARY if self.is_secondary else MAGIC_PRIMARY,
            VERSION,
            self.hdr_size,
            self.seqid,
            pack_text("label", self.label, LABEL_SIZE),
            pack_text("checksum algorithm", self.checksum_alg, 32),
            self.salt,
            pack_text("UUID", self.uuid, UUID_SIZE),
            pack_text("subsystem", self.subsystem, LABEL_SIZE),
            self.hdr_offset,
            self.checksum,
        )

    def pack_signed(self, json_area: bytes) -> bytes:
        """The header's bytes with the checksum over them and the whole JSON area."""
        assert len(json_area) == self.json_size
        plain = _without_checksum(self.pack())
        digest = _hash(self.checksum_alg, plain, json_area)
        return plain[:_CHECKSUM_AT] + digest.ljust(_CHECKSUM_SIZE, b"\0") + plain[512:]


def check_label(what: str, text: str) -> None:
    """Refuse a label or subsystem that does not fit its field; the real tool cuts it.

    Raises:
        ConfigError: it does not; ``what`` it is stands in the message.
    """
    if len(text.encode("utf-8", "surrogateescape")) >= LABEL_SIZE or "\0" in text:
        raise ConfigError(f"{what}: wanted at most {LABEL_SIZE - 1} bytes, without NUL")


def verify(buf: bytes, json_area: bytes) -> None:
    """Check a copy as it was read, byte for byte, against its checksum.

    Raises:
        FormatError: it does not match, or its algorithm is not known.
    """
    header = BinaryHeader.parse(buf)
    digest = _hash(header.checksum_alg, _without_checksum(buf[:BINHDR_SIZE]), json_area)
    if not hmac.compare_digest(digest, header.checksum[: len(digest)]):
        raise FormatError(f"{header.checksum_alg} checksum at byte {_CHECKSUM_AT}: does not match")


def parse_version(buf: bytes, magic: bytes) -> int | None:
    """The version behind ``magic``; None without it, and for 0, which is no version but damage."""
    if len(buf) < _VERSION.size:
        return None
    found, version = _VERSION.unpack_from(buf)
    return int(version) or None if found == magic else None


def _without_checksum(buf: bytes) -> bytes:
    return buf[:_CHECKSUM_AT] + bytes(_CHECKSUM_SIZE) + buf[_CHECKSUM_AT + _CHECKSUM_SIZE :]


def _hash(name: str, *pieces: bytes) -> bytes:
    try:
        hasher = hashlib.new(name, usedforsecurity=False)
        for piece in pieces:
            hasher.update(piece)
        digest = hasher.digest()
    except (ValueError, TypeError) as error:  # unknown, or of no fixed digest size
        raise FormatError(f"checksum algorithm {name!r}: not known") from error
    if len(digest) > _CHECKSUM_SIZE:
        raise FormatError(
            f"checksum algorithm {name!r}: its digest does not fit {_CHECKSUM_SIZE} bytes"
        )
    return digest
