"""Opening a volume: from a header or parameters and a secret to a table.

All functions block, and none changes anything on disk.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from ..keystore.errors import (
    AccessError,
    ConfigError,
    DigestMismatchError,
    EngineMemoryError,
    FormatError,
    MapperError,
    NoKeyError,
    UnsupportedError,
)
from ..keystore.keys import ProtectedKey
from .cipher_spec import CipherSpec
from .effective_key import EffectiveKey, KeyService, get_effective_key
from .engine.client import Engine, Secret
from .engine.messages import DigestSpec, TargetKind
from .luks2 import Luks2Header, digest, keyslot
from .luks2.model import Segment as Luks2Segment
from .luks2.requirement import check_requirements, find_unknown_flags
from .luks2.token import find_verification_pattern
from .plain import DEFAULTS_DIFFER, PlainParams, get_length, parse_hash, plain_table
from .table import Segment, Table
from .units import ENCRYPTION_SECTOR_SIZES, SECTOR_SIZE, Sector


@dataclass(frozen=True, slots=True)
class OpenedVolume:
    """A volume that is ready to be served, and what a status shows of it."""

    table: Table
    type: str  # "luks2" or "plain"
    cipher: str
    key_bits: int
    sector_size: int
    offset: int  # bytes of the backing store before the data
    iv_offset: Sector
    uuid: str = ""
    label: str = ""
    subsystem: str = ""
    keyslot: int | None = None
    key_origin: str = "engine"  # what guards the key at rest, beside the passphrase
    notes: tuple[str, ...] = ()  # what a user should know of


@dataclass(frozen=True, slots=True)
class _LuksPlan:
    """What of a LUKS2 volume is known before its key is."""

    segment: Luks2Segment
    cipher: CipherSpec
    length: int  # bytes
    read_only: bool
    notes: tuple[str, ...]


def check_luks2(header: Luks2Header, data_size: int, *, read_only: bool) -> tuple[str, ...]:
    """Refuse what cannot be opened whatever the passphrase is; notes for the user.

    For use before a prompt.
    ``data_size`` is the size of the file or device with the data, in bytes.

    Raises:
        UnsupportedError: names what of the header is not supported.
        FormatError: the header is damaged.
        AccessError: there is no room for data behind the header.
    """
    return _plan(header, data_size, read_only=read_only).notes


def open_luks2(
    engine: Engine,
    header: Luks2Header,
    header_fd: int,
    secret: Secret,
    *,
    key_slot: int | None = None,
    data_size: int,
    read_only: bool,
    key_service: KeyService | None = None,
) -> OpenedVolume:
    """Open a LUKS2 volume with a passphrase or key file.

    ``header_fd`` is what `header` was read from: the volume itself or a detached header;
    ``key_service`` is needed for volumes whose key is a secure key.

    Raises:
        NoKeyError: no keyslot opens with this secret.
        UnlockError: there is no keyslot to try.
        MapperError: as `check_luks2` and `get_effective_key`, and what the engine raises.
    """
    plan = _plan(header, data_size, read_only=read_only)
    key, number = _unlock(engine, header, plan, header_fd, secret, key_slot)
    effective = _find_effective_key(engine, header, plan, key, key_service)
    return _opened_luks2(header, plan, effective, number)


def find_keyslot(
    engine: Engine,
    header: Luks2Header,
    header_fd: int,
    secret: Secret,
    *,
    key_slot: int | None = None,
    data_size: int,
) -> int:
    """The keyslot that a passphrase or key file opens; nothing else is done.

    Raises:
        MapperError: as `open_luks2`.
    """
    plan = _plan(header, data_size, read_only=True)
    return _unlock(engine, header, plan, header_fd, secret, key_slot)[1]


def check_volume_key(engine: Engine, header: Luks2Header, key: ProtectedKey) -> None:
    """Compare a volume key with the header's digest.

    Raises:
        DigestMismatchError: it is not this volume's key.
    """
    segment = header.metadata.regular_segments[0]
    wanted = digest.make_spec(digest.get_digest(header.metadata, segment.id))
    blank = DigestSpec(wanted.hash_name, wanted.iterations, wanted.salt, b"", wanted.digest_length)
    if not hmac.compare_digest(engine.make_digest(key, blank), wanted.digest):
        raise DigestMismatchError("volume key does not match the volume")


def open_luks2_with_key(
    engine: Engine,
    header: Luks2Header,
    key: ProtectedKey,
    *,
    data_size: int,
    read_only: bool,
    key_service: KeyService | None = None,
) -> OpenedVolume:
    """Open a LUKS2 volume with its volume key.

    Raises:
        DigestMismatchError: it is not this volume's key.
        MapperError: as `check_luks2` and `get_effective_key`.
    """
    plan = _plan(header, data_size, read_only=read_only)
    check_volume_key(engine, header, key)
    effective = _find_effective_key(engine, header, plan, key, key_service)
    return _opened_luks2(header, plan, effective, None)


def _unlock(
    engine: Engine,
    header: Luks2Header,
    plan: _LuksPlan,
    header_fd: int,
    secret: Secret,
    key_slot: int | None,
) -> tuple[ProtectedKey, int]:
    """The volume key, and the number of the keyslot that gave it."""
    metadata = header.metadata
    candidates = keyslot.list_candidates(metadata, plan.segment.id, key_slot)
    wanted = digest.make_spec(digest.get_digest(metadata, plan.segment.id))
    # A keyslot that is damaged or too costly does not keep the others from being tried.
    failure: MapperError | None = None
    for slot in candidates:
        try:
            plan.cipher.check_key_size(slot.key_size)
            key = engine.open_keyslot(header_fd, secret, keyslot.make_spec(slot), wanted)
        except NoKeyError:
            continue
        except (FormatError, UnsupportedError, EngineMemoryError, ConfigError) as error:
            failure = failure or _in_keyslot(error, slot.id)
        else:
            return key, slot.id
    raise failure or NoKeyError("no key available with this passphrase")


def _find_effective_key(
    engine: Engine,
    header: Luks2Header,
    plan: _LuksPlan,
    key: ProtectedKey,
    service: KeyService | None,
) -> EffectiveKey:
    pattern = find_verification_pattern(header.metadata)
    return get_effective_key(engine, key, plan.cipher, service, pattern=pattern)


def get_key_size(header: Luks2Header) -> int:
    """Bytes of the volume key, as a keyslot says; without any the largest that its cipher takes.

    Raises:
        UnsupportedError: the segment's cipher is not supported.
    """
    segment = header.metadata.regular_segments[0]
    bound = keyslot.find_bound(header.metadata, segment.id)
    for slot in header.metadata.keyslots:
        if slot.id in bound:
            return slot.key_size
    return max(_parse_cipher(segment).key_sizes)


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
        key_origin=effective.origin,
        notes=effective.notes if keyfile else _note_zero_key(params.hash),
    )


def _note_zero_key(hash_spec: str) -> tuple[str, ...]:
    _, length = parse_hash(hash_spec)
    return (f"hash {hash_spec}: the key is all zeros, so nothing is secret",) if length == 0 else ()


def _plan(header: Luks2Header, data_size: int, *, read_only: bool) -> _LuksPlan:
    metadata = header.metadata
    check_requirements(metadata.config, read_only=read_only)
    if not header.binary.uuid:
        raise FormatError("uuid at byte 168: empty, a volume cannot be opened without one")
    regular = metadata.regular_segments
    if len(regular) != len(metadata.segments):
        raise UnsupportedError("segments: backup segments of a reencryption are not supported")
    segment = regular[0]
    for each in regular:
        if each.type != "crypt":
            raise UnsupportedError(
                f"segments.{each.id}.type: {each.type} is not supported, wanted crypt"
            )
        if each.integrity is not None:
            raise UnsupportedError(
                f"segments.{each.id}.integrity: {each.integrity} is not supported"
            )
    if len(regular) > 1:
        raise UnsupportedError(f"segments: {len(regular)} of them are not supported, wanted one")
    if segment.sector_size not in ENCRYPTION_SECTOR_SIZES:
        raise UnsupportedError(
            f"segments.{segment.id}.sector_size: {segment.sector_size} is not supported, "
            "wanted 512 to 4096"
        )
    flags = find_unknown_flags(metadata.config)
    return _LuksPlan(
        segment=segment,
        cipher=_parse_cipher(segment),
        length=_get_length(segment, data_size),
        read_only=read_only,
        notes=header.notes + tuple(f"config.flags: {flag} is not known, ignored" for flag in flags),
    )


def _parse_cipher(segment: Luks2Segment) -> CipherSpec:
    try:
        return CipherSpec.parse(segment.encryption or "")
    except (UnsupportedError, ConfigError) as error:
        raise UnsupportedError(f"segments.{segment.id}.encryption: {error}") from error


def _get_length(segment: Luks2Segment, data_size: int) -> int:
    """Bytes to be mapped: all that the device has.

    So does cryptsetup (LUKS2_activate), also where the segment's size is fixed.
    """
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


def _opened_luks2(
    header: Luks2Header, plan: _LuksPlan, effective: EffectiveKey, number: int | None
) -> OpenedVolume:
    segment = plan.segment
    target = Segment(
        start=0,
        length=plan.length,
        target=TargetKind.CRYPT,
        backing_offset=segment.offset,
        cipher=plan.cipher.effective,
        iv_offset=Sector(segment.iv_tweak),
        key=effective.key,
    )
    key_size = get_key_size(header)
    if number is not None:
        slot = header.metadata.find_keyslot(number)
        key_size = slot.key_size if slot else key_size
    return OpenedVolume(
        table=Table((target,), segment.sector_size, plan.length, plan.read_only),
        type="luks2",
        cipher=plan.cipher.dm_name,
        key_bits=key_size * 8,
        sector_size=segment.sector_size,
        offset=segment.offset,
        iv_offset=Sector(segment.iv_tweak),
        uuid=header.binary.uuid,
        label=header.binary.label,
        subsystem=header.binary.subsystem,
        keyslot=number,
        key_origin=effective.origin,
        notes=plan.notes + effective.notes,
    )


def _in_keyslot(error: MapperError, number: int) -> MapperError:
    return type(error)(f"keyslot {number}: {error}")
