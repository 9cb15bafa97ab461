"""The secure key of an EP11 coprocessor: bytes to a value and back. No I/O, no cryptography.

Source: linux/drivers/s390/crypto/zcrypt_ep11misc.h (struct ep11keyblob, struct ep11kblob_header)
and zkey/pkey.h of s390-tools; the attributes are bits of XCP_BLOB_*. Integers are big-endian. A
blob of 256 bytes is followed by zeros up to 320; an XTS key is two of what is in a file:

======  ====  ==================================================================================
offset  size  field of the blob
======  ====  ==================================================================================
0       32    session that it is bound to, zeros: none; in version 3 the header lies over it
32      16    first half of the verification pattern of the wrapping key (WKVP)
48      8     attributes
56      8     mode
64      2     version of the blob, 0x1234
66      14    IV
80      144   encrypted key data
224     32    MAC
======  ====  ==================================================================================

The header: type 0, 0, length (2 bytes) with what is before the blob, version 3 or 6, 0, bits of the
clear key (2 bytes; 0: unknown). Of version 6 it has eight zeros more and stands before the blob.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, NoReturn, Self

from .errors import FormatError
from .key_type import KEY_BITS, KeyType

TYPE: Final = 0x00
VERSION_OVERLAID: Final = 3
VERSION_WITH_HEADER: Final = 6
WKVP_SIZE: Final = 16
IV_SIZE: Final = 14
ENCRYPTED_SIZE: Final = 144
MAC_SIZE: Final = 32
SESSION_SIZE: Final = 32

_HEAD: Final = struct.Struct(">BBHBBH")
_HEADER_SIZE: Final = 16
_BLOB: Final = struct.Struct(">32s16sQQH14s144s32s")
_BLOB_MAX: Final = 320
_MAGIC: Final = 0x1234
assert _BLOB.size == 256
#: Bytes of one token in a file, by version.
SIZES: Final = {VERSION_OVERLAID: _BLOB_MAX, VERSION_WITH_HEADER: _HEADER_SIZE + _BLOB_MAX}

EXTRACTABLE: Final = 0x1
DECRYPT: Final = 0x400
ENCRYPT: Final = 0x800
#: The key may become a protected key.
PROTKEY_EXTRACTABLE: Final = 0x200000
#: What a freshly made key has.
USUAL_ATTRIBUTES: Final = PROTKEY_EXTRACTABLE | ENCRYPT | DECRYPT


@dataclass(frozen=True, slots=True)
class Ep11Token:
    """An EP11-AES token: an AES key with its attributes, under a wrapping key (WK)."""

    mkvp: bytes  # 16 bytes: the WKVP
    attributes: int
    iv: bytes
    encrypted: bytes = field(repr=False)
    mac: bytes
    clear_bits: int | None  # None: the token does not tell
    version: int = VERSION_WITH_HEADER
    session: bytes = bytes(SESSION_SIZE)
    mode: int = 0
    blob_size: int = _BLOB.size
    rest: bytes = bytes(_BLOB_MAX - _BLOB.size)  # zeros, as far as is known

    @property
    def key_type(self) -> KeyType:
        return KeyType.EP11_AES

    @property
    def is_session_bound(self) -> bool:
        """Only who has an association secret can use it."""
        return any(self.session)

    @classmethod
    def parse(cls, buf: bytes) -> Self:
        """Decode one token, of either version.

        Raises:
            FormatError: another length, or a field that such a token does not have.
        """
        version = buf[4] if len(buf) >= _HEAD.size else 0
        if SIZES.get(version) != len(buf):
            sizes = " or ".join(map(str, SIZES.values()))
            raise FormatError(f"EP11-AES token: {len(buf)} bytes, wanted {sizes}")
        kind, zero, length, _, zero2, bits = _HEAD.unpack_from(buf)
        start = _HEADER_SIZE if version == VERSION_WITH_HEADER else 0
        if kind != TYPE or zero or zero2:
            _refuse("type and reserved bytes", 0, f"{kind:02x}, {zero:02x}, {zero2:02x}", "zeros")
        if not start + _BLOB.size <= length <= len(buf):
            _refuse("length", 2, length, f"{start + _BLOB.size} to {len(buf)}")
        if bits not in (0, *KEY_BITS):
            _refuse("clear key bits", 6, bits, "0, 128, 192 or 256")
        session, wkvp, attributes, mode, magic, iv, encrypted, mac = _BLOB.unpack_from(buf, start)
        if any(buf[_HEAD.size : start or SESSION_SIZE]):
            _refuse("reserved bytes", _HEAD.size, "not zero", "zeros")
        if magic != _MAGIC:
            _refuse("version of the blob", start + 64, f"{magic:04x}", f"{_MAGIC:04x}")
        if any(buf[length:]):
            _refuse("padding", length, "not zero", "zeros")
        return cls(
            wkvp, attributes, iv, encrypted, mac, bits or None, version,
            session if start else bytes(SESSION_SIZE), mode, length - start,
            buf[start + _BLOB.size :],
        )  # fmt: skip

    def pack(self) -> bytes:
        """The token in its file's form."""
        start = _HEADER_SIZE if self.version == VERSION_WITH_HEADER else 0
        head = _HEAD.pack(TYPE, 0, start + self.blob_size, self.version, 0, self.clear_bits or 0)
        session = self.session if start else head + bytes(SESSION_SIZE - len(head))
        blob = _BLOB.pack(
            *(session, self.mkvp, self.attributes, self.mode, _MAGIC),
            *(self.iv, self.encrypted, self.mac),
        )
        return (head.ljust(start, b"\0") if start else b"") + blob + self.rest


def _refuse(field_name: str, offset: int, got: object, wanted: str) -> NoReturn:
    raise FormatError(f"EP11-AES token: {field_name} at byte {offset}: {got}, wanted {wanted}")
