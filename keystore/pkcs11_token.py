"""The secure key of a PKCS#11 token: bytes to a value and back. No I/O, no cryptography.

The format is ours, 96 bytes, integers big-endian; an XTS key is two of them:

======  ====  ==================================================================================
offset  size  field
======  ====  ==================================================================================
0       1     type, 0x46: none of IBM Z's
1       3     zeros
4       1     version, 1
5       1     how the key is wrapped: 1 AES key wrap (RFC 3394), 2 AES key wrap with padding (RFC
              5649), 3 AES-CBC with padding (PKCS#7) and the IV below
6       2     bits of the clear key: 128, 192 or 256
8       8     MKVP: the first 8 bytes of AES-256(master key, 16 zero bytes); the first 3 of them
              are what PKCS#11 calls the check value of the master key
16      2     bytes of the wrapped key
18      6     zeros
24      16    IV; zeros if the key is wrapped in another way
40      48    wrapped key, then zeros
88      8     check value: the first 8 bytes of AES(key, 16 zero bytes)
======  ====  ==================================================================================
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Self

from .errors import FormatError
from .key_type import KEY_BITS, TOKEN_SIZES, KeyType

TYPE: Final = 0x46
VERSION: Final = 1
CHECK_SIZE: Final = 8
IV_SIZE: Final = 16
_LAYOUT: Final = struct.Struct(">B3sBBH8sH6s16s48s8s")
assert _LAYOUT.size == TOKEN_SIZES[KeyType.PKCS11_AES]


class Wrapping(IntEnum):
    """How a master key wraps a key."""

    KEY_WRAP = 1
    KEY_WRAP_PAD = 2
    CBC_PAD = 3

    def get_size(self, key_size: int) -> int:
        """Bytes of a wrapped key of so many bytes."""
        return key_size // 16 * 16 + 16 if self is Wrapping.CBC_PAD else key_size + 8


@dataclass(frozen=True, slots=True)
class Pkcs11Token:
    """A PKCS11-AES token: an AES key under a master key that never leaves its PKCS#11 token."""

    mkvp: bytes
    wrapping: Wrapping
    clear_bits: int
    wrapped: bytes = field(repr=False)
    check: bytes  # tells whether the unwrapped key is the one that was wrapped
    iv: bytes = bytes(IV_SIZE)

    @property
    def key_type(self) -> KeyType:
        return KeyType.PKCS11_AES

    @classmethod
    def parse(cls, buf: bytes) -> Self:
        """Decode the 96 bytes of one token.

        Raises:
            FormatError: another length, or a field that such a token does not have.
        """
        if len(buf) != _LAYOUT.size:
            raise FormatError(f"PKCS11-AES token: {len(buf)} bytes, wanted {_LAYOUT.size}")
        kind, zeros, version, way, bits, mkvp, size, zeros2, iv, wrapped, check = _LAYOUT.unpack(
            buf
        )
        for name, offset, got, wanted in (
            ("type", 0, kind, (TYPE,)),
            ("reserved bytes", 1, zeros, (bytes(3),)),
            ("version", 4, version, (VERSION,)),
            ("wrapping", 5, way, tuple(Wrapping)),
            ("clear key bits", 6, bits, KEY_BITS),
            ("reserved bytes", 18, zeros2, (bytes(6),)),
        ):
            if got not in wanted:
                expected = " or ".join(str(int(w)) for w in wanted if isinstance(w, int)) or "zeros"
                raise FormatError(f"key token: {name} at byte {offset}: {got!r}, wanted {expected}")
        wrapping = Wrapping(way)
        if size != wrapping.get_size(bits // 8):
            raise FormatError(
                f"key token: wrapped bytes at byte 16: {size}, "
                f"wanted {wrapping.get_size(bits // 8)} for a key of {bits} bits"
            )
        if wrapping is not Wrapping.CBC_PAD and any(iv):
            raise FormatError("key token: IV at byte 24: not zero, wanted zeros")
        if any(wrapped[size:]):
            raise FormatError(f"key token: padding at byte {40 + size}: not zero, wanted zeros")
        return cls(mkvp, wrapping, bits, wrapped[:size], check, iv)

    def pack(self) -> bytes:
        """The 96 bytes of the token."""
        return _LAYOUT.pack(
            TYPE, bytes(3), VERSION, self.wrapping, self.clear_bits, self.mkvp, len(self.wrapped),
            bytes(6), self.iv, self.wrapped, self.check,
        )  # fmt: skip
