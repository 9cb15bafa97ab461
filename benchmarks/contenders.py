"""The servers that are compared. Each shows one file; each is ended by pid.

All of them encrypt with AES-XTS and a 512-bit key, or not at all, on a backing file of the same
kind in the same directory.
"""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, Self

from processes import (
    BenchmarkError,
    descendants,
    is_alive,
    is_mounted,
    start,
    stop,
    unmount,
    wait_until,
)

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

MIB: Final = 1024 * 1024
PASSPHRASE: Final = "benchmark"
HEADER_ROOM: Final = 32 * MIB  # for a LUKS header before the data
CIPHER: Final = ("--cipher", "aes-xts-plain64", "--key-size", "512", "--hash", "sha256")


def fill(path: Path, size: int) -> None:
    """Write ``size`` bytes, so that no server meets a hole."""
    block = b"\x5a\xc3" * (MIB // 2)
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)


def format_luks(path: Path, key_file: Path, version: int, sector_size: int = 512) -> None:
    """Make a LUKS header with the real cryptsetup on an existing file.

    Raises:
        BenchmarkError: cryptsetup refused.
    """
    if version == 2:
        costs = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
        costs += ["--sector-size", str(sector_size)]
    else:
        costs = ["--iter-time", "10"]
    command = ["cryptsetup", "luksFormat", "-q", "--type", f"luks{version}", *CIPHER, *costs]
    result = subprocess.run(
        [*command, "--key-file", str(key_file), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise BenchmarkError(f"cryptsetup luksFormat {path}: {result.stderr.strip()}")


class Contender(ABC):
    """One server, from `start` to `stop`; a context manager."""

    name: str
    needs: tuple[str, ...] = ()  # commands that must be there
    is_encrypting = False
    is_peer = False  # somebody else's

    def __init__(self, work: Path, size: int) -> None:
        """Use ``work`` for all files; ``size`` bytes of data are to be shown."""
        self.work = work
        self.size = size
        self.key_file = work / "key"

    @property
    @abstractmethod
    def path(self) -> Path:
        """The file to measure."""

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """The processes whose CPU time counts."""

    @abstractmethod
    def start(self) -> None:
        """Make the backing file, start the server, return when the file is there."""

    @abstractmethod
    def stop(self) -> None:
        """End the server; take the mount and the backing file away. May be called twice."""

    def check_needs(self) -> None:
        """Return when all of `needs` is installed.

        Raises:
            BenchmarkError: naming what is not.
        """
        absent = [word for word in self.needs if shutil.which(word) is None]
        if absent:
            raise BenchmarkError(f"not installed: {', '.join(absent)}")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class RawFile(Contender):
    """The backing file itself: what no server can beat."""

    name = "raw file"

    @property
    def path(self) -> Path:
        return self.work / "raw.img"

    @property
    def pids(self) -> list[int]:
        return []

    def start(self) -> None:
        fill(self.path, self.size)

    def stop(self) -> None:
        self.path.unlink(missing_ok=True)


class Server(Contender):
    """A server in one process tree with a mount at ``mountpoint``."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def slug(self) -> str:
        """The name as a part of file names."""
        return self.name.replace(" ", "-").replace("+", "")

    @property
    def image(self) -> Path:
        return self.work / f"{self.slug}.img"

    @property
    def mountpoint(self) -> Path:
        return self.work / f"{self.slug}.mnt"

    @property
    def path(self) -> Path:
        return self.mountpoint

    @property
    def pids(self) -> list[int]:
        if self._process is None:
            raise BenchmarkError(f"{self.name}: not started")
        return [self._process.pid, *descendants(self._process.pid)]

    @abstractmethod
    def command(self) -> list[str | Path]:
        """The server's command line, in the foreground."""

    def make_image(self) -> None:
        """Fill and, when encrypting, format the backing file."""
        fill(self.image, self.size + (HEADER_ROOM if self.is_encrypting else 0))
        if self.is_encrypting:
            format_luks(self.image, self.key_file, version=1)

    def make_mountpoint(self) -> None:
        self.mountpoint.touch()

    def is_ready(self) -> bool:
        return is_mounted(self.mountpoint) and self.path.stat().st_size >= self.size

    def start(self) -> None:
        self.make_image()
        self.make_mountpoint()
        self._process = start(self.command(), self.work / f"{self.slug}.log")
        wait_until(self.name, self.is_ready, self._process)

    def stop(self) -> None:
        if self._process is not None:
            children = descendants(self._process.pid)
            stop(self._process)
            self._process = None
            if any(is_alive(pid) for pid in children):
                raise BenchmarkError(f"{self.name}: children {children} outlived the server")
        unmount(self.mountpoint)
        self.image.unlink(missing_ok=True)


class QemuRaw(Server):
    """qemu-storage-daemon showing a raw file over its FUSE export."""

    name = "qemu raw"
    needs: tuple[str, ...] = ("qemu-storage-daemon", "fusermount3")
    is_peer = True

    def blockdevs(self) -> list[str | Path]:
        return ["--blockdev", f"driver=file,node-name=top,filename={self.image}"]

    def command(self) -> list[str | Path]:
        export = f"type=fuse,id=e,node-name=top,mountpoint={self.mountpoint},writable=on"
        return ["qemu-storage-daemon", *self.blockdevs(), "--export", export]


class QemuLuks(QemuRaw):
    """qemu-storage-daemon's LUKS driver over its FUSE export."""

    name = "qemu luks"
    needs = (*QemuRaw.needs, "cryptsetup")
    is_encrypting = True

    def blockdevs(self) -> list[str | Path]:
        return [
            *("--object", f"secret,id=key,file={self.key_file}"),
            *("--blockdev", f"driver=file,node-name=file,filename={self.image}"),
            *("--blockdev", "driver=luks,node-name=top,file=file,key-secret=key"),
        ]


class NbdkitLuks(Server):
    """nbdkit's LUKS filter behind nbdfuse, four connections."""

    name = "nbdkit luks + nbdfuse"
    needs = ("nbdkit", "nbdfuse", "fusermount3", "cryptsetup")
    is_encrypting = True
    is_peer = True

    @property
    def path(self) -> Path:
        return self.mountpoint / "disk"

    def make_mountpoint(self) -> None:
        self.mountpoint.mkdir()

    def command(self) -> list[str | Path]:
        server: list[str | Path] = [
            "nbdkit",
            "--filter=luks",
            "file",
            self.image,
            f"passphrase=+{self.key_file}",
        ]
        return ["nbdfuse", "-C", "4", self.path, "[", *server, "]"]


PEERS: Final[tuple[type[Contender], ...]] = (QemuLuks, QemuRaw, NbdkitLuks)
