"""Opening a volume: from a header or parameters and a secret to a table.

All functions block, and none changes anything on disk.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..keystore.errors import AccessError, ConfigError, FormatError, UnsupportedError
from ..keystore.keys import ProtectedKey
from .cipher_spec import CipherSpec
from .effective_key import EffectiveKey, KeyService, get_effective_key
from .engine.client import Engine, Secret
from .engine.messages import TargetKind
from .luks_header import LuksHeader
from .plain import DEFAULTS_DIFFER, PlainParams, get_length, parse_hash, plain_table
from .segment import DataSegment
from .table import Segment, Table
from .units import SECTOR_SIZE, Sector
from .unlock import check_volume_key, try_keyslots


@dataclass(frozen=True, slots=True)
class OpenedVolume:
    """A volume that is ready to be served, and what a status shows of it."""

    table: Table
    type: str  # "luks1", "luks2" or "plain"
    cipher: str
    key_bits: int
    sector_size: int
    offset: int  # bytes of the backing store before the data
    iv_offset: Sector
    uuid: str = ""
    label: str = ""
    subsystem: str = ""
    keyslot: int | None = None
    effective: EffectiveKey | None = None  # None: a clear key, of loop-AES
    notes: tuple[str, ...] = ()  # what a user should know of


@dataclass(frozen=True, slots=True)
class _LuksPlan:
    """What of a LUKS volume is known before its key is."""

    segment: DataSegment
    cipher: CipherSpec
    length: int  # bytes
    read_only: bool
    notes: tuple[str, ...]


def check_luks(header: LuksHeader, data_size: int, *, read_only: bool) -> tuple[str, ...]:
    """Refuse what cannot be opened whatever the passphrase is; notes for the user.

    For use before a prompt.
    ``data_size`` is the size of the file or device with the data, in bytes.

    Raises:
        UnsupportedError: names what of the header is not supported.
        FormatError: the header is damaged.
        AccessError: there is no room for data behind the header.
    """
    return _plan(header, data_size, read_only=read_only).notes


def open_luks(
    engine: Engine,
    header: LuksHeader,
    header_fd: int,
    secret: Secret,
    *,
    key_slot: int | None = None,
    data_size: int,
    read_only: bool,
    key_service: KeyService | None = None,
) -> OpenedVolume:
    """Open a LUKS volume with a passphrase or key file.

    ``header_fd`` is what `header` was read from: the volume itself or a detached header;
    ``key_service`` is needed for volumes whose key is a secure key.

    Raises:
        NoKeyError: no keyslot opens with this secret.
        UnlockError: there is no keyslot to try.
        MapperError: as `check_luks` and `get_effective_key`, and what the engine raises.
    """
    plan = _plan(header, data_size, read_only=read_only)
    key, number = _unlock(engine, header, plan, header_fd, secret, key_slot)
    effective = _find_effective_key(engine, header, plan, key, key_service)
    return _opened_luks(header, plan, effective, number)


def open_luks_with_key(
    engine: Engine,
    header: LuksHeader,
    key: ProtectedKey,
    *,
    data_size: int,
    read_only: bool,
    key_service: KeyService | None = None,
) -> OpenedVolume:
    """Open a LUKS volume with its volume key.

    Raises:
        DigestMismatchError: it is not this volume's key.
        MapperError: as `check_luks` and `get_effective_key`.
    """
    plan = _plan(header, data_size, read_only=read_only)
    check_volume_key(engine, key, header.make_digest_spec())
    effective = _find_effective_key(engine, header, plan, key, key_service)
    return _opened_luks(header, plan, effective, None)


def _unlock(
    engine: Engine,
    header: LuksHeader,
    plan: _LuksPlan,
    header_fd: int,
    secret: Secret,
    key_slot: int | None,
) -> tuple[ProtectedKey, int]:
    """The volume key, and the number of the keyslot that gave it."""
    candidates = header.list_candidates(key_slot)
    digest = header.make_digest_spec()

    def open_keyslot(number: int) -> ProtectedKey:
        slot = header.make_keyslot_spec(number)
        plan.cipher.check_key_size(slot.key_size)
        return engine.open_keyslot(header_fd, secret, slot, digest)

    return try_keyslots(candidates, open_keyslot)


def _find_effective_key(
    engine: Engine,
    header: LuksHeader,
    plan: _LuksPlan,
    key: ProtectedKey,
    service: KeyService | None,
) -> EffectiveKey:
    pattern = header.find_verification_pattern()
    return get_effective_key(engine, key, plan.cipher, service, pattern=pattern)


def get_key_size(header: LuksHeader) -> int:
    """Bytes of the volume key; where the header does not say, the most that its cipher takes.

    Raises:
        UnsupportedError: the segment's cipher is not supported.
    """
    size = header.find_key_size()
    return (
        max(_parse_cipher(header.get_segment(read_only=True)).key_sizes) if size is None else size
    )


def is_xts(header: LuksHeader) -> bool:
    """Whether the volume key is two keys, which must differ.

    Raises:
        UnsupportedError: the segment's cipher is not supported.
    """
    return _parse_cipher(header.get_segment(read_only=True)).is_xts


def open_plain(
    engine: Engine,
    params: PlainParams,
    secret: Secret,
    *,
    keyfile: bool,
    data_size: int,
    read_only: bool,
    key_service: KeyService | None = None,
) -> OpenedVolume:
    """Open a plain volume.

    With ``keyfile`` the secret is the key itself, else a passphrase to be hashed.
    No wrong passphrase can be told from the right one here.

    Raises:
        UnlockError: the key file is shorter than the key.
        AccessError: the device is too small.
        ConfigError: sizes that do not fit each other, or no hash for a passphrase.
    """
    get_length(params, data_size)
    if not keyfile and not params.hash:
        raise ConfigError(f"plain mode: hash must be given; {DEFAULTS_DIFFER}")
    if not keyfile and params.spec.takes_secure_keys:
        raise ConfigError(f"cipher {params.cipher}: wanted a key file, the secure key")
    volume_key = engine.plain_key(
        secret,
        key_size=params.key_size,
        hash_name="" if keyfile else params.hash,
        xts=params.spec.is_xts,
    )
    effective = get_effective_key(engine, volume_key, params.spec, key_service)
    return OpenedVolume(
        table=plain_table(params, effective.key, data_size, read_only=read_only),
        type="plain",
        cipher=params.spec.dm_name,
        key_bits=params.key_bits,
        sector_size=params.sector_size,
        offset=params.offset * SECTOR_SIZE,
        iv_offset=Sector(params.skip),
        effective=effective,
        notes=(effective.notes if keyfile else _note_zero_key(params.hash))
        + _note_null_cipher(params.spec),
    )


def _note_zero_key(hash_spec: str) -> tuple[str, ...]:
    _, length = parse_hash(hash_spec)
    return (f"hash {hash_spec}: the key is all zeros, so nothing is secret",) if length == 0 else ()


def _plan(header: LuksHeader, data_size: int, *, read_only: bool) -> _LuksPlan:
    segment = header.get_segment(read_only=read_only)
    if not header.uuid:
        raise FormatError("uuid at byte 168: empty, a volume cannot be opened without one")
    cipher = _parse_cipher(segment)
    return _LuksPlan(
        segment=segment,
        cipher=cipher,
        length=_get_length(segment, data_size),
        read_only=read_only,
        notes=header.list_notes() + _note_null_cipher(cipher),
    )


def _note_null_cipher(cipher: CipherSpec) -> tuple[str, ...]:
    return ("the data are not encrypted: " + cipher.weakness,) if cipher.is_null else ()


def _parse_cipher(segment: DataSegment) -> CipherSpec:
    try:
        spec = CipherSpec.parse(segment.cipher)
        spec.check_sector_size(segment.sector_size)
    except (UnsupportedError, ConfigError) as error:
        raise UnsupportedError(f"{segment.cipher_field}: {error}") from error
    return spec


def _get_length(segment: DataSegment, data_size: int) -> int:
    """Bytes to be mapped: all that the device has behind the segment's begin."""
    length = (data_size - segment.offset) // SECTOR_SIZE * SECTOR_SIZE
    if length <= 0:
        raise AccessError(
            f"device is too small for activation, there is no remaining space for data: "
            f"{data_size} bytes, the data begin at {segment.offset}"
        )
    if length % segment.sector_size:
        raise AccessError(
            f"device size: {length} bytes of data are not a multiple of the sector size "
            f"{segment.sector_size}"
        )
    return length


def _opened_luks(
    header: LuksHeader, plan: _LuksPlan, effective: EffectiveKey, number: int | None
) -> OpenedVolume:
    segment = plan.segment
    target = Segment(
        start=0,
        length=plan.length,
        target=TargetKind.CRYPT,
        backing_offset=segment.offset,
        cipher=plan.cipher.effective,
        iv_offset=segment.iv_offset,
        key=effective.key,
    )
    key_size = get_key_size(header)
    if number is not None:
        key_size = header.make_keyslot_spec(number).key_size
    return OpenedVolume(
        table=Table((target,), segment.sector_size, plan.length, plan.read_only),
        type=header.type,
        cipher=plan.cipher.dm_name,
        key_bits=key_size * 8,
        sector_size=segment.sector_size,
        offset=segment.offset,
        iv_offset=segment.iv_offset,
        uuid=header.uuid,
        label=header.label,
        subsystem=header.subsystem,
        keyslot=number,
        effective=effective,
        notes=plan.notes + effective.notes,
    )
