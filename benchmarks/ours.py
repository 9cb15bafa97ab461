"""fusecrypt itself as a contender, and its data path without a cipher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from contenders import HEADER_ROOM, Server, fill, format_luks

ROOT: Final = Path(__file__).resolve().parent.parent
NAME: Final = "bench"


class _Fusecrypt(Server):
    """A daemon of its own with one LUKS2 volume from a crypttab of its own."""

    needs = ("cryptsetup", "fusermount3")
    is_encrypting = True
    sector_size: int

    @property
    def runtime_dir(self) -> Path:
        return self.work / f"{self.slug}.run"

    @property
    def mountpoint(self) -> Path:
        return self.runtime_dir / "dev"

    @property
    def path(self) -> Path:
        return self.mountpoint / "mapper" / NAME

    @property
    def crypttab(self) -> Path:
        return self.work / f"{self.slug}.crypttab"

    def make_image(self) -> None:
        fill(self.image, self.size + HEADER_ROOM)
        format_luks(self.image, self.key_file, version=2, sector_size=self.sector_size)
        self.crypttab.write_text(f"{NAME} {self.image} {self.key_file} luks\n")

    def make_mountpoint(self) -> None:
        self.runtime_dir.mkdir(mode=0o700)

    def is_ready(self) -> bool:
        try:
            return self.path.stat().st_size >= self.size
        except OSError:
            return False

    def program(self) -> list[str | Path]:
        """The daemon, as words of a command line."""
        return [sys.executable, "-m", "fusecrypt.daemon"]

    def command(self) -> list[str | Path]:
        options = ("--runtime-dir", self.runtime_dir, "--crypttab", self.crypttab)
        return [*self.program(), *options]


class Fusecrypt512(_Fusecrypt):
    """Ours with the sector size that most volumes have."""

    name = "fusecrypt 512"
    sector_size = 512


class Fusecrypt4096(_Fusecrypt):
    """Ours with large sectors."""

    name = "fusecrypt 4096"
    sector_size = 4096


class PassThrough(_Fusecrypt):
    """Our own data path with LINEAR segments: everything but the cipher."""

    name = "pass-through"
    is_encrypting = False
    sector_size = 512

    def make_image(self) -> None:
        fill(self.image, self.size)
        # A plain volume wants a key; the pass-through does not use it.
        key = self.work / f"{self.slug}.key"
        key.write_bytes(bytes(range(64)))
        key.chmod(0o600)
        options = "plain,cipher=aes-xts-plain64,size=512"
        self.crypttab.write_text(f"{NAME} {self.image} {key} {options}\n")

    def program(self) -> list[str | Path]:
        return [sys.executable, ROOT / "benchmarks" / "passthrough.py"]
