"""Key tokens, those of CCA coprocessors and all of them: bytes to values and back.

No I/O, no cryptography.

Source: CCA Programmer's Guide, "AES internal fixed-length key token" (X'04'), "AES CIPHER
variable-length symmetric key token" (X'05') and "Token validation value"; zkey/pkey.h of
s390-tools for the forms in files. Integers are big-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, NoReturn, Self

from . import ep11_token, pkcs11_token
from .ep11_token import Ep11Token as Ep11Token
from .errors import FormatError
from .key_type import KEY_BITS as KEY_BITS
from .key_type import MKVP_SIZE as MKVP_SIZE
from .key_type import TOKEN_SIZES as TOKEN_SIZES
from .key_type import XTS_KEY_BITS as XTS_KEY_BITS
from .key_type import KeyType as KeyType
from .pkcs11_token import Pkcs11Token as Pkcs11Token

# Type byte, three reserved bytes, version byte: common to every token of this family.
_TYPE_CCA: Final = 0x01
_VERSION_AESDATA: Final = 0x04
_VERSION_AESCIPHER: Final = 0x05
#: What else stands in secure key files: named when it is refused.
_OTHER_KINDS: Final = {
    (0x00, 0x01): "a protected key",
    (0x00, 0x02): "a clear key",
    (0x00, 0x07): "EP11-ECC",
    (0x00, 0x09): "PVSECRET",
    (0x1F, 0x05): "a CCA PKA key",
}

# type, reserved, version, reserved, flags, LRC, MKVP, encrypted key, control vector, clear bits,
# encrypted bytes, TVV
_AESDATA: Final = struct.Struct(">B3sBBBB8s32s8sHHI")
assert _AESDATA.size == TOKEN_SIZES[KeyType.CCA_AESDATA]
_FLAG_ENCRYPTED: Final = 0x80  # with MKVP
_FLAG_CONTROL_VECTOR: Final = 0x40
_ENCRYPTED_SIZE: Final = 32

# type, reserved, total length, version, reserved | key material state, KVP type, MKVP, rest of KVP,
# wrapping method, hash, payload format version, reserved |
_CIPHER_HEAD: Final = struct.Struct(">BBHB3sBB8s8sBBBB")
# AD version, reserved, AD length, key label, extended AD and user AD lengths, reserved, payload
# bits, reserved, algorithm, key type, KUF count, KUF1, KUF2, KMF count, KMF1, KMF2, KMF3
_CIPHER_AD: Final = struct.Struct(">BBHBBBBHBBHBHHBHHH")
_AD_OFFSET: Final = 30
_PAYLOAD_OFFSET: Final = 56
assert _CIPHER_HEAD.size == _AD_OFFSET
assert _AD_OFFSET + _CIPHER_AD.size == _PAYLOAD_OFFSET
_STATE_WRAPPED_BY_MK: Final = 0x03
_KVP_AES_MK: Final = 0x01
_METHOD_AESKW: Final = 0x02
_HASH_SHA256: Final = 0x02
_ALGORITHM_AES: Final = 0x02
_KEY_TYPE_CIPHER: Final = 0x0001
#: Payload bits that are no key: 6 bytes ICV, 2 lengths, 4 options, 32 hash, 4 pad.
_PAYLOAD_OVERHEAD_BITS: Final = 384
_PAYLOAD_MAX_BITS: Final = 640

#: Key-usage field 1: the key may encipher, and decipher.
KUF1_ENCRYPT: Final = 0x8000
KUF1_DECRYPT: Final = 0x4000
#: Key-usage field 2: any mode of operation.
KUF2_ANY_MODE: Final = 0xFF00
#: Key-management field 1 (high byte: allowed exports, low byte: prohibited ones): may become a
#: protected key.
KMF1_EXPORT_CPACF: Final = 0x0800
#: What a freshly generated key has: no export but to CPACF.
KMF1_CPACF_ONLY: Final = 0x08C8
#: Every export is allowed (0x8000 SYM, UASY, AASY, RAW, CPACF), none prohibited.
KMF1_EXPORTABLE: Final = 0xF800
#: Key-management field 2: parts of the key are still missing.
KMF2_INCOMPLETE: Final = 0xC000
#: The key was once in a token that has no such fields.
KMF2_NO_ATTRIBUTES_BEFORE: Final = 0x0008
#: Key-management field 3, where the key came from: original and present method of creation.
KMF3_RANDOM: Final = 0x0202
KMF3_CLEAR_COMPONENTS: Final = 0x0404
KMF3_CONVERTED: Final = 0x0012  # of unknown origin, from a token without export control


def _refuse(field_name: str, offset: int, got: object, wanted: str) -> NoReturn:
    raise FormatError(f"key token: {field_name} at byte {offset}: {got}, wanted {wanted}")


def _check(field_name: str, offset: int, got: int | bytes, wanted: int | bytes) -> None:
    if got != wanted:
        _refuse(field_name, offset, _spell(got), _spell(wanted))


def _spell(value: int | bytes) -> str:
    return f"0x{value:02x}" if isinstance(value, int) else value.hex()


def make_tvv(words: bytes) -> int:
    """The token validation value: the sum of the big-endian 32-bit words, modulo 2^32."""
    total = sum(int.from_bytes(words[i : i + 4], "big") for i in range(0, len(words), 4))
    return total & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class AesDataToken:
    """A CCA-AESDATA token: an AES key of 128, 192 or 256 bits, AES-CBC under the master key."""

    mkvp: bytes
    lrc: int  # exclusive or of all bytes of the clear key
    clear_bits: int
    encrypted_key: bytes = field(repr=False)  # 32 bytes
    has_control_vector: bool = True  # it is all zeros either way

    @property
    def key_type(self) -> KeyType:
        return KeyType.CCA_AESDATA

    @classmethod
    def parse(cls, buf: bytes) -> Self:
        """Decode the 64 bytes of one token, its TVV checked.

        Raises:
            FormatError: another length, or a field that a wrapped AES key does not have.
        """
        if len(buf) != _AESDATA.size:
            raise FormatError(f"CCA-AESDATA token: {len(buf)} bytes, wanted {_AESDATA.size}")
        (
            kind, reserved, version, reserved2, flags, lrc, mkvp, encrypted, vector, bits, size,
            tvv,
        ) = _AESDATA.unpack(buf)  # fmt: skip
        _check("type", 0, kind, _TYPE_CCA)
        _check("reserved bytes", 1, reserved, bytes(3))
        _check("version", 4, version, _VERSION_AESDATA)
        _check("reserved byte", 5, reserved2, 0)
        if flags & ~_FLAG_CONTROL_VECTOR != _FLAG_ENCRYPTED:
            _refuse("flags", 6, _spell(flags), "an encrypted key with its MKVP (0xc0)")
        _check("control vector", 48, vector, bytes(8))
        if bits not in KEY_BITS:
            _refuse("clear key bits", 56, bits, "128, 192 or 256")
        if size != _ENCRYPTED_SIZE:
            _refuse("encrypted key bytes", 58, size, str(_ENCRYPTED_SIZE))
        if tvv != make_tvv(buf[:60]):
            _refuse("token validation value", 60, f"{tvv:08x}", f"{make_tvv(buf[:60]):08x}")
        return cls(mkvp, lrc, bits, encrypted, bool(flags & _FLAG_CONTROL_VECTOR))

    def pack(self) -> bytes:
        """The 64 bytes of the token."""
        flags = _FLAG_ENCRYPTED | (_FLAG_CONTROL_VECTOR if self.has_control_vector else 0)
        words = _AESDATA.pack(
            _TYPE_CCA, bytes(3), _VERSION_AESDATA, 0, flags, self.lrc, self.mkvp,
            self.encrypted_key, bytes(8), self.clear_bits, _ENCRYPTED_SIZE, 0,
        )[:60]  # fmt: skip
        return words + make_tvv(words).to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class AesCipherToken:
    """A CCA-AESCIPHER token: an AES key with its usage rules, AESKW under the master key."""

    mkvp: bytes
    payload: bytes = field(repr=False)  # 64, 72 or 80 bytes
    payload_version: int = 0  # 0: its length tells the key's; 1: always 80 bytes
    usage1: int = KUF1_ENCRYPT | KUF1_DECRYPT
    usage2: int = KUF2_ANY_MODE
    management1: int = KMF1_CPACF_ONLY
    management2: int = 0
    management3: int = KMF3_RANDOM

    @property
    def key_type(self) -> KeyType:
        return KeyType.CCA_AESCIPHER

    @property
    def clear_bits(self) -> int | None:
        """The key's bits, None: the payload is of the version that hides them."""
        return len(self.payload) * 8 - _PAYLOAD_OVERHEAD_BITS if self.payload_version == 0 else None

    @classmethod
    def parse(cls, buf: bytes) -> Self:
        """Decode one token in its file form: 136 bytes, zeros after the payload.

        Raises:
            FormatError: another length, or a field that a wrapped AES CIPHER key does not have.
        """
        wanted = TOKEN_SIZES[KeyType.CCA_AESCIPHER]
        if len(buf) != wanted:
            raise FormatError(f"CCA-AESCIPHER token: {len(buf)} bytes, wanted {wanted}")
        length, mkvp, version = _parse_cipher_head(buf)
        bits, usage1, usage2, *management = _parse_associated_data(buf)
        sizes = [n + _PAYLOAD_OVERHEAD_BITS for n in KEY_BITS] if version == 0 else []
        if bits not in (sizes or [_PAYLOAD_MAX_BITS]):
            _refuse("payload bits", 38, bits, "512, 576 or 640 (version 0), 640 (version 1)")
        end = _PAYLOAD_OFFSET + bits // 8
        if length != end:
            _refuse("total length", 2, length, f"{end} for a payload of {bits} bits")
        if any(buf[end:]):
            _refuse("padding", end, "not zero", "zeros up to the end")
        return cls(mkvp, buf[_PAYLOAD_OFFSET:end], version, usage1, usage2, *management)

    def pack(self) -> bytes:
        """The 136 bytes of the token's file form."""
        head = _CIPHER_HEAD.pack(
            _TYPE_CCA, 0, _PAYLOAD_OFFSET + len(self.payload), _VERSION_AESCIPHER, bytes(3),
            _STATE_WRAPPED_BY_MK, _KVP_AES_MK, self.mkvp, bytes(8), _METHOD_AESKW, _HASH_SHA256,
            self.payload_version, 0,
        )  # fmt: skip
        token = head + self.pack_associated_data() + self.payload
        return token.ljust(TOKEN_SIZES[KeyType.CCA_AESCIPHER], b"\0")

    def pack_associated_data(self) -> bytes:
        """The 26 bytes whose hash is wrapped together with the key."""
        return _CIPHER_AD.pack(
            1, 0, _CIPHER_AD.size, 0, 0, 0, 0, len(self.payload) * 8, 0, _ALGORITHM_AES,
            _KEY_TYPE_CIPHER, 2, self.usage1, self.usage2, 3, self.management1, self.management2,
            self.management3,
        )  # fmt: skip


