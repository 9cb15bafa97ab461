"""Run a command with a session keyring of its own: ``python -m tests.lab.keyring N=V … -- WORDS``.

The keys are of type ``user``; a value is hexadecimal. The command inherits the keyring alone, so
that no key of whoever runs the tests is seen, and none of theirs stays.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Mapping, Sequence

#: add_key and keyctl, of the kernel's syscall tables.
_CALLS = {"x86_64": (248, 250), "aarch64": (217, 219), "s390x": (278, 280)}
_JOIN_SESSION_KEYRING = 1
_SESSION_KEYRING = -3

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def with_keys(keys: Mapping[str, bytes], words: Sequence[object]) -> list[str]:
    """The command line that runs ``words`` with ``keys`` in its keyring."""
    named = [f"{name}={value.hex()}" for name, value in keys.items()]
    return [sys.executable, "-IS", __file__, *named, "--", *map(str, words)]


def why_no_keyring() -> str | None:
    """Why no keyring can be had here; None if one can."""
    if platform.machine() not in _CALLS:
        return f"no numbers of the kernel's calls for {platform.machine()}"
    _, keyctl = _CALLS[platform.machine()]
    if _call(keyctl, ctypes.c_long(0), ctypes.c_long(_SESSION_KEYRING), ctypes.c_long(0)) < 0:
        return f"no kernel keyring: {os.strerror(ctypes.get_errno())}"
    return None


def _call(number: int, *arguments: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


def _main(words: list[str]) -> None:
    end = words.index("--")
    add_key, keyctl = _CALLS[platform.machine()]
    assert _call(keyctl, ctypes.c_long(_JOIN_SESSION_KEYRING), None) > 0
    for word in words[:end]:
        name, _, value = word.partition("=")
        content = bytes.fromhex(value)
        place = ctypes.c_long(_SESSION_KEYRING)
        size = ctypes.c_size_t(len(content))
        assert _call(add_key, b"user", name.encode(), content, size, place) > 0
    os.execvp(words[end + 1], words[end + 1 :])


if __name__ == "__main__":
    _main(sys.argv[1:])
