"""What may be done to the keyslots of a header, of whichever LUKS it is.

Each function is that of luks1/key_change.py or edit.py, or of their namesakes of LUKS2: the type
of the header, or of the key that it gave, chooses. What they raise is said there.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..keystore.errors import ConfigError
from ..keystore.keys import ProtectedKey
from .backing import get_size, locked, pread_from
from .engine.client import Engine, Secret
from .extent import Extent
from .luks1 import Luks1Header
from .luks1 import change as change1
from .luks1 import dump as dump1
from .luks1 import edit as edit1
from .luks1 import key_change as key1
from .luks2 import Luks2Header
from .luks2 import change as change2
from .luks2 import dump as dump2
from .luks2 import edit as edit2
from .luks2 import key_change as key2
from .luks2.key_change import NewKeyslot
from .luks2.keyslot import get_area_size
from .luks_header import read_luks_header
from .old_header import Keep

AnyHeader = Luks1Header | Luks2Header
AnyUnlocked = key1.UnlockedKey | key2.UnlockedKey


def read_changeable(fd: int, kind: str = "luks") -> AnyHeader:
    """The header, if it may be changed; nothing is locked afterwards.

    Raises:
        ConfigError: it is not of the ``kind`` that was asked for.
        UnsupportedError: a requirement that we do not know forbids to write.
        NotLuksError, FormatError, BusyError: it cannot be read.
    """
    with locked(fd, exclusive=False):
        header = read_luks_header(pread_from(fd), get_size(fd), kind)
    if isinstance(header, Luks2Header):
        change2.check_writable(header)
    return header


def check_new_keyslot(header: AnyHeader, new: NewKeyslot) -> None:
    """Refuse what no keyslot of this header can be.

    Raises:
        ConfigError: names it.
    """
    if new.number is not None:
        check_keyslot_number(header, new.number)
    if isinstance(header, Luks2Header):
        return
    if new.pbkdf.type != "pbkdf2":
        raise ConfigError(f"pbkdf {new.pbkdf.type}: not with LUKS1, wanted pbkdf2")
    if new.area_cipher is not None:
        raise ConfigError("keyslot cipher: not with LUKS1, where it is that of the data")


def check_keyslot_number(header: AnyHeader, number: int) -> None:
    """Refuse a number that no keyslot can have."""
    if isinstance(header, Luks1Header):
        edit1.check_keyslot_number(number)
    else:
        edit2.check_keyslot_number(number)


def check_keyslot(header: AnyHeader, number: int) -> None:
    """Refuse a keyslot that is not there."""
    if isinstance(header, Luks1Header):
        edit1.get_keyslot(header, number)
    else:
        edit2.get_keyslot(header, number)


def is_last_keyslot(header: AnyHeader, number: int) -> bool:
    """Whether no other keyslot holds the volume key."""
    if isinstance(header, Luks1Header):
        return edit1.is_last_keyslot(header, number)
    return edit2.is_last_keyslot(header, number)


def list_bound(header: AnyHeader) -> tuple[int, ...]:
    """The keyslots that hold the volume key."""
    return header.list_keyslots() if isinstance(header, Luks1Header) else key2.list_bound(header)


def choose_keyslot(header: AnyHeader, number: int | None) -> int:
    """``number`` if it is free, or the lowest that is."""
    if isinstance(header, Luks1Header):
        return edit1.choose_keyslot(header, number)
    return edit2.choose_keyslot(header, number)


def choose_area(header: AnyHeader, number: int, size: int) -> Extent:
    """Where the key material of a new keyslot ``number`` for a key of ``size`` bytes will lie."""
    if isinstance(header, Luks1Header):
        return header.get_area(number)
    return edit2.get_free_area(header, get_area_size(size))


def has_room_to_change(header: AnyHeader, size: int) -> bool:
    """Whether old and new key material of a keyslot can be there at once."""
    if isinstance(header, Luks1Header):
        return edit1.find_free_keyslot(header) is not None
    return edit2.find_free_area(header, get_area_size(size)) is not None


def find_key_size(header: AnyHeader) -> int | None:
    """Bytes of the volume key; None where nothing tells."""
    return header.key_size if isinstance(header, Luks1Header) else key2.find_key_size(header)


def remove_keyslots(header: AnyHeader, numbers: Iterable[int]) -> AnyHeader:
    """A header without these keyslots."""
    if isinstance(header, Luks1Header):
        return edit1.remove_keyslots(header, numbers)
    return edit2.remove_keyslots(header, numbers)


def dump_text(header: AnyHeader, path: str) -> str:
    """What ``luksDump PATH`` prints."""
    if isinstance(header, Luks1Header):
        return dump1.dump_text(header, path)
    return dump2.dump_text(header)


def unlock(
    engine: Engine, header: AnyHeader, fd: int, secret: Secret, *, number: int | None = None
) -> AnyUnlocked:
    """The key that a passphrase or key file opens, of keyslot ``number`` or of any bound one."""
    if isinstance(header, Luks1Header):
        return key1.unlock(engine, header, fd, secret, number=number)
    return key2.unlock(engine, header, fd, secret, number=number)


def unlock_another(
    engine: Engine, header: AnyHeader, fd: int, secret: Secret, number: int
) -> AnyUnlocked:
    """The volume key that a passphrase opens of any other bound keyslot than ``number``."""
    if isinstance(header, Luks1Header):
        return key1.unlock_another(engine, header, fd, secret, number)
    return key2.unlock_another(engine, header, fd, secret, number)


def check_given_key(engine: Engine, header: AnyHeader, key: ProtectedKey, size: int) -> AnyUnlocked:
    """A volume key that was given, as the key of a header's data."""
    if isinstance(header, Luks1Header):
        return key1.check_given_key(engine, header, key, size)
    return key2.check_given_key(engine, header, key, size)


