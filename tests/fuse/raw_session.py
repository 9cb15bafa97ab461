"""A mount whose session side is twenty answers instead of pyfuse3: the engine and the kernel alone.

Source: linux/fuse.h. One file system, one root, devices as files named by their node ids.
"""

import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.engine.messages import DeviceSpec, SegmentSpec
from fusecrypt.dmcrypt.engine.process import EngineProcess, spawn_engine
from fusecrypt.dmcrypt.engine.start import StartOptions

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, RELEASE, FLUSH, INIT, BATCH_FORGET = (
    1,
    2,
    3,
    4,
    14,
    18,
    25,
    26,
    42,
)
ENOSYS, ENOENT = 38, 2
IN_HEADER = struct.Struct("=IIQQIIIHH")
OUT_HEADER = struct.Struct("=IiQ")
ATTR = struct.Struct("=QQQQQQIIIIIIIIII")
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class RawMount:
    """A mounted engine."""

    path: Path
    process: EngineProcess
    session: socket.socket
    sizes: dict[int, int] = field(default_factory=dict)
    last_init: bytes = b""
    seen: list[int] = field(default_factory=list)  # opcodes that were forwarded

    @property
    def engine(self) -> Engine:
        return self.process.engine

    def add(self, node: int, sector_size: int, segments: tuple[SegmentSpec, ...], fds, **options):
        """A device; its path in the mount."""
        size = sum(segment.length for segment in segments)
        self.sizes[node] = size
        options = {"read_only": False, **options}
        spec = DeviceSpec(node, size, sector_size, segments=segments, **options)
        slot = self.engine.add_device(spec, fds)
        return self.path / str(node), slot

    def attr(self, node: int) -> bytes:
        mode, size = (0o040755, 0) if node == 1 else (0o100600, self.sizes[node])
        return ATTR.pack(node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode == INIT:
            _, _, readahead, flags = struct.unpack_from("=IIII", body)
            reply = struct.pack(
                "=IIIIHHIIHHI28x", 7, 38, readahead, flags, 12, 9, 1 << 20, 1, 256, 0, 0
            )
            return 0, reply
        if opcode == LOOKUP:
            name = body.rstrip(b"\0")
            if not name.isdigit() or int(name) not in self.sizes:
                return ENOENT, b""
            return 0, struct.pack("=QQQQII", int(name), 0, 0, 0, 0, 0) + self.attr(int(name))
        if opcode in (GETATTR, SETATTR):
            return 0, struct.pack("=QII", 0, 0, 0) + self.attr(node)
        if opcode == OPEN:
            return 0, struct.pack("=QII", 7, 2, 0)  # FOPEN_KEEP_CACHE
        if opcode in (RELEASE, FLUSH):
            return 0, b""
        return ENOSYS, b""

    def serve(self) -> None:
        while True:
            try:
                message = self.session.recv(1 << 17)
            except OSError:
                return
            if len(message) < IN_HEADER.size:
                return
            _, opcode, unique, node, *_ = IN_HEADER.unpack_from(message)
            self.seen.append(opcode)
            if opcode in (FORGET, BATCH_FORGET):
                continue
            error, body = self.answer(opcode, node, message[IN_HEADER.size :])
            reply = OUT_HEADER.pack(OUT_HEADER.size + len(body), -error, unique) + body
            with contextlib.suppress(OSError):
                self.session.send(reply)


def unmount(path: Path) -> None:
    _libc.umount2(os.fsencode(path), MNT_DETACH)


@contextlib.contextmanager
def raw_mount(path: Path, **options) -> Iterator[RawMount]:
    """An engine mounted at ``path`` (needs root); ended and unmounted on leaving."""
    path.mkdir(exist_ok=True)
    connection = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    data = f"fd={connection},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    if _libc.mount(b"test", os.fsencode(path), b"fuse.test", 6, data.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    try:
        process = spawn_engine(
            StartOptions(fuse_fd=connection, session_fd=theirs.fileno(), **options)
        )
        os.close(connection)
        theirs.close()
        mount = RawMount(path, process, ours)
        server = threading.Thread(target=mount.serve)
        server.start()
        try:
            yield mount
        finally:
            unmount(path)
            process.terminate()
            process.wait(10)
            process.close()
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            server.join()
            ours.close()
    finally:
        unmount(path)
