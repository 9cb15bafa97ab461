"""A process that is killed at each system call by which it changes a file.

strace(1) first notes the calls of a run that comes to its end, and then kills one run at each of
them, before it is done: what is seen then is what the calls before it have left.

The whole of it takes many minutes. Unless FUSECRYPT_TEST_KILL is ``all``, only some calls are tried
of each kind.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

IS_ALL = os.environ.get("FUSECRYPT_TEST_KILL") == "all"

_WRITES = ("write", "writev", "pwrite64", "pwritev", "pwritev2", "sendfile", "copy_file_range")
_OPENS = ("open", "openat", "openat2", "creat")
_OTHERS = (
    "fsync", "fdatasync", "sync_file_range", "truncate", "ftruncate", "fallocate", "chmod",
    "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "utimensat", "mkdir", "mkdirat",
    "mknod", "mknodat", "rename", "renameat", "renameat2", "link", "linkat", "symlink",
    "symlinkat", "unlink", "unlinkat", "rmdir", "setxattr", "lsetxattr", "fsetxattr",
    "removexattr", "lremovexattr", "fremovexattr",
)  # fmt: skip
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
#: What strace shows of a descriptor that leads to a file, and to no pipe, socket, device or memory.
_FILE = re.compile(r"(?:\d+|AT_FDCWD)<(/(?!dev/(?!shm/)|proc/|memfd:)[^>]*)>")


@dataclass(frozen=True, order=True)
class Call:
    """A call by its name, and which one of that name it is in its thread, from 1."""

    name: str
    number: int


def strace(trace: Path, kill: Call | None = None) -> list[str]:
    """The words before a command, or before ``-p`` and a pid: note the calls, kill at one."""
    names = ",".join(f"?{name}" for name in (*_WRITES, *_OPENS, *_OTHERS))
    words = ["strace", "-f", "-y", "-s", "0", "-o", str(trace)]
    if kill is None:
        return [*words, "-e", f"trace={names}"]
    inject = f"inject={kill.name}:signal=KILL:when={kill.number}"
    return [*words, "-e", f"trace={kill.name}", "-e", inject]


def find_calls(trace: str) -> list[Call]:
    """The calls of a noted run by which files changed, or which made that last."""
    counts: Counter[tuple[str, str]] = Counter()
    found = set()
    for line in trace.splitlines():
        if match := _LINE.match(line):
            thread, name, arguments = match.groups()
            counts[thread, name] += 1
            if _changes(name, arguments):
                found.add(Call(name, counts[thread, name]))
    return sorted(found)


def choose(calls: Iterable[Call], most: int) -> list[Call]:
    """Those that are tried: all, or ``most`` of each kind, the first and the last among them."""
    kinds: defaultdict[str, list[Call]] = defaultdict(list)
    for call in calls:
        kinds[call.name].append(call)
    return [call for kind in kinds.values() for call in (kind if IS_ALL else _sample(kind, most))]


def _sample(kind: list[Call], most: int) -> list[Call]:
    last = len(kind) - 1
    return [kind[n] for n in sorted({last * i // (most - 1) for i in range(most)})]


def _changes(name: str, arguments: str) -> bool:
    if name in _WRITES:
        return _FILE.match(arguments) is not None
    if name in _OPENS:
        return name == "creat" or "O_CREAT" in arguments or "O_TRUNC" in arguments
    return True
