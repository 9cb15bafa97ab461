"""Making a new LUKS2 volume: luksFormat as a library. Overwrites without asking.

Source: LUKS2 On-Disk Format Specification 1.1.4; lib/setup.c (_crypt_format_luks2),
lib/luks2/luks2_json_format.c; the defaults are those of cryptsetup 2.6.
"""

from __future__ import annotations

import base64
import os
import stat
import uuid as uuids
from dataclasses import dataclass
from typing import Final

from ...keystore.errors import AccessError, ConfigError, PolicyError, UnsupportedError
from ...keystore.keys import ProtectedKey, SecureKey
from ..backing import get_size, locked, pread_from, pwrite, sync
from ..cipher_spec import CipherSpec
from ..engine.client import Engine, Secret
from ..engine.messages import DigestSpec, Kdf, KdfType, KeyKind, KeyslotSpec
from ..units import SECTOR_SIZE, UINT32_MAX
from .binhdr import BINHDR_SIZE, LABEL_SIZE, SALT_SIZE, BinaryHeader
from .json_area import JsonObject
from .keyslot import KDF_TYPES, STRIPES, get_area_size
from .layout import Layout, make_layout
from .recovery import Luks2Header, read_header
from .update import write_header

KEYSLOTS_MAX: Final = 32
_KDF_SALT_SIZE: Final = 32
_DIGEST_MILLISECONDS: Final = 125
_DIGEST_ITERATIONS_MIN: Final = 1000
# lib/luks2/luks2_keyslot.c: the keyslot encryption of what is a wrapped key.
_WRAPPED_AREA_CIPHER: Final = "aes-xts-plain64"
_WRAPPED_AREA_KEY_SIZE: Final = 64
_WIPE_STEP: Final = 1024 * 1024
#: The hashes that a new volume may name, with the bytes of their digests.
HASH_SIZES: Final = {
    "sha1": 20,
    "sha224": 28,
    "sha256": 32,
    "sha384": 48,
    "sha512": 64,
    "sha3-224": 28,
    "sha3-256": 32,
    "sha3-384": 48,
    "sha3-512": 64,
    "ripemd160": 20,
    "whirlpool": 64,
    "sm3": 32,
    "blake2b-160": 20,
    "blake2b-256": 32,
    "blake2b-384": 48,
    "blake2b-512": 64,
    "blake2s-160": 20,
    "blake2s-224": 28,
    "blake2s-256": 32,
}


@dataclass(frozen=True, slots=True)
class PbkdfParams:
    """What a new keyslot costs. Checked as cryptsetup does (lib/utils_pbkdf.c)."""

    type: str = "argon2id"
    hash_name: str = "sha256"  # of PBKDF2, the AF split and the digest
    milliseconds: int = 2000  # to aim at
    iterations: int | None = None  # forced: nothing is measured
    memory_kib: int | None = (
        None  # Argon2: the most to take; exactly this when iterations are forced
    )
    parallel: int | None = None  # Argon2: lanes

    def __post_init__(self) -> None:
        """Raises ConfigError, UnsupportedError: what cryptsetup refuses."""
        if self.type not in KDF_TYPES:
            raise UnsupportedError(
                f"pbkdf {self.type}: not supported, wanted {', '.join(KDF_TYPES)}"
            )
        if self.hash_name not in HASH_SIZES:
            raise UnsupportedError(
                f"hash {self.hash_name}: not supported, wanted one of {', '.join(HASH_SIZES)}"
            )
        if not 0 < self.milliseconds <= UINT32_MAX:
            raise ConfigError(f"iteration time {self.milliseconds} ms: wanted 1 to {UINT32_MAX}")
        least = 1000 if self.type == "pbkdf2" else 4
        if self.iterations is not None and not least <= self.iterations <= UINT32_MAX:
            raise ConfigError(
                f"forced iterations {self.iterations}: {self.type} takes {least} to {UINT32_MAX}"
            )
        if self.type == "pbkdf2":
            if self.memory_kib is not None or self.parallel is not None:
                raise ConfigError("pbkdf2 takes neither memory nor parallel threads")
            return
        if not 32 <= self.memory <= 4 * 1024 * 1024:
            raise ConfigError(f"pbkdf memory {self.memory} KiB: wanted 32 to 4194304")
        if self.parallel is not None and not 1 <= self.parallel <= 4:
            raise ConfigError(f"pbkdf parallel threads {self.parallel}: wanted 1 to 4")
        if self.memory < 8 * self.lanes:
            raise ConfigError(
                f"pbkdf memory {self.memory} KiB: {self.lanes} threads need {8 * self.lanes}"
            )

    @property
    def memory(self) -> int:
        """KiB that Argon2 may take."""
        return 1024 * 1024 if self.memory_kib is None else self.memory_kib

    @property
    def lanes(self) -> int:
        """Argon2's lanes: 4, or as many as there are processors."""
        return min(4, os.cpu_count() or 1) if self.parallel is None else self.parallel