def _parse_cipher_head(buf: bytes) -> tuple[int, bytes, int]:
    """Total length, MKVP and payload version of a CCA-AESCIPHER token."""
    (
        kind, reserved, length, version, reserved2, state, kvp_type, mkvp, kvp_rest, method, digest,
        payload_version, reserved3,
    ) = _CIPHER_HEAD.unpack_from(buf)  # fmt: skip
    _check("type", 0, kind, _TYPE_CCA)
    _check("reserved byte", 1, reserved, 0)
    _check("version", 4, version, _VERSION_AESCIPHER)
    _check("reserved bytes", 5, reserved2, bytes(3))
    _check("key material state", 8, state, _STATE_WRAPPED_BY_MK)
    _check("KVP type", 9, kvp_type, _KVP_AES_MK)
    _check("rest of the KVP", 18, kvp_rest, bytes(8))
    _check("wrapping method", 26, method, _METHOD_AESKW)
    _check("hash algorithm", 27, digest, _HASH_SHA256)
    if payload_version not in (0, 1):
        _refuse("payload format version", 28, payload_version, "0 or 1")
    _check("reserved byte", 29, reserved3, 0)
    return length, mkvp, payload_version


def _parse_associated_data(buf: bytes) -> tuple[int, int, int, int, int, int]:
    """Payload bits, both key-usage and the three key-management fields."""
    (
        version, reserved, size, label, extended, user, reserved2, bits, reserved3, algorithm,
        key_type, usages, usage1, usage2, managements, management1, management2, management3,
    ) = _CIPHER_AD.unpack_from(buf, _AD_OFFSET)  # fmt: skip
    _check("associated data version", 30, version, 1)
    _check("reserved byte", 31, reserved, 0)
    _check("associated data length", 32, size, _CIPHER_AD.size)
    _check("key label length", 34, label, 0)
    _check("extended associated data length", 35, extended, 0)
    _check("user associated data length", 36, user, 0)
    _check("reserved byte", 37, reserved2, 0)
    _check("reserved byte", 40, reserved3, 0)
    _check("algorithm", 41, algorithm, _ALGORITHM_AES)
    _check("key type", 42, key_type, _KEY_TYPE_CIPHER)
    _check("key-usage field count", 44, usages, 2)
    _check("key-management field count", 49, managements, 3)
    return bits, usage1, usage2, management1, management2, management3