def add_keyslot(
    engine: Engine, fd: int, unlocked: AnyUnlocked, secret: Secret, new: NewKeyslot, keep: Keep
) -> int:
    """Add a keyslot that holds a key of this header under ``secret``; its number."""
    if isinstance(unlocked, key1.UnlockedKey):
        return key1.add_keyslot(engine, fd, unlocked, secret, new.pbkdf, new.number, keep)[1]
    return key2.add_keyslot(engine, fd, unlocked, secret, new, keep)[1]


def change_keyslot(
    engine: Engine,
    fd: int,
    unlocked: AnyUnlocked,
    secret: Secret,
    new: NewKeyslot,
    keep: Keep,
    *,
    may_overwrite: bool = False,
) -> int:
    """Have ``secret`` open what the keyslot that gave a key opened; the number of that keyslot."""
    assert unlocked.keyslot is not None
    if isinstance(unlocked, key1.UnlockedKey):
        return key1.change_keyslot(
            engine,
            fd,
            unlocked,
            secret,
            new.pbkdf,
            keep,
            keep_number=new.number is not None,
            may_overwrite=may_overwrite,
        )[1]
    key2.change_keyslot(engine, fd, unlocked, secret, new, keep, may_overwrite=may_overwrite)
    return unlocked.keyslot.id


def remove_keyslot(
    fd: int, header: AnyHeader, number: int, keep: Keep, *, is_last: bool | None = None
) -> None:
    """Wipe and forget the keyslot that ``header`` has; ``is_last`` must still hold if given.

    Raises:
        BusyError: it is another by now.
        ConfigError: it is the last one by now, or gone.
        AccessError: the backing store refuses, or the old header cannot be kept.
    """

    def check_last(now: AnyHeader) -> None:
        if is_last is not None and is_last_keyslot(now, number) != is_last:
            raise ConfigError(f"keyslot {number}: is the last one by now, and was not removed")

    if isinstance(header, Luks1Header):
        slot1 = key1.NumberedKeyslot(number, edit1.get_keyslot(header, number))

        def check1(now: Luks1Header) -> None:
            key1.check_same_keyslot(now, slot1)
            check_last(now)

        key1.remove_keyslot(fd, number, keep, check1)
        return
    slot2 = edit2.get_keyslot(header, number)

    def check2(now: Luks2Header) -> None:
        key2.check_same_keyslot(now, slot2)
        check_last(now)

    key2.remove_keyslot(fd, number, keep, check2)


def erase_keyslots(fd: int, header: AnyHeader, keep: Keep) -> tuple[int, ...]:
    """Wipe and forget every keyslot that holds the volume key; their numbers."""
    if isinstance(header, Luks1Header):
        return key1.erase_keyslots(fd, keep)[1]
    return key2.erase_keyslots(fd, keep)[1]


def set_uuid(
    fd: int, header: AnyHeader, uuid: str, keep: Keep, *, dry_run: bool
) -> tuple[AnyHeader, AnyHeader]:
    """Give a header another UUID; the one before and the one after."""
    if isinstance(header, Luks1Header):
        return change1.edit_header(fd, lambda h: edit1.set_uuid(h, uuid), keep, dry_run=dry_run)
    return change2.edit_header(fd, lambda h: edit2.set_uuid(h, uuid), keep, dry_run=dry_run)