@dataclass(frozen=True, slots=True)
class FormatParams:
    """What luksFormat was asked for; None leaves the choice to cryptsetup's rules."""

    cipher: str = "aes-xts-plain64"
    key_bits: int | None = None
    sector_size: int | None = None
    pbkdf: PbkdfParams = PbkdfParams()
    key_slot: int = 0
    uuid: str | None = None
    label: str = ""
    subsystem: str = ""
    offset: int | None = None  # 512-byte sectors before the data
    metadata_size: int | None = None  # bytes of one header copy
    keyslots_size: int | None = None  # bytes of the keyslots area

    def __post_init__(self) -> None:
        """Raises ConfigError, UnsupportedError: what can be refused without looking at a device."""
        self.spec.check_key_size(self.key_size)
        if not 0 <= self.key_slot < KEYSLOTS_MAX:
            raise ConfigError(f"keyslot {self.key_slot}: wanted 0 to {KEYSLOTS_MAX - 1}")
        for what, text in (("label", self.label), ("subsystem", self.subsystem)):
            if len(text.encode("utf-8", "surrogateescape")) >= LABEL_SIZE or "\0" in text:
                raise ConfigError(f"{what}: wanted at most {LABEL_SIZE - 1} bytes, without NUL")
        if self.uuid is not None:
            _parse_uuid(self.uuid)
        if self.offset is not None and self.offset < 0:
            raise ConfigError(f"offset {self.offset}: wanted 0 or more")

    @property
    def spec(self) -> CipherSpec:
        """The data's cipher."""
        return CipherSpec.parse(self.cipher)

    @property
    def key_size(self) -> int:
        """Bytes of the volume key: 256 bits of AES unless told otherwise, twice that for XTS."""
        if self.key_bits is None:
            if self.spec.takes_secure_keys:
                raise ConfigError(f"cipher {self.cipher}: the key size must be given: the token's")
            return 64 if self.spec.is_xts else 32
        if self.key_bits % 8:
            raise ConfigError(f"key size {self.key_bits}: not a multiple of 8 bits")
        return self.key_bits // 8


@dataclass(frozen=True, slots=True)
class FormattedVolume:
    """What was made: the header as it reads now, and what a user should know of it."""

    header: Luks2Header
    notes: tuple[str, ...]


def plan_format(params: FormatParams, fd: int, header_fd: int | None = None) -> Layout:
    """Where everything of a new volume would lie; for a check before the user is asked anything.

    Raises:
        ConfigError: sizes that cannot be, or do not fit each other.
        AccessError: no file or device, or too small.
    """
    target = fd if header_fd is None else header_fd
    is_file = stat.S_ISREG(os.fstat(target).st_mode)
    return make_layout(
        key_size=params.key_size,
        header_size=get_size(target),
        header_can_grow=is_file,
        data_size=get_size(fd),
        is_detached=header_fd is not None,
        data_offset=None if params.offset is None else params.offset * SECTOR_SIZE,
        hdr_size=params.metadata_size,
        keyslots_size=params.keyslots_size,
        sector_size=params.sector_size,
    )