Token = AesDataToken | AesCipherToken | Ep11Token | Pkcs11Token
#: By type and version: bytes, and what parses them.
_TOKENS: Final[dict[tuple[int, int], tuple[int, type[Token]]]] = {
    (_TYPE_CCA, _VERSION_AESDATA): (TOKEN_SIZES[KeyType.CCA_AESDATA], AesDataToken),
    (_TYPE_CCA, _VERSION_AESCIPHER): (TOKEN_SIZES[KeyType.CCA_AESCIPHER], AesCipherToken),
    **{(ep11_token.TYPE, version): (size, Ep11Token) for version, size in ep11_token.SIZES.items()},
    (pkcs11_token.TYPE, pkcs11_token.VERSION): (TOKEN_SIZES[KeyType.PKCS11_AES], Pkcs11Token),
}


#: Bytes of a token in a file, by type and version.
FILE_SIZES: Final = {kind: size for kind, (size, _) in _TOKENS.items()}


def parse_tokens(buf: bytes) -> tuple[Token, ...]:
    """One token, or the two of an XTS key.

    Raises:
        FormatError: no token, one of another kind, of another length, or two that are no XTS pair.
    """
    if len(buf) < 8:
        raise FormatError(f"key token: {len(buf)} bytes, wanted a header of 8")
    kind = (buf[0], buf[4])
    if kind in _OTHER_KINDS:
        raise FormatError(
            f"key token: {_OTHER_KINDS[kind]} (type {buf[0]:02x}, version {buf[4]:02x}), "
            f"wanted {' or '.join(KeyType)}"
        )
    if kind not in _TOKENS:
        raise FormatError(
            f"key token: type {buf[0]:02x} and version {buf[4]:02x} at bytes 0 and 4, "
            "wanted 01 and 04 or 05, 00 and 03 or 06, or 46 and 01"
        )
    size, token_class = _TOKENS[kind]
    if len(buf) == size:
        return (token_class.parse(buf),)
    if len(buf) != 2 * size:
        name = f"{KeyType.EP11_AES} token" if token_class is Ep11Token else "key token"
        raise FormatError(f"{name}: {len(buf)} bytes, wanted {size}, or {2 * size} for XTS")
    first, second = token_class.parse(buf[:size]), token_class.parse(buf[size:])
    _check_pair(first, second, size)
    return first, second


def _check_pair(first: Token, second: Token, size: int) -> None:
    if first.mkvp != second.mkvp:
        _refuse("MKVP of the second half", size, second.mkvp.hex(), first.mkvp.hex())
    if isinstance(first, Ep11Token) and isinstance(second, Ep11Token):
        _check("session of the second half", size, second.session, first.session)
    if first.clear_bits != second.clear_bits:
        _refuse("bits of the second half", size, second.clear_bits, str(first.clear_bits))
    if first.clear_bits not in (*XTS_KEY_BITS, None):
        _refuse("bits of an XTS half", 0, first.clear_bits, "128 or 256")
    is_twice = isinstance(first, Pkcs11Token) and first.check == getattr(second, "check", None)
    if is_twice or first == second:
        raise FormatError("key token: both halves of the XTS key are the same")
