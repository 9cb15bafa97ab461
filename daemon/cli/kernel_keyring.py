"""Keys of the kernel's keyrings, read into memory that is wiped.

Source: request_key(2), keyctl(2), keyctl_read(3); numbers of the calls: the kernel's
arch/*/syscall tables.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

from .passphrase import Passphrase

#: request_key and keyctl.
_CALLS: Final = {
    "x86_64": (249, 250),
    "aarch64": (218, 219),
    "riscv64": (218, 219),
    "s390x": (279, 280),
    "ppc64le": (270, 271),
}
_KEYCTL_READ: Final = 11
_PAYLOAD_MAX: Final = 32767  # bytes of a key of type user

_libc: Final = ctypes.CDLL(None)
_libc.syscall.restype = ctypes.c_long


def read_user_key(description: str) -> Passphrase | None:
    """What the key of type ``user`` and that name holds; None if there is none to be read.

    It is looked for in the caller's thread, process, session and user keyrings, and not made.
    """
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return None
    request_key, keyctl = calls
    name = os.fsencode(description)
    serial = _call(request_key, b"user", name, None, ctypes.c_long(0))
    if serial < 0:
        return None

    def read(place: object, size: int) -> int:
        what = (ctypes.c_long(_KEYCTL_READ), ctypes.c_long(serial))
        return _call(keyctl, *what, place, ctypes.c_size_t(size))

    passphrase = Passphrase(_PAYLOAD_MAX)
    if passphrase.fill(read):
        return passphrase
    passphrase.wipe()
    return None


def _call(number: int, *arguments: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *arguments))