def format_volume(
    engine: Engine,
    fd: int,
    secret: Secret,
    params: FormatParams,
    *,
    header_fd: int | None = None,
    volume_key: ProtectedKey | None = None,
) -> FormattedVolume:
    """Make a LUKS2 volume of ``fd``, with its header in ``header_fd`` where that is given.

    What was there before is lost, its header first: until the last step there is no LUKS header at
    all, so a crash never leaves half a volume. A regular file that is too small for the header
    grows. The volume key is random unless ``volume_key`` gives it.

    Raises:
        ConfigError: sizes that cannot be, or do not fit each other.
        UnsupportedError: the engine has no such hash.
        AccessError: the backing store is too small, or refuses.
        BusyError: another process holds the header's lock.
        PolicyError: paes with what is not the whole of a secure key.
        EngineError: the engine failed; EngineMemoryError: for want of memory.
    """
    layout = plan_format(params, fd, header_fd)
    target = fd if header_fd is None else header_fd
    # All that can be refused is refused before the first byte is written.
    if params.spec.takes_secure_keys:
        _check_secure_key(engine, params.spec, volume_key)
    key = volume_key or engine.generate_key(params.key_size, xts=params.spec.is_xts)
    slot = _make_keyslot(engine, params, layout)
    digest = _make_digest(engine, params, key)
    with locked(target, exclusive=True):
        _grow(target, layout.keyslots.end)
        _wipe(target, layout, is_detached=header_fd is not None)
        engine.create_keyslot(target, secret, key, slot)
        sync(target)
        binary = BinaryHeader(
            is_secondary=False,
            hdr_size=layout.hdr_size,
            seqid=1,
            label=params.label,
            checksum_alg="sha256",
            salt=bytes(SALT_SIZE),
            uuid=_parse_uuid(params.uuid) if params.uuid else str(uuids.uuid4()),
            subsystem=params.subsystem,
            hdr_offset=0,
        )
        write_header(target, binary, _make_json(params, layout, slot, digest))
        header = read_header(pread_from(target), get_size(target))
    return FormattedVolume(header, layout.notes)


def _check_secure_key(engine: Engine, spec: CipherSpec, key: ProtectedKey | None) -> None:
    """Refuse what would not be a secure key for ever after; the engine looks at it, not we."""
    if key is None:
        raise ConfigError(f"cipher {spec.dm_name}: wanted a secure key (--volume-key-file)")
    exported = engine.export_key(key)
    if exported.kind is not KeyKind.SECURE:
        what = {
            KeyKind.CLEAR: "no secure key",
            KeyKind.FRAGMENT: "only the beginning of a secure key, everybody who has it could read",
            KeyKind.PROTECTED: "a protected key, void as soon as the engine ends",
        }[exported.kind]
        raise PolicyError(f"volume key file: is {what}; wanted: the whole secure key")
    if SecureKey.parse(exported.secure).is_xts != spec.is_xts:
        wanted = "a pair for XTS (zkey generate --xts)" if spec.is_xts else "one without --xts"
        raise PolicyError(f"volume key file: does not fit {spec.dm_name}; wanted: {wanted}")


def _parse_uuid(text: str) -> str:
    try:
        return str(uuids.UUID(text))
    except ValueError as error:
        raise ConfigError(
            f"UUID {text!r}: wanted such as 01234567-89ab-cdef-0123-456789abcdef"
        ) from error


def _make_keyslot(engine: Engine, params: FormatParams, layout: Layout) -> KeyslotSpec:
    pbkdf = params.pbkdf
    salt = os.urandom(_KDF_SALT_SIZE)
    kind = KDF_TYPES[pbkdf.type]
    if kind is KdfType.PBKDF2:
        kdf = Kdf(kind, salt, pbkdf.iterations or 0, hash_name=pbkdf.hash_name)
    else:
        kdf = Kdf(kind, salt, pbkdf.iterations or 0, pbkdf.memory, pbkdf.lanes)
    if pbkdf.iterations is None:
        kdf = engine.benchmark_kdf(kdf, key_size=params.key_size, milliseconds=pbkdf.milliseconds)
    # The area takes the data's cipher and key size, as cryptsetup does without --keyslot-cipher;
    # for paes its defaults, since a token is no key for the area.
    is_token = params.spec.takes_secure_keys
    return KeyslotSpec(
        key_size=params.key_size,
        stripes=STRIPES,
        af_hash=pbkdf.hash_name,
        area_offset=layout.keyslots.offset,
        area_length=get_area_size(params.key_size),
        area_cipher=_WRAPPED_AREA_CIPHER if is_token else params.spec.dm_name,
        area_key_size=_WRAPPED_AREA_KEY_SIZE if is_token else params.key_size,
        kdf=kdf,
    )


