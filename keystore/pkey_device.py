"""IBM Z's ``/dev/pkey``: its requests as functions. The ioctl itself is handed in.

Source: linux/arch/s390/include/uapi/asm/pkey.h (structures, numbers, what each request does) and
include/uapi/asm-generic/ioctl.h. The structures are those of 64 bits, big-endian as the only
machine that has the device: padding stands where its compiler puts it. A request for several APQNs
is always made for one here, so that it is known who did the work.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from types import TracebackType
from typing import Final, NamedTuple, Self

from .clear_bytes import wipe, wiped
from .coprocessor import Apqn
from .errors import AccessError, CoprocessorError, UnsupportedError

PATH: Final = "/dev/pkey"


class PkeyType(IntEnum):
    """Kinds of key, as the device numbers them."""

    CCA_DATA = 1
    CCA_CIPHER = 2
    EP11 = 3  # the header lies over the session field
    EP11_AES = 6  # the header stands before the blob


class Match(IntFlag):
    """With which register of an adapter a key's master key is compared."""

    CURRENT = 2
    ALTERNATE = 4  # OLD


class _Request(NamedTuple):
    number: int
    layout: struct.Struct


#: apqns*, entries, type, size, flags, key*, keylen
GENSECK2: Final = _Request(0x11, struct.Struct(">QIIIIQI4x"))
#: apqns*, entries, type, size, flags, clear key, key*, keylen
CLR2SECK2: Final = _Request(0x12, struct.Struct(">QIIII32sQI4x"))
#: key*, keylen, card, domain, type, size, flags
VERIFYKEY2: Final = _Request(0x17, struct.Struct(">QIHHIII4x"))
#: key*, keylen, flags, apqns*, entries
APQNS4K: Final = _Request(0x1B, struct.Struct(">QIIQI4x"))
#: type, current MKVP, alternate MKVP, flags, apqns*, entries
APQNS4KT: Final = _Request(0x1C, struct.Struct(">I32s32sIQI4x"))
#: key*, keylen, apqns*, entries, protected key's type, its room, protected key*
KBLOB2PROTK3: Final = _Request(0x1D, struct.Struct(">QI4xQIII4xQ"))
_APQN: Final = struct.Struct(">HH")
_READ_AND_WRITE: Final = 3
_MAGIC: Final = ord("p")
_CLEAR_KEY_OFFSET: Final = 24  # in CLR2SECK2
_CLEAR_KEY_SIZE: Final = 32
_CLR2SECK2_SIZE: Final = struct.Struct(">64xI")
_KEY_MAX: Final = 1024  # bytes; no key is as long
_PROTECTED_KEY_MAX: Final = 256
#: What stands behind a protected key: the pattern of the key of the machine that wraps it.
_WRAPPING_KEY_PATTERN_SIZE: Final = 32
_TRIES: Final = 3  # of a list that grows between the question how long it is and its reading

#: What the device is asked with: descriptor, request, the structure, which it changes.
Ioctl = Callable[[int, int, bytearray], None]


@dataclass(frozen=True, slots=True)
class Verified:
    """What the device says of a key that an adapter can use."""

    type: int
    clear_bits: int | None  # None: unknown
    match: Match


@dataclass(frozen=True, slots=True)
class Protectable:
    """What the protected key was that a secure key became."""

    type: int
    clear_bits: int


def make_number(request: _Request) -> int:
    """The request as ioctl takes it."""
    return _READ_AND_WRITE << 30 | request.layout.size << 16 | _MAGIC << 8 | request.number


