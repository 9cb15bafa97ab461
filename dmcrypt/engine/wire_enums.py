"""The enumerations of the messages between daemon and engine, named as in src/wire.h."""

from __future__ import annotations

from enum import IntEnum


class MessageType(IntEnum):
    """``enum wire_type``."""

    HELLO = 1
    ADD_DEVICE = 2
    LOAD_TABLE = 3
    REMOVE_DEVICE = 4
    SUSPEND = 5
    RESUME = 6
    REKEY = 7
    FLUSH = 8
    INVALIDATE = 9
    LOAD_SECRET = 10
    DROP_SECRET = 11
    OPEN_KEYSLOT = 12
    CREATE_KEYSLOT = 13
    GENERATE_KEY = 14
    LOAD_KEY = 15
    PLAIN_KEY = 16
    MAKE_DIGEST = 17
    BENCHMARK_KDF = 18
    IMPORT_KEY = 19
    STATUS = 20
    SHUTDOWN = 21
    EXPORT_KEY = 22
    MAKE_PKEY = 23
    WRITE_KEY = 24
    RESIZE = 30
    BENCHMARK_CIPHER = 31
    READ = 32
    REFRESH = 33
    LOOPAES_KEY = 40
    TABLE_KEY = 41
    SHOW_KEY = 42
    RSA_KEY = 50
    FORGET_KEY = 51
    RENEW_KEY = 52
    DENY_KEY = 53
    BUMP_SESSION = 54
    EVENT = 100


class EventKind(IntEnum):
    """``enum wire_event_kind``."""

    UNMOUNTED = 1
    KEY_WANTED = 2


class ArenaKind(IntEnum):
    """What key memory is made of: ``enum wire_arena``."""

    MEMFD_SECRET = 1
    MLOCK = 2


class SecretMode(IntEnum):
    """How a secret ends: at the first newline, or where the file or the wanted size does."""

    LINE = 1
    ALL = 2


class KeyForm(IntEnum):
    """How a clear key is written: ``enum wire_key_form``."""

    RAW = 1
    TEXT = 2  # as luksDump prints it


class KeyKind(IntEnum):
    """What a volume key turned out to be: ``enum wire_key_kind``."""

    CLEAR = 1
    SECURE = 2
    PROTECTED = 3
    FRAGMENT = 4


class PkeyType(IntEnum):
    """Protected key tokens of IBM Z's layout: ``enum session_key_type``."""

    AES_128 = 1
    AES_192 = 2
    AES_256 = 3
    AES_XTS_128 = 10
    AES_XTS_256 = 11


class KdfType(IntEnum):
    """``enum wire_kdf_type``."""

    PBKDF2 = 1
    ARGON2I = 2
    ARGON2ID = 3


class TargetKind(IntEnum):
    """What a segment does with its sectors: ``enum wire_target``."""

    CRYPT = 1
    LINEAR = 2
    ZERO = 3
    ERROR = 4
