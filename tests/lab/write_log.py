"""What a command writes to an image, and every state that a power cut may leave of it.

The command runs under strace(1), which sees its children, too. A disk keeps what was written before
the last sync that returned; of what came after it keeps any subset, and of the write that was under
way any number of sectors.
"""

import hashlib
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.header_volume import PROGRAM, Lab

#: Of the tests that record, and have the real cryptsetup make the images.
MARKS = [
    pytest.mark.skipif(
        shutil.which("cryptsetup") is None or shutil.which("strace") is None,
        reason="no cryptsetup, or no strace",
    ),
    pytest.mark.root,  # strace(1) sees the files of the engine as root only
]
SECTOR = 512
_CALLS = (
    "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,ftruncate,fallocate,copy_file_range"
)
_LINE = re.compile(r"\d+\s+(\w+)\(\d+<[^>]*>(?:, (.*))?\)\s+= (-?\d+)")
_WRITE = re.compile(r'"((?:\\x[0-9a-f]{2})*)", (\d+), (\d+)')
#: Of more writes between two syncs not every subset is tried.
_SUBSETS_MAX = 5


@dataclass(frozen=True)
class Write:
    """Bytes written at an offset."""

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True)
class Log:
    """The writes of a command in order; each list ended with a sync, but for the last one."""

    base: bytes
    epochs: list[list[Write]]

    @property
    def writes(self) -> list[Write]:
        return [write for epoch in self.epochs for write in epoch]

    def states(self) -> Iterator[tuple[str, bytes]]:
        """Every state, with a name."""
        durable = bytearray(self.base)
        for number, epoch in enumerate(self.epochs):
            for what, lost in _outcomes(epoch):
                state = bytearray(durable)
                for write in lost:
                    state[write.offset : write.end] = write.data
                yield f"sync {number}, {what}", bytes(state)
            for write in epoch:
                durable[write.offset : write.end] = write.data
        yield "all", bytes(durable)

    def different_states(self) -> Iterator[tuple[str, bytes]]:
        """Each of them once, with the first of its names."""
        seen = set()
        for name, state in self.states():
            key = hashlib.sha256(state).digest()
            if key not in seen:
                seen.add(key)
                yield name, state


def record(
    image: Path, command: Sequence[str | Path], environment: dict[str, str], stdin: bytes = b""
) -> Log:
    """Run a command that is to succeed, and log what it wrote to ``image``."""
    base = image.read_bytes()
    with tempfile.NamedTemporaryFile("r") as trace:
        done = subprocess.run(
            ["strace", "-f", "--seccomp-bpf", "-y", "-xx", "-s", "8388608", "-o", trace.name,
             "-e", f"trace={_CALLS}", "-P", image, *command],
            env=environment, input=stdin, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        return Log(base, _parse(trace.read()))


def record_action(
    lab: Lab, base: str, line: str, places: Mapping[str, Sequence[str | Path]]
) -> Log:
    """Log what an action of fusecrypt writes to a copy of a file of the lab.

    A word of its line for which there are ``places`` stands for these; ``IMAGE`` is the copy.
    """
    image = lab.directory / "image"
    shutil.copyfile(lab.directory / base, image)
    known: Mapping[str, Sequence[str | Path]] = {"IMAGE": [image], **places}
    words = [str(part) for word in line.split() for part in known.get(word, [word])]
    return record(image, [sys.executable, "-c", PROGRAM, *words], lab.environment)


def _parse(trace: str) -> list[list[Write]]:
    epochs: list[list[Write]] = [[]]
    for line in trace.splitlines():
        match = _LINE.match(line)
        if match is None:
            assert "exited" in line or "SIGCHLD" in line, line[:200]
            continue
        call, arguments, result = match[1], match[2] or "", int(match[3])
        assert result >= 0, line[:200]
        if call in ("fsync", "fdatasync"):
            epochs.append([])
            continue
        write = _WRITE.fullmatch(arguments)
        assert call == "pwrite64", line[:200]
        assert write is not None, line[:200]
        data = bytes.fromhex(write[1].replace("\\x", ""))
        assert result == len(data) == int(write[2]), line[:200]
        epochs[-1].append(Write(int(write[3]), data))
    return epochs


def _outcomes(epoch: list[Write]) -> Iterator[tuple[str, list[Write]]]:
    """What may be on the disk of an epoch whose sync did not return."""
    if len(epoch) <= _SUBSETS_MAX:
        numbers = range(len(epoch))
        for size in range(len(epoch) + 1):
            for kept in itertools.combinations(numbers, size):
                yield f"writes {kept}", [epoch[n] for n in kept]
    else:
        for size in range(len(epoch)):
            yield f"the first {size}", epoch[:size]
            yield f"all but {size}", epoch[:size] + epoch[size + 1 :]
    for number, write in enumerate(epoch):
        length = len(write.data)
        for cut in sorted({SECTOR, length // 2 // SECTOR * SECTOR, length - SECTOR}):
            if 0 < cut < length:
                torn = Write(write.offset, write.data[:cut])
                yield f"{number} torn at {cut}", [*epoch[:number], torn]
                rest = Write(write.offset + cut, write.data[cut:])
                yield f"{number} without its first {cut}", [*epoch[:number], rest]
