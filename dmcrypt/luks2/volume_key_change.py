"""Another volume key in a LUKS2 header on disk: staged, activated, cancelled, or put in at once.

The order of writes is that of key_change.py: new key material into areas that nothing refers to,
durable; then one header; then random bytes over what is refered to no more. So at any moment the
header is the old or the new one, and every keyslot of either opens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...keystore.errors import BusyError, ConfigError
from ...keystore.keys import ProtectedKey, SecureKey
from ..backing import sync
from ..engine.client import Engine, Secret
from ..engine.messages import DigestSpec, KeyslotSpec
from ..extent import Extent
from ..old_header import Keep
from ..pbkdf import SALT_SIZE
from . import digest as digests
from . import edit, volume_key
from .change import Change, changing, read_locked
from .key_change import check_same_keyslot, list_bound
from .keyslot import STRIPES, get_area_size, make_spec
from .model import Keyslot
from .recovery import Luks2Header


@dataclass(frozen=True, slots=True)
class OpenKeyslot:
    """A keyslot, and the passphrase that opens it."""

    keyslot: Keyslot
    secret: Secret


@dataclass(frozen=True, slots=True)
class NewVolumeKey:
    """The secure key that is to become the volume key."""

    key: ProtectedKey  # its tokens, as the engine holds them
    size: int  # bytes
    pattern: str  # of the effective key: 64 hexadecimal digits


def load_secure_key(engine: Engine, key: SecureKey, pattern: str) -> NewVolumeKey:
    """A secure key, which is no secret, as a volume key of the engine's."""
    fd = os.memfd_create("secure-key", os.MFD_CLOEXEC)
    try:
        os.pwrite(fd, key.token, 0)
        return NewVolumeKey(engine.load_key(fd, key.size, xts=False), key.size, pattern)
    finally:
        os.close(fd)


def stage(
    engine: Engine, fd: int, slots: Sequence[OpenKeyslot], new: NewVolumeKey, keep: Keep
) -> Luks2Header:
    """Let a volume key wait, in an unbound keyslot for each of ``slots``; what waited goes.

    Raises:
        ConfigError: no number, area, or room in the JSON area is free.
        BusyError: the header was changed in the meantime.
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    digest = _make_digest(engine, fd, new)
    with changing(fd, keep) as change:
        _check_same(change.header, slots)
        pending = volume_key.find_pending(change.header.metadata)
        old = _get_areas(change.header, [each.unbound for each in pending])
        base = volume_key.remove_waiting(change.header, pending)
        specs = _plan(base, slots, new.size, besides=old)
        edited = volume_key.add_waiting(base, specs, digest, new.pattern)
        edited = volume_key.set_pattern(edited, new.pattern)
        _write_materials(engine, change, slots, new, specs)
        header = change.write(edited)
        _wipe(change, old)
        return header


def activate(fd: int, keep: Keep, check: Callable[[Luks2Header], None]) -> Luks2Header:
    """Make the volume key that waits that of the data; ``check`` may refuse, under the lock.

    Raises:
        MapperError: what ``check`` raises; as `stage`.
    """
    with changing(fd, keep) as change:
        check(change.header)
        pending = volume_key.find_pending(change.header.metadata)
        old = _get_bound_areas(change.header)
        edited = volume_key.activate_waiting(change.header, pending)
        edited = volume_key.set_pattern(edited, pending[0].pattern)
        header = change.write(edited)
        _wipe(change, old)
        return header


def cancel(fd: int, keep: Keep) -> Luks2Header:
    """Forget the volume key that waits.

    Raises:
        MapperError: as `stage`.
    """
    with changing(fd, keep) as change:
        pending = volume_key.find_pending(change.header.metadata)
        if not pending:
            return change.header
        old = _get_areas(change.header, [each.unbound for each in pending])
        header = change.write(volume_key.remove_waiting(change.header, pending))
        _wipe(change, old)
        return header


def replace_key(
    engine: Engine,
    fd: int,
    slots: Sequence[OpenKeyslot],
    new: NewVolumeKey,
    keep: Keep,
    *,
    encryption: str | None = None,
) -> Luks2Header:
    """Put a volume key in at once, in keyslots of the same numbers; bound ones besides go.

    ``encryption`` is the data's cipher from now on, if that changes, too.

    Raises:
        MapperError: as `stage`.
    """
    digest = _make_digest(engine, fd, new)
    with changing(fd, keep) as change:
        _check_same(change.header, slots)
        pending = volume_key.find_pending(change.header.metadata)
        waiting = _get_areas(change.header, [each.unbound for each in pending])
        old = [*_get_bound_areas(change.header), *waiting]
        base = volume_key.remove_waiting(change.header, pending)
        specs = _plan(base, slots, new.size, besides=waiting)
        edited = volume_key.replace_volume_key(base, specs, digest, encryption=encryption)
        edited = volume_key.set_pattern(edited, new.pattern)
        _write_materials(engine, change, slots, new, specs)
        header = change.write(edited)
        _wipe(change, old)
        return header


def _plan(
    header: Luks2Header, slots: Sequence[OpenKeyslot], size: int, besides: Sequence[Extent]
) -> dict[int, KeyslotSpec]:
    """A new keyslot for each: the same costs and cipher, another salt, a free area."""
    specs: dict[int, KeyslotSpec] = {}
    taken = list(besides)
    length = get_area_size(size)
    for slot in slots:
        area = edit.find_free_area(header, length, besides=taken)
        if area is None:
            raise ConfigError(
                f"no space for {len(slots)} new keyslots of {length} bytes beside the old ones; "
                "luksKillSlot frees some"
            )
        taken.append(area)
        old = make_spec(slot.keyslot)
        specs[slot.keyslot.id] = replace(
            old,
            key_size=size,
            stripes=STRIPES,
            area_offset=area.offset,
            area_length=length,
            kdf=replace(old.kdf, salt=os.urandom(SALT_SIZE)),
        )
    return specs


def _make_digest(engine: Engine, fd: int, new: NewVolumeKey) -> DigestSpec:
    """As costly as the present one."""
    present = digests.make_spec(digests.get_digest(read_locked(fd).metadata, 0))
    blank = replace(present, salt=os.urandom(SALT_SIZE), digest=b"")
    return replace(blank, digest=engine.make_digest(new.key, blank))


def _write_materials(
    engine: Engine,
    change: Change,
    slots: Sequence[OpenKeyslot],
    new: NewVolumeKey,
    specs: Mapping[int, KeyslotSpec],
) -> None:
    """Durable before any header tells of it."""
    change.begin()
    for slot in slots:
        engine.create_keyslot(change.fd, slot.secret, new.key, specs[slot.keyslot.id])
    sync(change.fd)


def _check_same(header: Luks2Header, slots: Sequence[OpenKeyslot]) -> None:
    bound = {slot.keyslot.id for slot in slots}
    if not bound <= set(list_bound(header)):
        raise BusyError("header: was changed in the meantime by somebody else")
    for slot in slots:
        check_same_keyslot(header, slot.keyslot)


def _get_areas(header: Luks2Header, numbers: Sequence[int]) -> list[Extent]:
    return [edit.get_keyslot(header, number).area.extent for number in numbers]


def _get_bound_areas(header: Luks2Header) -> list[Extent]:
    return _get_areas(header, list_bound(header))


def _wipe(change: Change, extents: Sequence[Extent]) -> None:
    for extent in extents:
        change.wipe(extent)
