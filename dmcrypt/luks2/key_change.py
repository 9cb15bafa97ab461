"""Adding, changing and removing keyslots of a LUKS2 header on disk.

The order of writes: new key material into an area that nothing refers to, durable; then the header
that refers to it; then random bytes over what is refered to no more. A removed keyslot's material
is wiped first, as the real tool does: after a cut one can remove it again, which a header that no
longer names its area would not allow.

Source: lib/setup.c (crypt_keyslot_change_by_passphrase, crypt_keyslot_destroy),
lib/luks2/luks2_keyslot.c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...keystore.errors import BusyError, ConfigError, UnsupportedError
from ...keystore.keys import ProtectedKey
from ..backing import sync
from ..engine.client import Engine, Secret
from ..engine.messages import Kdf, KeyslotSpec
from ..extent import Extent
from ..old_header import Keep
from ..pbkdf import PbkdfParams, make_digest, make_kdf
from ..unlock import check_volume_key, try_keyslots
from . import digest as digests
from . import edit, keyslot
from .change import Change, changing, check_writable, read_locked
from .model import Digest, Keyslot, Metadata
from .recovery import Luks2Header

#: Refuses by raising, of the header as it is under the lock.
Check = Callable[[Luks2Header], None]


@dataclass(frozen=True, slots=True)
class NewKeyslot:
    """What a new keyslot shall be; None leaves the choice to cryptsetup's rules."""

    pbkdf: PbkdfParams
    number: int | None = None
    area_cipher: str | None = None
    area_key_size: int | None = None  # bytes; given with the cipher


@dataclass(frozen=True, slots=True)
class UnlockedKey:
    """A key of a header: that of its data, or that of an unbound keyslot."""

    key: ProtectedKey
    size: int  # bytes
    digest: Digest
    keyslot: Keyslot | None = None  # that gave it; None: it was given


def unlock(
    engine: Engine,
    header: Luks2Header,
    fd: int,
    secret: Secret,
    *,
    number: int | None = None,
    with_unbound: bool = False,
) -> UnlockedKey:
    """The key that a passphrase or key file opens, of keyslot ``number`` or of any bound one.

    ``with_unbound`` tries those as well that hold another key than that of the data.

    Raises:
        ConfigError: there is no keyslot to try.
        NoKeyError: none opens with this secret.
        UnsupportedError, FormatError, EngineMemoryError: what a keyslot is that was to be tried.
    """
    if number is not None:
        return _unlock_one_of(engine, header, fd, secret, [edit.get_keyslot(header, number)])
    slots = _list_usable(header.metadata, with_unbound=with_unbound)
    if not slots:
        raise ConfigError("no usable keyslot is available")
    return _unlock_one_of(engine, header, fd, secret, slots)


def unlock_another(
    engine: Engine, header: Luks2Header, fd: int, secret: Secret, number: int
) -> UnlockedKey:
    """The volume key that a passphrase opens of any other bound keyslot than ``number``.

    Those of priority ``ignore`` count, too. If ``number`` is the last one, that is the one tried.

    Raises:
        NoKeyError: none opens with this secret.
        UnsupportedError, FormatError, EngineMemoryError: what a keyslot is that was to be tried.
    """
    bound = keyslot.find_bound(header.metadata, 0)
    tried = (bound - {number}) or bound
    slots = [slot for slot in header.metadata.keyslots if slot.id in tried]
    return _unlock_one_of(engine, header, fd, secret, slots)


def check_given_key(
    engine: Engine, header: Luks2Header, key: ProtectedKey, size: int
) -> UnlockedKey:
    """A volume key that was given, as the key of a header's data.

    Raises:
        DigestMismatchError: it is not.
    """
    digest = digests.get_digest(header.metadata, 0)
    check_volume_key(engine, key, digests.make_spec(digest))
    return UnlockedKey(key, size, digest)


def find_key_size(header: Luks2Header) -> int | None:
    """Bytes of the volume key, as a keyslot says; None without any."""
    bound = keyslot.find_bound(header.metadata, 0)
    return next((slot.key_size for slot in header.metadata.keyslots if slot.id in bound), None)


