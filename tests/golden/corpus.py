"""The golden images: what is in golden.json, and the bytes.

golden.json holds for each image the commands that made it, the secrets that open it, the table that
the kernel's dm-crypt got, and the sha256 of the plaintext that it read; for each derived image the
patches that damage a good one, and cryptsetup's verdict on it. Images that fusecrypt refuses keep
only their header; some others are cut behind 64 KiB of data, whose plaintext the pattern says.
"""

import functools
import hashlib
import json
import lzma
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Image:
    """One image; ``about`` is its entry in golden.json."""

    name: str
    about: dict[str, Any] = field(repr=False)

    @property
    def is_accepted(self) -> bool:
        return self.about["expect"] == "opens"

    @property
    def data(self) -> bytes:
        return self.read("data")

    @property
    def header(self) -> bytes:
        """The bytes that hold the header: a file of its own where it is detached."""
        roles = [file["role"] for file in self.about["files"]]
        return self.read("header" if "header" in roles else "data")

    @property
    def is_detached(self) -> bool:
        return any(file["role"] == "header" for file in self.about["files"])

    @property
    def volume_key(self) -> bytes:
        return bytes.fromhex(self.about["volume_key_hex"])

    @property
    def dump(self) -> str:
        """What `cryptsetup luksDump` printed."""
        return (HERE / "dumps" / f"{self.name}.txt").read_text()

    def read(self, role: str) -> bytes:
        """One of the image's files: data, header or header-backup."""
        (entry,) = (file for file in self.about["files"] if file["role"] == role)
        return _unpack(entry["path"], entry["sha256"])


@dataclass(frozen=True)
class Derived:
    """A good image with a damaged header; ``about`` is its entry in golden.json."""

    name: str
    about: dict[str, Any] = field(repr=False)

    @property
    def data(self) -> bytes:
        data = bytearray(get_image(self.about["base"]).data)
        if self.about["truncate"]:
            del data[self.about["truncate"] :]
        for offset, length, patch in self.about["patches"]:
            data[offset : offset + length] = bytes.fromhex(patch).ljust(length, b"\0")
        if self.about["sha256"]:
            assert hashlib.sha256(data).hexdigest() == self.about["sha256"]
        return bytes(data)

    @property
    def real(self) -> dict[str, Any]:
        """Exit codes and messages of cryptsetup and the kernel."""
        return self.about["real"]


@functools.cache
def _golden() -> dict[str, Any]:
    return json.loads((HERE / "golden.json").read_text())


@functools.lru_cache(maxsize=8)
def _unpack(path: str, digest: str) -> bytes:
    data = lzma.decompress((HERE / path).read_bytes())
    assert hashlib.sha256(data).hexdigest() == digest
    return data


def images(kind: str | None = None, *, accepted: bool | None = None) -> list[Image]:
    """The images of one type (luks1, luks2, plain), that are to open or to be refused."""
    found = [Image(entry["name"], entry) for entry in _golden()["images"]]
    return [
        image
        for image in found
        if kind in (None, image.about["type"]) and accepted in (None, image.is_accepted)
    ]


def get_image(name: str) -> Image:
    return next(image for image in images() if image.name == name)


def derived() -> list[Derived]:
    return [Derived(entry["name"], entry) for entry in _golden()["derived"]]


def read_key(path: str) -> bytes:
    """The bytes of a passphrase or key file that golden.json names."""
    return (HERE / path).read_bytes()
