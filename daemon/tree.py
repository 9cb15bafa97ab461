"""The name space of the mount: what is called what. No I/O, no FUSE, not thread-safe.

Laid out as /dev: ``mapper/NAME`` and ``dm-N`` are two links of one device, ``disk/by-uuid`` and
``disk/by-label`` hold symbolic links to ``dm-N``, ``pkey/GROUP/NAME`` are files that give keys.
"""

from __future__ import annotations

import itertools
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from .pkey import TOKEN_KINDS, TokenKind

ROOT: Final = 1

_DIRECTORY_MODE: Final = stat.S_IFDIR | 0o755
_TOKEN_MODE: Final = stat.S_IFREG | 0o400
_SYMLINK_MODE: Final = stat.S_IFLNK | 0o777
# Cookies of "." and ".." in every directory.
_FIRST_COOKIE: Final = 3
# udev's own list (udev_util_encode_string): what else stands in a label becomes \xNN.
_PLAIN_IN_LABEL: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789#+-.:=@_"
)


@dataclass(slots=True)
class Times:
    """Nanoseconds since the epoch."""

    atime_ns: int
    mtime_ns: int
    ctime_ns: int


@dataclass(slots=True)
class Node:
    """What stat(2) tells of anything here; ``number`` is inode and FUSE node id in one."""

    number: int
    mode: int
    uid: int
    gid: int
    times: Times
    links: int = 1
    size: int = 0


@dataclass(slots=True)
class Device(Node):
    """A mapped volume, as it looks from outside."""

    sector_size: int = 512
    is_read_only: bool = False
    opens: int = 0  # handles that the kernel holds
    is_closing: bool = False  # no new handles


@dataclass(slots=True)
class Symlink(Node):
    """A symbolic link; it has the target's length as size."""

    target: bytes = b""


