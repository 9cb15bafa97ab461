"""Search the memory of other processes, and their cores, for keys.

A key leaves more traces than its own bytes: AES expands it to a schedule, of which an
implementation may keep the forward form, the form for the equivalent inverse cipher, and either
with its words byte-swapped; a program may have it in hexadecimal. `patterns` lists all of these.

Reading needs root (or the same user and a dumpable process). Nothing is attached to the process
but for the core, which gdb's gcore makes.
"""

import contextlib
import hashlib
import os
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PIECE = 64 << 10  # bytes read at a time
PT_NOTE = 4
REGISTERS = "registers"
SKIPPED = ("[vvar]", "[vsyscall]", "[vvar_vclock]")  # not memory of the process


# --- AES key schedules (FIPS 197, sections 5.2 and 5.3.5) ---


def _sbox() -> bytes:
    box = bytearray(256)
    power = inverse = 1
    while True:
        power ^= (power << 1 & 0xFF) ^ (0x1B if power & 0x80 else 0)  # times 3
        inverse ^= inverse << 1  # divided by 3
        inverse ^= inverse << 2
        inverse ^= inverse << 4
        inverse &= 0xFF
        if inverse & 0x80:
            inverse ^= 0x09
        rotated = inverse
        for shift in range(1, 5):
            rotated ^= (inverse << shift | inverse >> (8 - shift)) & 0xFF
        box[power] = rotated ^ 0x63
        if power == 1:
            break
    box[0] = 0x63
    return bytes(box)


SBOX = _sbox()


