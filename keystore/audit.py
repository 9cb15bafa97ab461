"""The audit log: who used which master or secure key, each line bound to all before it by a hash.

Lines are canonical JSON objects. ``hash`` is the SHA-256 of the object without it; ``prev`` in it
is the hash of the line before (zeros for the first): no line can be changed, moved or taken out
without every later hash being another. What the chain cannot show is that lines at the end are
missing; for that, keep the number and hash of a last line elsewhere (`Chain.check_head`).

A line is on the disk before its caller gets an answer. A crash while it is written leaves the
beginning of a line without a newline at the very end, which is told apart from an alteration.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .atomic_file import locked, read_file, sync_directory
from .errors import AccessError, FormatError, NotFoundError
from .json_object import JsonObject, pack_canonical

#: Bytes of a file, after which the next one is begun, and how many are kept.
FILE_SIZE: Final = 1 << 20
FILES_MAX: Final = 64
_NAME: Final = re.compile(r"audit\.(\d{12})\.log")
_HASH_SIZE: Final = 32
_FIRST_PREV: Final = bytes(_HASH_SIZE)
#: A line with a message of some length fits many times.
_LINE_MAX: Final = 64 << 10
_SEQ_MAX: Final = 10**12 - 1
_ID_MAX: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One use of a key."""

    seq: int  # from 1
    time: str  # UTC, like 2026-01-31T12:00:00.000Z
    uid: int  # of the caller
    pid: int
    method: str
    result: str  # "ok", or the kind of the error
    #: What else is known: apqns, key_type, mkvp, pattern, register, message, ….
    facts: Mapping[str, str] = field(default_factory=dict[str, str])

    def pack(self, prev: bytes) -> tuple[bytes, bytes]:
        """Its line, and the hash in it."""
        members: dict[str, Any] = {
            "seq": self.seq,
            "time": self.time,
            "uid": self.uid,
            "pid": self.pid,
            "method": self.method,
            "result": self.result,
            "facts": dict(self.facts),
            "prev": prev.hex(),
        }
        digest = hashlib.sha256(pack_canonical(members)).digest()
        members["hash"] = digest.hex()
        return pack_canonical(members) + b"\n", digest

    @classmethod
    def parse(cls, line: bytes, where: str) -> tuple[Entry, bytes, bytes]:
        """An entry, the hash of the line before, and its own, which is checked.

        Raises:
            FormatError: no such line, or another than was written.
        """
        json = JsonObject.parse(line, where)
        entry = cls(
            seq=json.take_int("seq", 1, _SEQ_MAX),
            time=json.take_str("time"),
            uid=json.take_int("uid", 0, _ID_MAX),
            pid=json.take_int("pid", 0, _ID_MAX),
            method=json.take_str("method"),
            result=json.take_str("result"),
            facts=json.take_object("facts").take_texts(),
        )
        prev, digest = json.take_hex("prev", _HASH_SIZE), json.take_hex("hash", _HASH_SIZE)
        json.finish()
        packed, wanted = entry.pack(prev)
        if digest != wanted or packed != line:
            raise FormatError(f"{where}: altered, its hash is not that of what it says")
        return entry, prev, digest


@dataclass(slots=True)
class Chain:
    """What was found when the lines were read from the first to the last."""

    entries: int = 0
    first: int = 0  # number of the first line; above 1: the ones before were dropped in turn
    last: int = 0
    head: bytes = _FIRST_PREV  # hash of the last line
    torn: int = 0  # bytes of a line that a crash cut short
    hashes: dict[int, bytes] = field(default_factory=dict[int, bytes], repr=False)

    def add(self, line: bytes, where: str) -> Entry:
        """Take the next line.

        Raises:
            FormatError: it was altered, or does not follow the one before.
        """
        if not line.endswith(b"\n"):
            raise FormatError(f"{where}: ends within a line, and is not the last file")
        entry, prev, digest = Entry.parse(line, where)
        if self.entries == 0:
            self.first = entry.seq
            if entry.seq == 1 and prev != _FIRST_PREV:
                raise FormatError(f"{where}: the first line follows another")
        elif entry.seq != self.last + 1 or prev != self.head:
            raise FormatError(
                f"{where}: line {entry.seq} does not follow line {self.last}: lines were taken out,"
                " moved or put in"
            )
        self.entries += 1
        self.last, self.head = entry.seq, digest
        self.hashes[entry.seq] = digest
        return entry

    def check_head(self, seq: int, digest: bytes) -> None:
        """That a line that was the last one once is still there.

        Raises:
            NotFoundError: it is not there any more, or not yet: the end was cut off.
            FormatError: there is another in its place.
        """
        if seq not in self.hashes:
            raise NotFoundError(
                f"audit log: line {seq} is not there; it has lines {self.first} to {self.last}"
            )
        if self.hashes[seq] != digest:
            raise FormatError(
                f"audit log: line {seq} has hash {self.hashes[seq].hex()}, wanted {digest.hex()}"
            )