def add_keyslot(
    engine: Engine,
    fd: int,
    unlocked: UnlockedKey,
    secret: Secret,
    new: NewKeyslot,
    keep: Keep,
) -> tuple[Luks2Header, int]:
    """Add a keyslot that holds a key of this header under ``secret``; header and number.

    Raises:
        ConfigError: no number, area or room in the JSON area is free.
        BusyError: the header was changed in the meantime.
        UnsupportedError, EngineMemoryError: what of the new keyslot the engine cannot do.
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    kdf = make_kdf(engine, new.pbkdf, unlocked.size)
    with changing(fd, keep) as change:
        _check_same_digest(change.header, unlocked.digest)
        number = edit.choose_keyslot(change.header, new.number)
        spec = plan_keyslot(change.header, unlocked.size, new, kdf)
        edited = edit.add_keyslot(change.header, number, spec, unlocked.digest.id)
        _write_material(engine, change, secret, unlocked.key, spec)
        return change.write(edited), number


def add_unbound_keyslot(
    engine: Engine,
    fd: int,
    key: ProtectedKey,
    size: int,
    secret: Secret,
    new: NewKeyslot,
    keep: Keep,
) -> tuple[Luks2Header, int]:
    """Add a keyslot that holds another key, of ``size`` bytes, than that of the data.

    Raises:
        MapperError: as `add_keyslot`.
    """
    kdf = make_kdf(engine, new.pbkdf, size)
    digest = make_digest(engine, new.pbkdf, key, size)
    with changing(fd, keep) as change:
        number = edit.choose_keyslot(change.header, new.number)
        spec = plan_keyslot(change.header, size, new, kdf)
        edited = edit.add_keyslot(change.header, number, spec, digest)
        _write_material(engine, change, secret, key, spec)
        return change.write(edited), number


def change_keyslot(
    engine: Engine,
    fd: int,
    unlocked: UnlockedKey,
    secret: Secret,
    new: NewKeyslot,
    keep: Keep,
    *,
    may_overwrite: bool = False,
) -> Luks2Header:
    """Have the keyslot that gave a key hold it under ``secret``, with new costs.

    With ``may_overwrite`` the old key material is overwritten in place where the keyslots area has
    no room for both; a cut then leaves neither, but for what ``keep`` made of the old header.

    Raises:
        MapperError: as `add_keyslot`.
    """
    assert unlocked.keyslot is not None
    number = unlocked.keyslot.id
    kdf = make_kdf(engine, new.pbkdf, unlocked.size)
    with changing(fd, keep) as change:
        old = _get_same_keyslot(change.header, unlocked.keyslot)
        try:
            spec = plan_keyslot(change.header, unlocked.size, new, kdf)
        except ConfigError:
            if not may_overwrite or old.area.extent.length < keyslot.get_area_size(unlocked.size):
                raise
            spec = _make_spec(change.header, unlocked.size, new, kdf, old.area.extent)
        edited = edit.replace_keyslot(change.header, number, spec)
        _write_material(engine, change, secret, unlocked.key, spec)
        header = change.write(edited)
        area = Extent(spec.area_offset, spec.area_length)
        if not area.overlaps(old.area.extent):
            change.wipe(old.area.extent)
        return header


def remove_keyslot(
    fd: int,
    number: int,
    keep: Keep,
    check: Check,
) -> Luks2Header:
    """Wipe a keyslot and forget it. ``check`` may refuse, of the header as it is under the lock.

    Raises:
        ConfigError: there is no such keyslot.
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    with changing(fd, keep) as change:
        slot = edit.get_keyslot(change.header, number)
        check(change.header)
        edited = edit.remove_keyslots(change.header, [number])
        change.wipe(slot.area.extent)
        return change.write(edited)


def erase_keyslots(fd: int, keep: Keep) -> tuple[Luks2Header, tuple[int, ...]]:
    """Wipe and forget every keyslot that holds the volume key; header and their numbers.

    Unbound keyslots stay, as with the real tool.

    Raises:
        AccessError: the backing store refuses, or the old header cannot be kept.
    """
    with changing(fd, keep) as change:
        numbers = list_bound(change.header)
        if not numbers:
            return change.header, ()
        edited = edit.remove_keyslots(change.header, numbers)
        for number in numbers:
            change.wipe(edit.get_keyslot(change.header, number).area.extent)
        return change.write(edited), numbers


def list_bound(header: Luks2Header) -> tuple[int, ...]:
    """The keyslots that hold the volume key."""
    return tuple(sorted(keyslot.find_bound(header.metadata, 0)))