@dataclass(slots=True, kw_only=True)
class TokenFile(Node):
    """A file that gives every opener a new random key token, see `pkey`."""

    kind: TokenKind


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory. Cookies grow and are never used twice in one directory."""

    cookie: int
    name: bytes
    node: Node


@dataclass(slots=True)
class Directory(Node):
    """Names, in the order in which they came."""

    parent: int = ROOT
    entries: dict[bytes, Entry] = field(default_factory=dict[bytes, Entry])
    cookies: Iterator[int] = field(default_factory=lambda: itertools.count(_FIRST_COOKIE))


class Tree:
    """All nodes of one mount. Their numbers are never used twice."""

    def __init__(self, uid: int, gid: int, now: Callable[[], int] = time.time_ns) -> None:
        self._uid = uid
        self._gid = gid
        self._now = now
        self._numbers = itertools.count(ROOT)
        self._nodes: dict[int, Node] = {}
        self._root = self._make_directory(None, b"")
        self._mapper = self._make_directory(self._root, b"mapper")
        disk = self._make_directory(self._root, b"disk")
        self._by_uuid = self._make_directory(disk, b"by-uuid")
        self._by_label = self._make_directory(disk, b"by-label")
        self._add_token_files()

    def get_node_number(self) -> int:
        """A number that no node of this mount had, or will have otherwise."""
        return next(self._numbers)

    def find(self, number: int) -> Node | None:
        """The node with this number, if it is still there."""
        return self._nodes.get(number)

    def find_token_kind(self, number: int) -> TokenKind | None:
        """What the file of that number gives, if it is one of dev/pkey."""
        node = self._nodes.get(number)
        return node.kind if isinstance(node, TokenFile) else None

    def find_child(self, parent: int, name: bytes) -> Node | None:
        """What ``name`` is in the directory ``parent``."""
        directory = self._nodes.get(parent)
        if not isinstance(directory, Directory):
            return None
        if name == b".":
            return directory
        if name == b"..":
            return self._nodes[directory.parent]
        entry = directory.entries.get(name)
        return entry.node if entry else None

    def list_entries(self, directory: Directory, after: int) -> Iterator[Entry]:
        """The entries whose cookies are above ``after``, in their order, as they are now.

        A name that comes or goes between two calls moves no other: readdir(3) wants just that.
        """
        if after < 1:
            yield Entry(1, b".", directory)
        if after < 2:
            yield Entry(2, b"..", self._nodes[directory.parent])
        for entry in list(directory.entries.values()):
            if entry.cookie > after:
                yield entry

    def list_devices(self) -> list[Device]:
        """Every device that has a name."""
        return [e.node for e in self._mapper.entries.values() if isinstance(e.node, Device)]

    def add_device(self, device: Device, name: str, minor: int) -> None:
        """Make the device appear as ``mapper/NAME`` and ``dm-N``. Both names are free."""
        device.links = 0
        self._nodes[device.number] = device
        for directory, entry in self._device_names(name, minor):
            self._link(directory, entry, device)
            device.links += 1

    def remove_device(self, device: Device, name: str, minor: int) -> list[tuple[int, bytes]]:
        """Make it disappear; the (directory number, name) pairs that are gone."""
        names = self._device_names(name, minor)
        for directory, entry in names:
            self._unlink(directory, entry)
        device.links = 0
        del self._nodes[device.number]
        return [(directory.number, entry) for directory, entry in names]

    def add_disk_links(self, minor: int, *, uuid: str, label: str) -> list[tuple[int, bytes]]:
        """Links by UUID and label, where the names are free; those that were made."""
        made: list[tuple[int, bytes]] = []
        for directory, name in ((self._by_uuid, uuid), (self._by_label, encode_label(label))):
            entry = name.encode()
            if not entry or len(entry) > 255 or entry in directory.entries:
                continue
            target = f"../../dm-{minor}".encode()
            link = Symlink(
                self.get_node_number(), _SYMLINK_MODE, self._uid, self._gid, self._times(),
                size=len(target), target=target,
            )  # fmt: skip
            self._nodes[link.number] = link
            self._link(directory, entry, link)
            made.append((directory.number, entry))
        return made

    def remove_links(self, links: Sequence[tuple[int, bytes]]) -> None:
        """Take away links that `add_disk_links` made."""
        for number, name in links:
            directory = self._nodes[number]
            assert isinstance(directory, Directory)
            del self._nodes[self._unlink(directory, name).number]

    def _add_token_files(self) -> None:
        pkey = self._make_directory(self._root, b"pkey")
        groups: dict[str, Directory] = {}
        for kind in TOKEN_KINDS:
            if kind.group not in groups:
                groups[kind.group] = self._make_directory(pkey, kind.group.encode())
            file = TokenFile(
                self.get_node_number(), _TOKEN_MODE, self._uid, self._gid, self._times(),
                size=kind.size, kind=kind,
            )  # fmt: skip
            self._nodes[file.number] = file
            self._link(groups[kind.group], kind.name.encode(), file)

    def _device_names(self, name: str, minor: int) -> list[tuple[Directory, bytes]]:
        return [(self._mapper, name.encode()), (self._root, f"dm-{minor}".encode())]

    def _make_directory(self, parent: Directory | None, name: bytes) -> Directory:
        directory = Directory(
            self.get_node_number(), _DIRECTORY_MODE, self._uid, self._gid, self._times(), links=2
        )
        self._nodes[directory.number] = directory
        if parent is not None:
            directory.parent = parent.number
            self._link(parent, name, directory)
            parent.links += 1
        return directory

    def _link(self, directory: Directory, name: bytes, node: Node) -> None:
        assert name not in directory.entries
        directory.entries[name] = Entry(next(directory.cookies), name, node)
        directory.times.mtime_ns = directory.times.ctime_ns = self._now()

    def _unlink(self, directory: Directory, name: bytes) -> Node:
        node = directory.entries.pop(name).node
        directory.times.mtime_ns = directory.times.ctime_ns = self._now()
        return node

    def _times(self) -> Times:
        now = self._now()
        return Times(now, now, now)


def encode_label(label: str) -> str:
    r"""A label as udev spells it in a file name: ASCII that is not plain becomes ``\xNN``."""
    return "".join(
        c if c in _PLAIN_IN_LABEL or ord(c) > 0x7F else f"\\x{ord(c):02x}" for c in label
    )