def _times(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def expand(key: bytes) -> list[bytes]:
    """The round keys, 16 bytes each, in the order in which encryption uses them."""
    words = [key[i : i + 4] for i in range(0, len(key), 4)]
    length = len(words)
    constant = 1
    for i in range(length, 4 * (length + 7)):
        word = words[-1]
        if i % length == 0:
            word = bytes(SBOX[b] for b in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = _times(constant, 2)
        elif length > 6 and i % length == 4:
            word = bytes(SBOX[b] for b in word)
        words.append(bytes(a ^ b for a, b in zip(words[i - length], word, strict=True)))
    return [b"".join(words[i : i + 4]) for i in range(0, len(words), 4)]


def inverse_mix(block: bytes) -> bytes:
    """InvMixColumns of a round key, as the equivalent inverse cipher keeps it."""
    result = bytearray()
    for i in range(0, 16, 4):
        column = block[i : i + 4]
        for row in range(4):
            value = 0
            for j, factor in enumerate((14, 11, 13, 9)):
                value ^= _times(column[(row + j) % 4], factor)
            result.append(value)
    return bytes(result)


def _swapped(data: bytes) -> bytes:
    return b"".join(data[i : i + 4][::-1] for i in range(0, len(data), 4))


# --- what is searched for ---


def key_patterns(name: str, key: bytes) -> dict[str, bytes]:
    """What one AES key may look like in memory: description to bytes."""
    rounds = expand(key)
    # Round keys that are no part of the key itself, so that each finding says what was found.
    inner = rounds[len(key) // 16 + 1]
    last = rounds[-1]
    found = {
        "key": key,
        "key, words swapped": _swapped(key),
        "round key": inner,
        "round key, words swapped": _swapped(inner),
        "inverse round key": inverse_mix(inner),
        "inverse round key, words swapped": _swapped(inverse_mix(inner)),
        "last round key": last,
        "last round key, words swapped": _swapped(last),
        "key in hexadecimal": key.hex().encode(),
        "key in upper-case hexadecimal": key.hex().upper().encode(),
    }
    return {f"{name}: {what}": pattern for what, pattern in found.items()}


def volume_key_patterns(name: str, key: bytes, *, xts: bool) -> dict[str, bytes]:
    """Patterns of a volume key: of both halves when it is an XTS key."""
    if not xts:
        return key_patterns(name, key)
    half = len(key) // 2
    return {
        **key_patterns(f"{name} (data half)", key[:half]),
        **key_patterns(f"{name} (tweak half)", key[half:]),
    }


def passphrase_patterns(name: str, passphrase: bytes) -> dict[str, bytes]:
    """Patterns of a passphrase: itself, and as UTF-16 in case a string type holds it."""
    found = {f"{name}: passphrase": passphrase}
    with contextlib.suppress(UnicodeDecodeError):
        found[f"{name}: passphrase in UTF-16"] = passphrase.decode().encode("utf-16-le")
    return found


# --- the search ---


@dataclass(slots=True)
class Findings:
    """What a search found: (description, place) to how often."""

    hits: dict[tuple[str, str], int] = field(default_factory=dict)
    searched: int = 0  # bytes
    unreadable: dict[str, int] = field(default_factory=dict)  # place to bytes

    def __str__(self) -> str:
        lines = [f"{what} in {place}: {n} times" for (what, place), n in sorted(self.hits.items())]
        lines.append(f"{self.searched >> 10} KiB searched")
        lines += [f"unreadable: {n >> 10} KiB of {p}" for p, n in sorted(self.unreadable.items())]
        return "\n".join(lines)


class Search:
    """A set of patterns to be searched for, again and again.

    Most memory is the same from one search to the next, and from process to process: of a piece
    that had none of the patterns a digest is kept, and it is searched for new patterns only.
    """

    def __init__(self, patterns: Mapping[str, bytes]) -> None:
        self._names: dict[bytes, str] = {}
        self._clean: dict[tuple[bytes, int], int] = {}  # how many of the patterns are not in it
        self.add(patterns)

    def add(self, patterns: Mapping[str, bytes]) -> None:
        """Search for these, too."""
        for name, pattern in patterns.items():
            self._names.setdefault(pattern, name)
        self._overlap = max(map(len, self._names), default=1) - 1

    def _pieces(self, pieces: Iterable[bytes], place: str, findings: Findings) -> None:
        patterns = list(self._names.items())
        tail = b""
        for piece in pieces:
            findings.searched += len(piece)
            data = tail + piece
            key = hashlib.blake2b(data, digest_size=32).digest(), len(tail)
            is_clean = True
            # One pass a pattern: bytes.find is far faster than one expression for all of them.
            for pattern, name in patterns[self._clean.get(key, 0) :]:
                # What lies in the tail alone was counted before.
                at = data.find(pattern, max(0, len(tail) - len(pattern) + 1))
                while at >= 0:
                    is_clean = False
                    findings.hits[name, place] = findings.hits.get((name, place), 0) + 1
                    at = data.find(pattern, at + 1)
            if is_clean:
                self._clean[key] = len(patterns)
            tail = data[-self._overlap :] if self._overlap else b""

    def process(self, pid: int) -> Findings:
        """Search everything that ``/proc/PID/mem`` gives of a living process."""
        findings = Findings()
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in maps:
                words = line.split(maxsplit=5)
                name = words[5] if len(words) > 5 else "anonymous memory"
                if words[1][0] != "r" or name in SKIPPED:
                    continue
                low, high = (int(word, 16) for word in words[0].split("-"))
                readable = _read(memory.fileno(), low, high, name, findings)
                self._pieces(readable, name, findings)
        return findings

    def file(self, path: Path) -> Findings:
        """Search a file, for example a core."""
        findings = Findings()
        with path.open("rb") as file:
            self._pieces(iter(lambda: file.read(PIECE), b""), path.name, findings)
        return findings

    def core(self, path: Path) -> Findings:
        """Search a core, telling saved registers (ELF notes) from memory (ELF segments)."""
        findings = Findings()
        with path.open("rb") as file:
            for kind, offset, size in _program_headers(file.read(1 << 20)):
                file.seek(offset)
                pieces = (file.read(min(PIECE, size - at)) for at in range(0, size, PIECE))
                self._pieces(pieces, REGISTERS if kind == PT_NOTE else "memory", findings)
        return findings


def _read(fd: int, low: int, high: int, name: str, findings: Findings) -> Iterator[bytes]:
    at = low
    while at < high:
        try:
            piece = os.pread(fd, min(PIECE, high - at), at)
        except OSError:
            piece = b""
        if not piece:
            # memfd_secret pages answer EIO, and so does what has no page behind it.
            findings.unreadable[name] = findings.unreadable.get(name, 0) + 4096
            at += 4096
            continue
        yield piece
        at += len(piece)


def _program_headers(head: bytes) -> list[tuple[int, int, int]]:
    """Type, file offset and file size of each program header (elf(5), 64 bits)."""
    start = struct.unpack_from("<Q", head, 32)[0]
    size, count = struct.unpack_from("<HH", head, 54)
    found = []
    for i in range(count):
        kind, _flags, offset, _va, _pa, length = struct.unpack_from(
            "<IIQQQQ", head, start + i * size
        )
        found.append((kind, offset, length))
    return found


class CoreError(Exception):
    """gcore made no core."""


def force_core(pid: int, directory: Path) -> Path:
    """A core of a living process, made by gdb's gcore whatever the process thinks of dumps."""
    prefix = directory / "core"
    result = subprocess.run(
        ["gcore", "-a", "-o", prefix, str(pid)], capture_output=True, text=True, check=False
    )
    core = directory / f"core.{pid}"
    if not core.exists():
        raise CoreError(f"gcore {pid}: {(result.stderr or result.stdout).strip()}")
    return core
