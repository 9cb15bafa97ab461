"""Dummy passphrases: what opens a LUKS2 keyslot whose content, a secure key, needs no secrecy.

zkey keeps it beside the key, so that nobody is asked for it. It may have any bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import Final

from ...keystore.errors import ConfigError
from .arguments import Arguments
from .source import open_for_reading

GENERATED_SIZE: Final = 16  # bytes, as many as zkey makes
_SIZE_MAX: Final = 8192 * 1024  # cryptsetup's limit of a key file
OPTIONS: Final = frozenset({"gen-dummy-passphrase", "set-dummy-passphrase"})


@contextlib.contextmanager
def provide_dummy_passphrase(args: Arguments) -> Generator[bytearray | None, None, None]:
    """What --gen-dummy-passphrase or --set-dummy-passphrase stand for; wiped at the end.

    Raises:
        ConfigError: both, or a file without anything in it or with too much.
        NotFoundError, AccessError: the file cannot be read.
    """
    path = args.text("set-dummy-passphrase")
    args.refuse_both("gen-dummy-passphrase", "set-dummy-passphrase")
    if path is None and not args.has("gen-dummy-passphrase"):
        yield None
        return
    buffer = bytearray(GENERATED_SIZE)
    try:
        if path is None:
            with open("/dev/urandom", "rb", buffering=0) as source:  # noqa: PTH123  unbuffered
                _fill(source.fileno(), buffer)
        else:
            with open_for_reading(path, "dummy passphrase") as file:
                if not 0 < file.size <= _SIZE_MAX:
                    raise ConfigError(
                        f"dummy passphrase {path}: {file.size} bytes, wanted 1 to {_SIZE_MAX}"
                    )
                buffer = bytearray(file.size)
                _fill(file.fd, buffer)
        yield buffer
    finally:
        buffer[:] = bytes(len(buffer))


def _fill(fd: int, buffer: bytearray) -> None:
    done = 0
    with memoryview(buffer) as view:
        while done < len(view):
            count = os.readv(fd, [view[done:]])
            if count == 0:
                raise ConfigError("dummy passphrase: ends too early")
            done += count
