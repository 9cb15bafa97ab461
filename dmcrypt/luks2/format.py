"""Making a new LUKS2 volume: luksFormat as a library. Overwrites without asking.

Source: LUKS2 On-Disk Format Specification 1.1.4; lib/setup.c (_crypt_format_luks2),
lib/luks2/luks2_json_format.c; the defaults are those of cryptsetup 2.6.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...keystore.errors import ConfigError, PolicyError
from ...keystore.keys import ProtectedKey, SecureKey
from ..backing import get_size, locked, pread_from, sync
from ..cipher_spec import CipherSpec
from ..engine.client import Engine, Secret
from ..engine.messages import KeyKind, KeyslotSpec
from ..extent import Extent
from ..format_room import measure_room
from ..key_size import choose_key_size
from ..pbkdf import PbkdfParams, make_digest, make_kdf
from ..volume_uuid import make_uuid, parse_uuid
from ..wipe import grow, wipe_random, wipe_zeros
from .binhdr import BINHDR_SIZE, BinaryHeader, check_label
from .json_objects import make_root
from .keyslot import KEYSLOTS_MAX, STRIPES, choose_area_cipher, get_area_size
from .layout import Layout, make_layout
from .recovery import Luks2Header, read_header
from .update import write_header


@dataclass(frozen=True, slots=True)
class FormatParams:
    """What luksFormat was asked for; None leaves the choice to cryptsetup's rules."""

    cipher: str = "aes-xts-plain64"
    key_bits: int | None = None
    sector_size: int | None = None
    pbkdf: PbkdfParams = field(default_factory=PbkdfParams)
    key_slot: int = 0
    uuid: str | None = None
    label: str = ""
    subsystem: str = ""
    offset: int | None = None  # 512-byte sectors before the data
    alignment: int | None = None  # 512-byte sectors, of the data's begin
    metadata_size: int | None = None  # bytes of one header copy
    keyslots_size: int | None = None  # bytes of the keyslots area
    area_cipher: str | None = None  # of the keyslot's key material
    area_key_bits: int | None = None  # given with the cipher

    def __post_init__(self) -> None:
        """Raises ConfigError, UnsupportedError: what can be refused without looking at a device."""
        choose_key_size(self.spec, self.key_bits)
        if not 0 <= self.key_slot < KEYSLOTS_MAX:
            raise ConfigError(f"keyslot {self.key_slot}: wanted 0 to {KEYSLOTS_MAX - 1}")
        check_label("label", self.label)
        check_label("subsystem", self.subsystem)
        if self.uuid is not None:
            parse_uuid(self.uuid)
        self._check_area_cipher()
        if self.offset and self.alignment:
            raise ConfigError("offset and alignment of the data: wanted one of them")
        for what, sectors in (("offset", self.offset), ("alignment", self.alignment)):
            if sectors is not None and sectors < 0:
                raise ConfigError(f"{what} {sectors}: wanted 0 or more")

    def _check_area_cipher(self) -> None:
        if (self.area_cipher is None) != (self.area_key_bits is None):
            raise ConfigError("keyslot cipher and its key size: wanted both, or none")
        if self.area_cipher is None or self.area_key_bits is None:
            return
        spec = CipherSpec.parse(self.area_cipher)
        if not spec.is_keyslot_cipher:
            raise ConfigError(f"keyslot cipher {self.area_cipher}: not for key material")
        if self.area_key_bits % 8:
            raise ConfigError(f"key size {self.area_key_bits}: not a multiple of 8 bits")
        spec.check_key_size(self.area_key_bits // 8)

    @property
    def spec(self) -> CipherSpec:
        """The data's cipher."""
        return CipherSpec.parse(self.cipher)

    @property
    def key_size(self) -> int:
        """Bytes of the volume key."""
        return choose_key_size(self.spec, self.key_bits)


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
    room = measure_room(fd, header_fd, offset=params.offset, alignment=params.alignment)
    return make_layout(
        room,
        params.key_size,
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
    digest = make_digest(engine, params.pbkdf, key, params.key_size)
    with locked(target, exclusive=True):
        grow(target, layout.keyslots.end)
        _wipe(target, layout, is_detached=header_fd is not None)
        engine.create_keyslot(target, secret, key, slot)
        sync(target)
        binary = BinaryHeader.make_first(
            layout.hdr_size,
            make_uuid(params.uuid),
            label=params.label,
            subsystem=params.subsystem,
        )
        root = make_root(
            keyslots={params.key_slot: slot},
            digest=digest,
            encryption=params.spec.dm_name,
            data_offset=layout.data_offset,
            sector_size=layout.sector_size,
            json_size=binary.json_size,
            keyslots_size=layout.keyslots_size,
        )
        write_header(target, binary, root)
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


def _make_keyslot(engine: Engine, params: FormatParams, layout: Layout) -> KeyslotSpec:
    pbkdf = params.pbkdf
    cipher, key_size = choose_area_cipher(params.spec.dm_name, params.key_size)
    if params.area_cipher is not None and params.area_key_bits is not None:
        cipher, key_size = params.area_cipher, params.area_key_bits // 8
    return KeyslotSpec(
        key_size=params.key_size,
        stripes=STRIPES,
        af_hash=pbkdf.hash_name,
        area_offset=layout.keyslots.offset,
        area_length=get_area_size(params.key_size),
        area_cipher=cipher,
        area_key_size=key_size,
        kdf=make_kdf(engine, pbkdf, params.key_size),
    )


def _wipe(fd: int, layout: Layout, *, is_detached: bool) -> None:
    """Zeros up to the data, then random bytes where key material will lie."""
    area = layout.keyslots
    end = BINHDR_SIZE if is_detached else min(layout.data_offset, get_size(fd))
    wipe_zeros(fd, Extent(0, end))
    wipe_random(fd, area)
    if is_detached:
        # A former secondary header would be found as long as the primary is void.
        wipe_zeros(fd, Extent(BINHDR_SIZE, area.offset - BINHDR_SIZE))
    sync(fd)