def _make_digest(engine: Engine, params: FormatParams, key: ProtectedKey) -> DigestSpec:
    name = params.pbkdf.hash_name
    salt = os.urandom(_KDF_SALT_SIZE)
    iterations = _DIGEST_ITERATIONS_MIN
    if params.pbkdf.iterations is None:
        iterations = engine.benchmark_kdf(
            Kdf(KdfType.PBKDF2, salt, 0, hash_name=name),
            key_size=params.key_size,
            milliseconds=_DIGEST_MILLISECONDS,
        ).iterations
    blank = DigestSpec(name, iterations, salt, b"", HASH_SIZES[name])
    return DigestSpec(name, iterations, salt, engine.make_digest(key, blank), HASH_SIZES[name])


def _grow(fd: int, size: int) -> None:
    if get_size(fd) >= size:
        return
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        raise AccessError(f"header: growing the file to {size} bytes: {error.strerror}") from error


def _wipe(fd: int, layout: Layout, *, is_detached: bool) -> None:
    """Zeros up to the data, then random bytes where key material will lie."""
    end = BINHDR_SIZE if is_detached else min(layout.data_offset, get_size(fd))
    zeros = bytes(_WIPE_STEP)
    for at in range(0, end, _WIPE_STEP):
        pwrite(fd, zeros[: min(_WIPE_STEP, end - at)], at)
    area = layout.keyslots
    for at in range(area.offset, area.end, _WIPE_STEP):
        pwrite(fd, os.urandom(min(_WIPE_STEP, area.end - at)), at)
    if is_detached:
        # A former secondary header would be found as long as the primary is void.
        pwrite(fd, bytes(layout.keyslots.offset - BINHDR_SIZE), BINHDR_SIZE)
    sync(fd)


def _make_json(
    params: FormatParams, layout: Layout, slot: KeyslotSpec, digest: DigestSpec
) -> JsonObject:
    """The JSON object, its fields in cryptsetup's order."""
    number = str(params.key_slot)
    return {
        "keyslots": {
            number: {
                "type": "luks2",
                "key_size": slot.key_size,
                "af": {"type": "luks1", "stripes": slot.stripes, "hash": slot.af_hash},
                "area": {
                    "type": "raw",
                    "offset": str(slot.area_offset),
                    "size": str(slot.area_length),
                    "encryption": slot.area_cipher,
                    "key_size": slot.area_key_size,
                },
                "kdf": _kdf_json(params.pbkdf.type, slot.kdf),
            }
        },
        "tokens": {},
        "segments": {
            "0": {
                "type": "crypt",
                "offset": str(layout.data_offset),
                "size": "dynamic",
                "iv_tweak": "0",
                "encryption": params.spec.dm_name,
                "sector_size": layout.sector_size,
            }
        },
        "digests": {
            "0": {
                "type": "pbkdf2",
                "keyslots": [number],
                "segments": ["0"],
                "hash": digest.hash_name,
                "iterations": digest.iterations,
                "salt": _base64(digest.salt),
                "digest": _base64(digest.digest),
            }
        },
        "config": {
            "json_size": str(layout.hdr_size - BINHDR_SIZE),
            "keyslots_size": str(layout.keyslots_size),
        },
    }


def _kdf_json(name: str, kdf: Kdf) -> JsonObject:
    salt = _base64(kdf.salt)
    if kdf.type is KdfType.PBKDF2:
        return {"type": name, "hash": kdf.hash_name, "iterations": kdf.iterations, "salt": salt}
    return {
        "type": name,
        "time": kdf.iterations,
        "memory": kdf.memory_kib,
        "cpus": kdf.lanes,
        "salt": salt,
    }


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