def call_ioctl(fd: int, request: int, content: bytearray) -> None:
    """The real one; fcntl.ioctl would leave copies of a clear key behind.

    Raises:
        OSError: as the device says.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_char * len(content)).from_buffer(content)
    if libc.ioctl(ctypes.c_int(fd), ctypes.c_ulong(request), ctypes.byref(buffer)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class PkeyDevice:
    """The open device; each method is one question."""

    def __init__(self, path: str = PATH, ioctl: Ioctl = call_ioctl) -> None:
        """Raises AccessError: it cannot be opened."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise AccessError(f"{path}: {error.strerror}") from None
        self._path = path
        self._ioctl = ioctl

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def generate(self, apqn: Apqn, key_type: PkeyType, bits: int, flags: int = 0) -> bytes:
        """A random key under the CURRENT master key of ``apqn``, without its file's padding.

        ``flags``: which exports a CCA-AESCIPHER key allows: bits of key-management field 1 that are
        set (high byte) and cleared (low byte) in what it has without. Of an EP11 key: all of its
        attributes, or 0 for the usual ones.

        Raises:
            CoprocessorError: the adapter does not answer, or cannot.
            UnsupportedError: the kernel does not know such keys.
        """
        apqns, key = _pack_apqns(apqn), bytearray(_KEY_MAX)
        content = bytearray(
            GENSECK2.layout.pack(_address(apqns), 1, key_type, bits, flags, _address(key), len(key))
        )
        self._ask(GENSECK2, content, f"generate a key on {apqn}")
        size: int = GENSECK2.layout.unpack(content)[-1]
        return self._take_key(key, size)

    def import_clear(
        self, apqn: Apqn, key_type: PkeyType, clear: bytearray, flags: int = 0
    ) -> bytes:
        """The caller's clear key of 16, 24 or 32 bytes as a secure key; the caller wipes it.

        Raises:
            CoprocessorError, UnsupportedError: as `generate`.
        """
        apqns, key = _pack_apqns(apqn), bytearray(_KEY_MAX)
        bits = len(clear) * 8
        with wiped(
            bytearray(
                CLR2SECK2.layout.pack(
                    _address(apqns), 1, key_type, bits, flags, b"", _address(key), len(key)
                )
            )
        ) as content:
            assert len(clear) <= _CLEAR_KEY_SIZE
            content[_CLEAR_KEY_OFFSET : _CLEAR_KEY_OFFSET + len(clear)] = clear
            self._ask(CLR2SECK2, content, f"import a clear key on {apqn}")
            size: int = _CLR2SECK2_SIZE.unpack_from(content)[0]  # and no copy of the clear key
        return self._take_key(key, size)

    def verify(self, apqn: Apqn, token: bytes) -> Verified | None:
        """What a key is that this adapter can use; None: it cannot, or has not its master key.

        Raises:
            CoprocessorError: the device failed.
            UnsupportedError: the kernel does not know such keys.
        """
        key = bytearray(token)
        content = bytearray(
            VERIFYKEY2.layout.pack(_address(key), len(key), apqn.card, apqn.domain, 0, 0, 0)
        )
        if not self._ask(VERIFYKEY2, content, f"verify a key on {apqn}", may_lack=True):
            return None
        _, _, _, _, kind, bits, flags = VERIFYKEY2.layout.unpack(content)
        return Verified(kind, bits if bits in (128, 192, 256) else None, Match(flags))

    def list_for_key(self, token: bytes, match: Match) -> tuple[Apqn, ...]:
        """The adapters that have the key's master key in these registers.

        Raises:
            CoprocessorError: the device failed.
            UnsupportedError: the kernel does not know such keys.
        """
        key = bytearray(token)

        def pack(address: int, count: int) -> bytes:
            return APQNS4K.layout.pack(_address(key), len(key), match, address, count)

        return self._list(APQNS4K, pack)

    def list_for_type(self, key_type: PkeyType, mkvp: bytes | None = None) -> tuple[Apqn, ...]:
        """The adapters that have keys of this type, with this CURRENT master key if one is told.

        Raises:
            CoprocessorError: the device failed.
            UnsupportedError: the kernel does not know such keys.
        """
        match = Match(0) if mkvp is None else Match.CURRENT

        def pack(address: int, count: int) -> bytes:
            return APQNS4KT.layout.pack(key_type, mkvp or b"", b"", match, address, count)

        return self._list(APQNS4KT, pack)

    def try_protecting(self, apqn: Apqn, token: bytes) -> Protectable:
        """That the key becomes a protected key, which is thrown away.

        Raises:
            CoprocessorError: it does not: the token forbids it, or the adapter is away.
            UnsupportedError: the kernel does not know such keys.
        """
        key, apqns = bytearray(token), _pack_apqns(apqn)
        protected = bytearray(_PROTECTED_KEY_MAX)
        try:
            content = bytearray(
                KBLOB2PROTK3.layout.pack(
                    *(_address(key), len(key), _address(apqns), 1, 0),
                    *(len(protected), _address(protected)),
                )
            )
            self._ask(KBLOB2PROTK3, content, f"make a protected key on {apqn}")
            _, _, _, _, kind, size, _ = KBLOB2PROTK3.layout.unpack(content)
        finally:
            wipe(protected)
        return Protectable(kind, (size - _WRAPPING_KEY_PATTERN_SIZE) * 8)

    def _list(self, request: _Request, pack: Callable[[int, int], bytes]) -> tuple[Apqn, ...]:
        """Ask how many there are, then for them; there may be more by then."""
        what = "list adapters"
        content = bytearray(pack(0, 0))
        self._ask(request, content, what)
        for _ in range(_TRIES):
            count: int = request.layout.unpack(content)[-1]
            if count == 0:
                return ()
            room = bytearray(count * _APQN.size)
            content = bytearray(pack(_address(room), count))
            if self._ask(request, content, what, may_grow=True):
                found: int = request.layout.unpack(content)[-1]
                used = bytes(room[: min(found, count) * _APQN.size])
                return tuple(Apqn(card, domain) for card, domain in _APQN.iter_unpack(used))
        raise CoprocessorError(f"{self._path}: {what}: their number does not stop changing")

    def _ask(
        self,
        request: _Request,
        content: bytearray,
        what: str,
        *,
        may_lack: bool = False,
        may_grow: bool = False,
    ) -> bool:
        """One ioctl; False: no such adapter, or no room, where the caller has use for that."""
        try:
            self._ioctl(self._fd, make_number(request), content)
        except OSError as error:
            if (may_lack and error.errno == errno.ENODEV) or (
                may_grow and error.errno == errno.ENOSPC
            ):
                return False
            raise self._explain(what, error) from None
        return True

    def _explain(self, what: str, error: OSError) -> CoprocessorError | UnsupportedError:
        text = f"{self._path}: {what}: {error.strerror}"
        match error.errno:
            case errno.EINVAL:
                return UnsupportedError(f"{text}: the kernel refuses this type or size of key")
            case errno.ENOTTY:
                return UnsupportedError(f"{text}: the kernel is too old for this request")
            case errno.ENODEV:
                return CoprocessorError(
                    f"{text}: no adapter did it: it is away, cannot have such keys, or has another "
                    "master key"
                )
            case _:
                return CoprocessorError(text)

    def _take_key(self, key: bytearray, size: int) -> bytes:
        if not 0 < size <= len(key):
            raise CoprocessorError(f"{self._path}: a key of {size} bytes, room was for {len(key)}")
        return bytes(key[:size])


def _pack_apqns(apqn: Apqn) -> bytearray:
    return bytearray(_APQN.pack(apqn.card, apqn.domain))


def _address(buffer: bytearray) -> int:
    """Where the bytes are; the caller keeps the buffer, and does not resize it."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))
