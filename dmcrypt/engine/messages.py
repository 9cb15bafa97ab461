"""The messages between daemon and engine: values to bytes and back. No I/O.

Source of the layouts: src/wire.h, whose struct names the constants below repeat. Integers are of
the host's byte order, sizes and offsets in bytes unless a name says otherwise.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, Self

from ...keystore.errors import EngineError
from ...keystore.keys import ProtectedKey
from .wire_enums import (
    ArenaKind as ArenaKind,
)
from .wire_enums import (
    EventKind as EventKind,
)
from .wire_enums import (
    KdfType as KdfType,
)
from .wire_enums import (
    KeyForm as KeyForm,
)
from .wire_enums import (
    KeyKind as KeyKind,
)
from .wire_enums import (
    MessageType as MessageType,
)
from .wire_enums import (
    PkeyType as PkeyType,
)
from .wire_enums import (
    SecretMode as SecretMode,
)
from .wire_enums import (
    TargetKind as TargetKind,
)

PROTOCOL: Final = 1
MESSAGE_MAX: Final = 65536
FDS_MAX: Final = 4
NAME_MAX: Final = 64
TOKEN_MAX: Final = 2144
SALT_MAX: Final = 64
DIGEST_MAX: Final = 512
SEGMENTS_MAX: Final = 20
BLOB_MAX: Final = 4096
READ_MAX: Final = 8192
SECURE_KEY_MAX: Final = 672
ENTRY_NAME_MAX: Final = 255

HEADER: Final = struct.Struct("=IIiI")
HELLO: Final = struct.Struct("=IIQQQIIII32s32s32s")
TOKEN: Final = struct.Struct(f"=I4x{TOKEN_MAX}s")
SEGMENT: Final = struct.Struct(f"=QQQQIII4x{NAME_MAX}s{TOKEN.size}s")
DEVICE: Final = struct.Struct("=QQIII4x")
ADDED: Final = struct.Struct("=I4x")
NODE: Final = struct.Struct("=QI4x")
RESIZE: Final = struct.Struct("=QQ")
REKEY: Final = struct.Struct(f"=QI4x{TOKEN.size}s")
INVALIDATE: Final = struct.Struct("=QQ256s")
LOAD_SECRET: Final = struct.Struct("=I4xQQ")
SECRET: Final = struct.Struct("=QQ")
KDF: Final = struct.Struct(f"=IIII{NAME_MAX}sI4x{SALT_MAX}s")
KEYSLOT: Final = struct.Struct(f"=III4xQQ{NAME_MAX}s{NAME_MAX}s{KDF.size}s")
DIGEST: Final = struct.Struct(f"={NAME_MAX}sIII4x{SALT_MAX}s{DIGEST_MAX}s")
OPEN_KEYSLOT: Final = struct.Struct(f"=Q{KEYSLOT.size}s{DIGEST.size}s")
CREATE_KEYSLOT: Final = struct.Struct(f"=Q{TOKEN.size}s{KEYSLOT.size}s")
KEY_SIZE: Final = struct.Struct("=II")
PLAIN_KEY: Final = struct.Struct(f"=QIII4x{NAME_MAX}s")
LOOPAES_KEY: Final = struct.Struct(f"=QI4x{NAME_MAX}s")
TABLE_KEY: Final = struct.Struct("=QQI4x")
SHOW_KEY: Final = struct.Struct("=QI4x")
WRITE_KEY: Final = struct.Struct(f"={TOKEN.size}sI4x")
LOOPAES_KEYS: Final = struct.Struct(f"=I4x{TOKEN.size}s")
MAKE_DIGEST: Final = struct.Struct(f"={TOKEN.size}s{DIGEST.size}s")
DIGEST_VALUE: Final = struct.Struct(f"=I4x{DIGEST_MAX}s")
BENCHMARK: Final = struct.Struct(f"={KDF.size}sII")
READ: Final = struct.Struct("=QQI4x")
CIPHER_BENCHMARK: Final = struct.Struct(f"={NAME_MAX}sIII4x")
CIPHER_SPEED: Final = struct.Struct("=QQQQ")
BLOB: Final = struct.Struct(f"=II{BLOB_MAX}s")
RSA_KEY: Final = struct.Struct("=I4x512s")
EXPORTED_KEY: Final = struct.Struct(f"=II{SECURE_KEY_MAX}s{TOKEN.size}s")
EVENT: Final = struct.Struct("=I4xQ")
STATS: Final = struct.Struct("=QQQQQQQQQqQ40x")

#: Struct name in wire.h of each layout; the test compares their sizes with the compiler's.
LAYOUTS: Final = {
    "wire_header": HEADER,
    "wire_hello": HELLO,
    "wire_token": TOKEN,
    "wire_segment": SEGMENT,
    "wire_device": DEVICE,
    "wire_node": NODE,
    "wire_resize": RESIZE,
    "wire_rekey": REKEY,
    "wire_invalidate": INVALIDATE,
    "wire_load_secret": LOAD_SECRET,
    "wire_secret": SECRET,
    "wire_kdf": KDF,
    "wire_keyslot": KEYSLOT,
    "wire_digest": DIGEST,
    "wire_open_keyslot": OPEN_KEYSLOT,
    "wire_create_keyslot": CREATE_KEYSLOT,
    "wire_key_size": KEY_SIZE,
    "wire_plain_key": PLAIN_KEY,
    "wire_loopaes_key": LOOPAES_KEY,
    "wire_loopaes_keys": LOOPAES_KEYS,
    "wire_table_key": TABLE_KEY,
    "wire_show_key": SHOW_KEY,
    "wire_write_key": WRITE_KEY,
    "wire_make_digest": MAKE_DIGEST,
    "wire_digest_value": DIGEST_VALUE,
    "wire_benchmark": BENCHMARK,
    "wire_read": READ,
    "wire_cipher_benchmark": CIPHER_BENCHMARK,
    "wire_cipher_speed": CIPHER_SPEED,
    "wire_blob": BLOB,
    "wire_rsa_key": RSA_KEY,
    "wire_exported_key": EXPORTED_KEY,
    "wire_event": EVENT,
    "wire_stats": STATS,
}

READ_ONLY: Final = 1
DISCARDS: Final = 2
IV_LARGE_SECTORS: Final = 1
ANY_XTS_KEY: Final = 2
SUSPEND_WIPE: Final = 1
SUSPEND_FAIL: Final = 2
KEY_XTS: Final = 1


def _name(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) >= NAME_MAX or b"\0" in raw:
        raise EngineError(
            f"name of {len(raw)} bytes: the engine takes at most {NAME_MAX - 1}, without NUL"
        )
    return raw


def _bounded(what: str, value: bytes, most: int) -> bytes:
    if len(value) > most:
        raise EngineError(f"{what}: {len(value)} bytes, at most {most} are possible")
    return value


def _u32(what: str, value: int) -> int:
    if not 0 <= value < 1 << 32:
        raise EngineError(f"{what}: {value} does not fit 32 bits")
    return value


def _u64(what: str, value: int) -> int:
    if not 0 <= value < 1 << 64:
        raise EngineError(f"{what}: {value} does not fit 64 bits")
    return value


def pack_token(key: ProtectedKey | None) -> bytes:
    """A ``wire_token``; all zeros for no key."""
    token = b"" if key is None else key.token
    return TOKEN.pack(len(token), _bounded("token", token, TOKEN_MAX))


def parse_token(body: bytes) -> ProtectedKey:
    """The protected key in a ``wire_token``."""
    length, data = TOKEN.unpack(body)
    if not 0 < length <= TOKEN_MAX:
        raise EngineError(
            f"token of {length} bytes from the engine, at most {TOKEN_MAX} are possible"
        )
    return ProtectedKey(data[:length])


def parse_rsa_modulus(body: bytes) -> bytes:
    """What a ``wire_rsa_key`` holds, big-endian."""
    length: int
    modulus: bytes
    length, modulus = RSA_KEY.unpack(body)
    return modulus[:length]


@dataclass(frozen=True, slots=True)
class Kdf:
    """How a secret becomes the key of a keyslot area."""

    type: KdfType
    salt: bytes
    iterations: int  # of PBKDF2, or Argon2's time
    memory_kib: int = 0
    lanes: int = 0
    hash_name: str = ""

    def pack(self) -> bytes:
        salt = _bounded("salt", self.salt, SALT_MAX)
        return KDF.pack(
            self.type,
            _u32("iterations", self.iterations),
            _u32("memory", self.memory_kib),
            _u32("lanes", self.lanes),
            _name(self.hash_name),
            len(salt),
            salt,
        )

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """From the reply to BENCHMARK_KDF."""
        kind, iterations, memory, lanes, name, salt_length, salt = KDF.unpack(body)
        return cls(
            KdfType(kind),
            salt[:salt_length],
            iterations,
            memory,
            lanes,
            name.rstrip(b"\0").decode("ascii"),
        )


@dataclass(frozen=True, slots=True)
class KeyslotSpec:
    """One keyslot: its area, its anti-forensic split, its KDF."""

    key_size: int  # bytes of the volume key
    stripes: int
    af_hash: str
    area_offset: int
    area_length: int
    area_cipher: str  # as "aes-xts-plain64"
    area_key_size: int
    kdf: Kdf

    def pack(self) -> bytes:
        return KEYSLOT.pack(
            _u32("key size", self.key_size),
            _u32("stripes", self.stripes),
            _u32("area key size", self.area_key_size),
            _u64("area offset", self.area_offset),
            _u64("area length", self.area_length),
            _name(self.af_hash),
            _name(self.area_cipher),
            self.kdf.pack(),
        )


@dataclass(frozen=True, slots=True)
class DigestSpec:
    """What tells a right volume key from a wrong one; an empty ``digest`` is yet to be made."""

    hash_name: str
    iterations: int
    salt: bytes
    digest: bytes
    digest_length: int

    def pack(self) -> bytes:
        salt = _bounded("digest salt", self.salt, SALT_MAX)
        return DIGEST.pack(
            _name(self.hash_name),
            _u32("digest iterations", self.iterations),
            len(salt),
            _u32("digest length", self.digest_length),
            salt,
            _bounded("digest", self.digest, DIGEST_MAX),
        )


@dataclass(frozen=True, slots=True)
class SegmentSpec:
    """One run of a device's sectors, and where they lie."""

    start: int
    length: int
    target: TargetKind
    fd_index: int = 0
    backing_offset: int = 0
    cipher: str = ""  # as "aes-xts-plain64"
    iv_offset: int = 0  # 512-byte sectors
    iv_large_sectors: bool = False
    any_xts_key: bool = False  # take one with equal halves
    key: ProtectedKey | None = None

    def pack(self) -> bytes:
        return SEGMENT.pack(
            _u64("segment start", self.start),
            _u64("segment length", self.length),
            _u64("backing offset", self.backing_offset),
            _u64("IV offset", self.iv_offset),
            self.target,
            self.fd_index,
            (IV_LARGE_SECTORS if self.iv_large_sectors else 0)
            | (ANY_XTS_KEY if self.any_xts_key else 0),
            _name(self.cipher),
            pack_token(self.key),
        )


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A mapped device as the engine serves it."""

    node: int  # FUSE node id
    size: int
    sector_size: int
    read_only: bool
    segments: tuple[SegmentSpec, ...]
    discards: bool = False  # hole punching reaches the backing store

    def pack(self) -> bytes:
        if not 0 < len(self.segments) <= SEGMENTS_MAX:
            raise EngineError(
                f"table of {len(self.segments)} segments: 1 to {SEGMENTS_MAX} are possible"
            )
        head = DEVICE.pack(
            _u64("node", self.node),
            _u64("size", self.size),
            _u32("sector size", self.sector_size),
            (READ_ONLY if self.read_only else 0) | (DISCARDS if self.discards else 0),
            len(self.segments),
        )
        return head + b"".join(segment.pack() for segment in self.segments)


@dataclass(frozen=True, slots=True)
class ExportedKey:
    """What the engine shows of a volume key: never a clear one."""

    kind: KeyKind
    secure: bytes = field(repr=False)  # the tokens of a secure key, else empty
    protected: ProtectedKey | None  # what protected key tokens make

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises EngineError: a body of another length."""
        if len(body) != EXPORTED_KEY.size:
            raise EngineError(f"exported key: {len(body)} bytes, wanted {EXPORTED_KEY.size}")
        kind, length, secure, token = EXPORTED_KEY.unpack(body)
        protected = parse_token(token) if kind == KeyKind.PROTECTED else None
        return cls(KeyKind(kind), secure[:length], protected)
