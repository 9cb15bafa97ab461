"""Splitting a master key into shares, and putting it together, in a process that ends right after.

The library that does it leaves copies in memory; so it never runs in the keystored itself. The
process gets and gives the master key by pipes, and the shares by descriptors of their files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from ...keystore.cca import MASTER_KEY_SIZE
from ...keystore.clear_bytes import wiped
from ...keystore.errors import AccessError, CoprocessorError, MapperError
from ...keystore.shares import FILE_MAX, ShareFile, combine, split
from ..exitcodes import find_error_class
from ..hardening import forbid_privileges, harden, lock_memory

_TIMEOUT: Final = 8.0  # seconds; the client waits 10
_MODULE: Final = "fusecrypt.daemon.keystored.ceremony"


def split_in_process(master_key: bytearray, threshold: int, fds: Sequence[int]) -> None:
    """Write a share into each of the files, which are empty; on the disk when this returns.

    Raises:
        MapperError: it cannot be done.
    """
    _run(["split", str(threshold), *map(str, fds)], fds, master_key, 0)


def combine_in_process(fds: Sequence[int]) -> bytearray:
    """The master key that the files' shares make; the caller wipes it.

    Raises:
        MapperError: they make none.
    """
    return _run(["combine", *map(str, fds)], fds, None, MASTER_KEY_SIZE)


def _run(words: Sequence[str], fds: Sequence[int], given: bytearray | None, size: int) -> bytearray:
    # -I: no module but ours and the installed ones.
    with subprocess.Popen(
        [sys.executable, "-I", "-m", _MODULE, *words],
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=tuple(fds),
        bufsize=0,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if given is not None:
            assert process.stdin is not None
            os.write(process.stdin.fileno(), given)
            process.stdin.close()
        with wiped(bytearray(size + 1)) as out:
            length = os.readv(process.stdout.fileno(), [out])
            said = process.stderr.read(FILE_MAX).decode("utf-8", "replace")
            try:
                status = process.wait(_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise CoprocessorError(f"shares: no answer in {_TIMEOUT:.0f} s") from None
            if status or length != size:
                raise _make_error(said, status)
            return out[:size]


def _make_error(said: str, status: int) -> MapperError:
    kind, _, text = said.strip().partition(": ")
    cls = find_error_class(kind)
    if cls is None:
        return CoprocessorError(f"shares: the process that makes them ended with {status}")
    return cls(text)


def main(words: Sequence[str]) -> int:
    """The process: ``split THRESHOLD FD…`` or ``combine FD…``."""
    harden()
    forbid_privileges()
    lock_memory()
    try:
        if words[0] == "split":
            _split(int(words[1]), [int(word) for word in words[2:]])
        else:
            _combine([int(word) for word in words[1:]])
    except MapperError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}")
        return 1
    return 0


def _split(threshold: int, fds: Sequence[int]) -> None:
    with wiped(bytearray(MASTER_KEY_SIZE)) as master_key:
        assert os.readv(0, [master_key]) == MASTER_KEY_SIZE
        contents = split(master_key, threshold, len(fds))
    for fd, content in zip(fds, contents, strict=True):
        try:
            os.write(fd, content)
            os.fsync(fd)
        except OSError as error:
            raise AccessError(f"share: cannot write it: {error.strerror}") from None


def _combine(fds: Sequence[int]) -> None:
    shares: list[ShareFile] = []
    for number, fd in enumerate(fds, 1):
        try:
            content = os.read(fd, FILE_MAX)
        except OSError as error:
            raise AccessError(f"share {number}: cannot read it: {error.strerror}") from None
        shares.append(ShareFile.parse(content, f"share {number}"))
    os.write(1, combine(shares))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
