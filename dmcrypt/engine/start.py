"""What an engine is started with: as arguments of a child, or as a packet to an engine's unit.

The packet: version, threads, KDF memory in KiB, flags; four 32-bit integers in the machine's order.
Its descriptors, in this order: control; with FUSE, the connection and the session; with LIFETIME,
that; all others are clones.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

#: Argon2 memory that a keyslot may ask for, in KiB: cryptsetup's own ceiling (4 GiB).
KDF_MEMORY_LIMIT_KIB: Final = 4 << 20
#: What follows the packet is checked by HELLO, which has a version of its own.
VERSION: Final = 1
#: engine.h, ENGINE_CLONES_MAX.
CLONES_MAX: Final = 16
FDS_MAX: Final = 4 + CLONES_MAX
#: The socket in the runtime directory of an engine's unit: src/claim.h.
CLAIM_NAME: Final = "claim"
#: The answer of an engine's unit.
UNIT_STARTED: Final = b"started"

_PACKET: Final = struct.Struct("=4I")
PACKET_SIZE: Final = _PACKET.size
_FUSE: Final = 1
_LIFETIME: Final = 2


class StartOptions(NamedTuple):
    """src/engine.h, struct engine_options. Descriptors that are not there are -1.

    Without ``fuse_fd`` the engine serves keyslot operations only.
    """

    control_fd: int = -1
    kdf_memory_kib: int = KDF_MEMORY_LIMIT_KIB
    threads: int = 0  # that serve requests; 0: as many as processors, from two to eight
    fuse_fd: int = -1  # a mounted connection of /dev/fuse
    session_fd: int = -1  # the engine's end of the pair that stands in for it at pyfuse3
    lifetime_fd: int = -1  # merely kept open while the engine lives
    #: Further descriptors of /dev/fuse, to be made clones where the engine may not open it itself.
    clone_fds: tuple[int, ...] = ()
    claim_fd: int = -1
    is_mlock_forced: bool = False

    def make_arguments(self) -> tuple[list[str], list[int]]:
        """The arguments of a child (__main__.py), and the descriptors that it keeps."""
        given = {
            "--control-fd": self.control_fd,
            "--fuse-fd": self.fuse_fd,
            "--session-fd": self.session_fd,
            "--lifetime-fd": self.lifetime_fd,
        }
        named = [(name, fd) for name, fd in given.items() if fd >= 0]
        named += [("--clone-fd", fd) for fd in self.clone_fds]
        numbers = [("--threads", self.threads), ("--kdf-memory", self.kdf_memory_kib)]
        words = [word for name, number in [*named, *numbers] for word in (name, str(number))]
        return words, [fd for _, fd in named]

    def pack(self) -> tuple[bytes, list[int]]:
        """The packet and its descriptors; an engine's unit makes its own claim socket."""
        fds, flags = [self.control_fd], 0
        if self.fuse_fd >= 0:
            fds += [self.fuse_fd, self.session_fd]
            flags |= _FUSE
        if self.lifetime_fd >= 0:
            fds.append(self.lifetime_fd)
            flags |= _LIFETIME
        return _PACKET.pack(VERSION, self.threads, self.kdf_memory_kib, flags), [
            *fds,
            *self.clone_fds,
        ]


def parse_start(data: bytes, fds: Sequence[int], claim_fd: int) -> StartOptions:
    """What a packet asks for.

    Raises:
        ValueError: it is none, or its descriptors are not those that it announces.
    """
    if len(data) != PACKET_SIZE:
        raise ValueError(f"start packet of {len(data)} bytes, wanted {PACKET_SIZE}")
    version, threads, kdf_memory_kib, flags = _PACKET.unpack(data)
    if version != VERSION or flags & ~(_FUSE | _LIFETIME):
        raise ValueError(
            f"start packet: version {version}, flags {flags:#x}; wanted: version {VERSION}: daemon"
            " and engine are of different installations"
        )
    has_fuse, has_lifetime = bool(flags & _FUSE), bool(flags & _LIFETIME)
    least = 1 + 2 * has_fuse + has_lifetime
    if not least <= len(fds) <= least + CLONES_MAX * has_fuse:
        raise ValueError(f"start packet: {len(fds)} descriptors, wanted {least}, or clones too")
    rest = iter(fds)
    return StartOptions(
        control_fd=next(rest),
        kdf_memory_kib=kdf_memory_kib,
        threads=threads,
        fuse_fd=next(rest) if has_fuse else -1,
        session_fd=next(rest) if has_fuse else -1,
        lifetime_fd=next(rest) if has_lifetime else -1,
        clone_fds=tuple(rest),
        claim_fd=claim_fd,
    )