def check_same_keyslot(header: Luks2Header, old: Keyslot) -> None:
    """Refuse when a keyslot is no longer the one that a passphrase was tried on.

    Raises:
        BusyError: it is another, or gone.
    """
    _get_same_keyslot(header, old)


def plan_keyslot(header: Luks2Header, size: int, new: NewKeyslot, kdf: Kdf) -> KeyslotSpec:
    """Where and how a new keyslot for a key of ``size`` bytes would lie.

    Raises:
        ConfigError: there is no room for it.
    """
    area = edit.get_free_area(header, keyslot.get_area_size(size))
    return _make_spec(header, size, new, kdf, area)


def check_changeable(fd: int) -> Luks2Header:
    """The header, if it may be changed; nothing is locked afterwards.

    Raises:
        UnsupportedError: LUKS1, or a requirement that we do not know forbids to write.
        NotLuksError, FormatError, BusyError: as `read_locked`.
    """
    header = read_locked(fd)
    check_writable(header)
    return header


def _make_spec(
    header: Luks2Header, size: int, new: NewKeyslot, kdf: Kdf, area: Extent
) -> KeyslotSpec:
    cipher, key_size = _choose_area_cipher(header, size, new)
    return KeyslotSpec(
        key_size=size,
        stripes=keyslot.STRIPES,
        af_hash=new.pbkdf.hash_name,
        area_offset=area.offset,
        area_length=keyslot.get_area_size(size),
        area_cipher=cipher,
        area_key_size=key_size,
        kdf=kdf,
    )


def _choose_area_cipher(header: Luks2Header, size: int, new: NewKeyslot) -> tuple[str, int]:
    if new.area_cipher is not None and new.area_key_size is not None:
        return new.area_cipher, new.area_key_size
    segment = header.metadata.regular_segments[0]
    encryption = segment.encryption if segment.integrity is None else None
    return keyslot.choose_area_cipher(encryption or "", find_key_size(header) or size)


def _unlock_one_of(
    engine: Engine, header: Luks2Header, fd: int, secret: Secret, slots: list[Keyslot]
) -> UnlockedKey:
    numbered = {slot.id: slot for slot in slots}

    def open_keyslot(number: int) -> ProtectedKey:
        _check_type(numbered[number])
        spec = keyslot.make_spec(numbered[number])
        digest = digests.make_spec(edit.get_digest_of(header, number))
        return engine.open_keyslot(fd, secret, spec, digest)

    key, number = try_keyslots(numbered, open_keyslot)
    slot = numbered[number]
    return UnlockedKey(key, slot.key_size, edit.get_digest_of(header, number), slot)


def _list_usable(metadata: Metadata, *, with_unbound: bool) -> list[Keyslot]:
    """The keyslots of the data's key, or all, in the order to try them."""
    bound = keyslot.find_bound(metadata, 0)
    slots = [slot for slot in metadata.keyslots if with_unbound or slot.id in bound]
    preferred = [slot for slot in slots if slot.priority == keyslot.PRIORITY_PREFER]
    return preferred + [slot for slot in slots if slot.priority == keyslot.PRIORITY_NORMAL]


def _check_type(slot: Keyslot) -> None:
    if slot.type != "luks2":
        raise UnsupportedError(f"type {slot.type} is not supported, wanted luks2")


def _write_material(
    engine: Engine, change: Change, secret: Secret, key: ProtectedKey, spec: KeyslotSpec
) -> None:
    """Durable before any header tells of it."""
    change.begin()
    engine.create_keyslot(change.fd, secret, key, spec)
    sync(change.fd)


def _check_same_digest(header: Luks2Header, digest: Digest) -> None:
    now = next((each for each in header.metadata.digests if each.id == digest.id), None)
    if now is None or _without_keyslots(now) != _without_keyslots(digest):
        raise BusyError("header: was changed in the meantime; the key is no longer that of it")


def _without_keyslots(digest: Digest) -> Digest:
    return replace(digest, keyslots=())


def _get_same_keyslot(header: Luks2Header, old: Keyslot) -> Keyslot:
    now = header.metadata.find_keyslot(old.id)
    # The salt of a keyslot is random: the same one means the same passphrase and key.
    if now is None or (now.kdf, now.area) != (old.kdf, old.area):
        raise BusyError(f"keyslot {old.id}: was changed in the meantime by somebody else")
    return now
