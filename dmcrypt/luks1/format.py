"""Making a new LUKS1 volume: luksFormat as a library. Overwrites without asking.

Source: LUKS1 On-Disk Format Specification 1.2.3, section 4.1; lib/luks1/keymanage.c
(LUKS_generate_phdr, LUKS_wipe_header_areas).
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Final

from ...keystore.errors import ConfigError, UnsupportedError
from ...keystore.keys import ProtectedKey
from ..backing import get_size, locked, pread_from, sync
from ..cipher_spec import CipherSpec
from ..engine.client import Engine, Secret
from ..extent import Extent
from ..format_room import measure_room
from ..key_size import choose_key_size
from ..pbkdf import SALT_SIZE, PbkdfParams, make_digest, make_kdf
from ..units import UINT32_MAX
from ..volume_uuid import make_uuid, parse_uuid
from ..wipe import grow, wipe_random, wipe_zeros
from .header import (
    DIGEST_SIZE,
    DISABLED,
    ENABLED,
    HASHES,
    KEYSLOTS,
    STRIPES,
    Keyslot,
    Luks1Header,
    read_header,
)
from .layout import AREA_ALIGNMENT, Layout, make_layout
from .update import write_header

_PBKDF2: Final = "pbkdf2"


@dataclass(frozen=True, slots=True)
class FormatParams:
    """What luksFormat was asked for; None leaves the choice to cryptsetup's rules."""

    cipher: str = "aes-xts-plain64"
    key_bits: int | None = None
    pbkdf: PbkdfParams = field(default_factory=lambda: PbkdfParams(type=_PBKDF2))
    key_slot: int = 0
    uuid: str | None = None
    offset: int | None = None  # 512-byte sectors before the data
    alignment: int | None = None  # 512-byte sectors, of the data's begin

    def __post_init__(self) -> None:
        """Raises ConfigError, UnsupportedError: what can be refused without looking at a device."""
        if self.spec.takes_secure_keys:
            raise UnsupportedError(f"cipher {self.cipher}: not with LUKS1, wanted: --type luks2")
        if self.spec.is_capi or self.spec.is_null:
            raise UnsupportedError(
                f"cipher {self.cipher}: not supported with LUKS1, whose keyslots have it, too"
            )
        choose_key_size(self.spec, self.key_bits)
        check_pbkdf(self.pbkdf)
        if not 0 <= self.key_slot < KEYSLOTS:
            raise ConfigError(f"keyslot {self.key_slot}: wanted 0 to {KEYSLOTS - 1}")
        if self.uuid is not None:
            parse_uuid(self.uuid)
        if self.offset and self.alignment:
            raise ConfigError("offset and alignment of the data: wanted one of them")
        for what, sectors in (("offset", self.offset), ("alignment", self.alignment)):
            if sectors is not None and not 0 <= sectors <= UINT32_MAX:
                raise ConfigError(f"{what} {sectors} [512-byte sectors]: wanted 0 to {UINT32_MAX}")

    @property
    def spec(self) -> CipherSpec:
        """The cipher of data and key material."""
        return CipherSpec.parse(self.cipher)

    @property
    def key_size(self) -> int:
        """Bytes of the volume key."""
        return choose_key_size(self.spec, self.key_bits)


def check_pbkdf(pbkdf: PbkdfParams) -> None:
    """Refuse what no LUKS1 keyslot can have.

    Raises:
        UnsupportedError: another KDF than PBKDF2, or a hash too short for the digest.
    """
    if pbkdf.type != _PBKDF2:
        raise UnsupportedError(f"pbkdf {pbkdf.type}: not with LUKS1, wanted {_PBKDF2}")
    if pbkdf.hash_name not in HASHES:
        raise UnsupportedError(
            f"hash {pbkdf.hash_name}: not with LUKS1, wanted one of {', '.join(HASHES)}"
        )


def plan_format(params: FormatParams, fd: int, header_fd: int | None = None) -> Layout:
    """Where everything of a new volume would lie; for a check before the user is asked anything.

    Raises:
        ConfigError: sizes that cannot be, or do not fit each other.
        AccessError: no file or device, or too small.
    """
    room = measure_room(fd, header_fd, offset=params.offset, alignment=params.alignment)
    return make_layout(room, params.key_size)


def format_volume(
    engine: Engine,
    fd: int,
    secret: Secret,
    params: FormatParams,
    *,
    header_fd: int | None = None,
    volume_key: ProtectedKey | None = None,
) -> Luks1Header:
    """Make a LUKS1 volume of ``fd``, with its header in ``header_fd`` where that is given.

    What was there before is lost, its header first: until the last step there is no LUKS header at
    all, so a crash never leaves half a volume. A regular file that is too small for the header
    grows. The volume key is random unless ``volume_key`` gives it.

    Raises:
        MapperError: as `plan_format`; the backing store refuses; the header's lock is held by
            another process; the engine failed, or has no such hash.
    """
    layout = plan_format(params, fd, header_fd)
    target = fd if header_fd is None else header_fd
    # All that can be refused is refused before the first byte is written.
    key = volume_key or engine.generate_key(params.key_size, xts=params.spec.is_xts)
    header = _make_header(engine, params, layout, key)
    with locked(target, exclusive=True):
        grow(target, _get_needed_size(target, layout, is_detached=header_fd is not None))
        _wipe(target, layout, is_detached=header_fd is not None)
        engine.create_keyslot(target, secret, key, header.make_keyslot_spec(params.key_slot))
        sync(target)
        write_header(target, header)
        return read_header(pread_from(target), get_size(target))


def _make_header(
    engine: Engine, params: FormatParams, layout: Layout, key: ProtectedKey
) -> Luks1Header:
    kdf = make_kdf(engine, params.pbkdf, params.key_size)
    digest = make_digest(engine, params.pbkdf, key, params.key_size, length=DIGEST_SIZE)
    name, mode = split_cipher(params.spec.dm_name)
    free = [Keyslot(DISABLED, 0, bytes(SALT_SIZE), area.offset, STRIPES) for area in layout.areas]
    header = Luks1Header(
        cipher_name=name,
        cipher_mode=mode,
        hash_name=params.pbkdf.hash_name,
        payload_offset=layout.payload_offset,
        key_size=params.key_size,
        digest=digest.digest,
        digest_salt=digest.salt,
        digest_iterations=digest.iterations,
        uuid=make_uuid(params.uuid),
        keyslots=tuple(free),
    )
    return header.with_keyslot(
        params.key_slot,
        Keyslot(ENABLED, kdf.iterations, kdf.salt, layout.areas[params.key_slot].offset, STRIPES),
    )


def split_cipher(text: str) -> tuple[str, str]:
    """Cipher name and mode; of the kernel's own names (``capi:``) the mode is the IV."""
    name, _, mode = text.rpartition("-") if text.startswith("capi:") else text.partition("-")
    return name, mode


def _get_needed_size(fd: int, layout: Layout, *, is_detached: bool) -> int:
    """As cryptsetup: what can grow reaches to where the data begin."""
    can_grow = stat.S_ISREG(os.fstat(fd).st_mode) and not is_detached
    return layout.payload_offset if can_grow else layout.end


def _wipe(fd: int, layout: Layout, *, is_detached: bool) -> None:
    """Zeros up to the data, then random bytes where key material will lie."""
    end = AREA_ALIGNMENT if is_detached else min(layout.payload_offset, get_size(fd))
    wipe_zeros(fd, Extent(0, end))
    for area in layout.areas:
        wipe_random(fd, area)
    sync(fd)