def list_files(directory: Path) -> list[Path]:
    """The files of a log, the oldest first; their names have the number of their first line.

    Raises:
        AccessError: the directory cannot be read.
    """
    try:
        names = [path.name for path in directory.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AccessError(f"audit log in {directory}: {error.strerror}") from error
    return [directory / name for name in sorted(filter(_NAME.fullmatch, names))]


def read_log(files: Iterable[Path], chain: Chain) -> Generator[Entry, None, None]:
    """The entries of the files in turn; ``chain`` knows then what was found.

    Raises:
        FormatError: a line that was altered, or lines that are missing.
        AccessError: a file cannot be read.
    """
    for line, where in _read_lines(files, chain):
        yield chain.add(line, where)


def survey_log(files: Iterable[Path]) -> Generator[tuple[Entry | None, str], None, None]:
    """Every line that can be read, and what is wrong at it; None for one that cannot.

    After something wrong the chain begins anew, so each fault is told once.

    Raises:
        AccessError: a file cannot be read.
    """
    chain = Chain()
    for line, where in _read_lines(files, Chain()):
        try:
            yield chain.add(line, where), ""
        except FormatError as error:
            chain = Chain()
            try:
                yield chain.add(line, where), str(error)
            except FormatError:
                yield None, str(error)


def _read_lines(files: Iterable[Path], chain: Chain) -> Generator[tuple[bytes, str], None, None]:
    """Lines and where they stand; the end of the last file, if it is none, is only counted."""
    paths = list(files)
    for i, path in enumerate(paths):
        try:
            content = read_file(path, FILE_SIZE + _LINE_MAX)
        except FileNotFoundError as error:
            raise AccessError(f"reading {path}: it was removed just now") from error
        lines = content.split(b"\n")
        rest = lines.pop()
        for number, line in enumerate(lines, 1):
            yield line + b"\n", f"{path}:{number}"
        if rest and i + 1 < len(paths):
            yield rest, str(path)
        chain.torn = len(rest)


class AuditLog:
    """The log of one directory; several processes may append to it."""

    def __init__(self, directory: Path, now: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._now = now
        self._path: Path | None = None
        self._size = -1  # of the file when we last wrote; another wrote if it is not that any more
        self._seq = 0
        self._head = _FIRST_PREV

    def append(
        self, *, uid: int, pid: int, method: str, result: str, facts: Mapping[str, str]
    ) -> None:
        """Write a line, on the disk when this returns.

        Raises:
            AccessError: the file system refuses.
            FormatError: the end of the log was altered.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AccessError(f"audit log in {self._directory}: {error.strerror}") from error
        with locked(self._directory):
            torn = self._find_end()
            if torn:
                self._write(0, 0, "recover", "ok", {"torn_bytes": str(torn)})
            self._write(uid, pid, method, result, facts)

    def _find_end(self) -> int:
        """Know the last line; a torn one is cut off, and the number of its bytes returned."""
        files = list_files(self._directory)
        path = files[-1] if files else None
        size = path.stat().st_size if path else -1
        if path == self._path and size == self._size:
            return 0
        chain = Chain()
        for _ in read_log(files[-1:], chain):
            pass
        torn = chain.torn
        if chain.entries == 0 and len(files) > 1:  # the newest has no whole line yet
            for _ in read_log(files[-2:-1], chain):
                pass
        self._path, self._size = path, size - torn
        self._seq, self._head = chain.last, chain.head
        if path and torn:
            try:
                os.truncate(path, self._size)
            except OSError as error:
                raise AccessError(f"{path}: {error.strerror}") from error
        return torn

    def _write(
        self, uid: int, pid: int, method: str, result: str, facts: Mapping[str, str]
    ) -> None:
        seconds = self._now()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        stamp += f".{int(seconds * 1000) % 1000:03d}Z"
        entry = Entry(self._seq + 1, stamp, uid, pid, method, result, facts)
        line, digest = entry.pack(self._head)
        is_new = self._path is None or self._size + len(line) > FILE_SIZE
        path = self._directory / f"audit.{entry.seq:012d}.log" if is_new else self._path
        assert path is not None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(path, flags | (os.O_CREAT | os.O_EXCL if is_new else 0), 0o600)
            try:
                if os.write(fd, line) != len(line):
                    raise OSError(28, "no space for the whole line")
                os.fsync(fd)
            finally:
                os.close(fd)
            if is_new:
                self._drop_old()
        except OSError as error:
            self._size = -1  # whatever stands there now is looked at next time
            raise AccessError(f"{path}: {error.strerror}") from error
        self._size = len(line) if is_new else self._size + len(line)
        self._path, self._seq, self._head = path, entry.seq, digest

    def _drop_old(self) -> None:
        for path in list_files(self._directory)[:-FILES_MAX]:
            path.unlink()
        sync_directory(self._directory)
