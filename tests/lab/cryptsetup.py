"""The real cryptsetup, without device mapper: it formats, edits headers, and decrypts AES volumes.

Run as a program it is the oracle for a person: ``python -m tests.lab.cryptsetup IMAGE KEYFILE``
prints the sha256 of the plaintext as the real cryptsetup decrypts it.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

QUICK_PBKDF = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
SMALL_HEADER = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "256k", "--offset", "1024")


class CryptsetupError(Exception):
    """The real cryptsetup refused."""


@dataclass(frozen=True, slots=True)
class DataSegment:
    """The first segment of a LUKS2 volume; offset and length in bytes."""

    offset: int
    length: int
    cipher: str
    sector_size: int
    iv_offset: int  # 512-byte sectors


def cryptsetup(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    """Run cryptsetup and return its standard output."""
    result = subprocess.run(
        ["cryptsetup", *map(str, arguments)], input=stdin, capture_output=True, check=False
    )
    if result.returncode:
        words = " ".join(map(str, arguments))
        said = (result.stderr + result.stdout).decode(errors="replace").strip()
        raise CryptsetupError(f"cryptsetup {words}: status {result.returncode}: {said}")
    return result.stdout


def luks_format(image: Path, key_file: Path, size: int, *options: str | Path) -> Path:
    """Make ``image`` with ``size`` bytes and a LUKS2 header (of 512 KiB unless asked otherwise)."""
    with image.open("wb") as file:
        file.truncate(size)
    words = {str(option) for option in options}
    small = () if words & {"--offset", "--header", "--luks2-keyslots-size"} else SMALL_HEADER
    pbkdf = () if "--pbkdf" in words else QUICK_PBKDF
    cryptsetup(
        *("luksFormat", "-q", "--type", "luks2", *small, *pbkdf, *options),
        *("--key-file", key_file, image),
    )
    return image


def metadata(header: Path) -> dict:
    """The JSON area, as the real cryptsetup reads it."""
    return json.loads(cryptsetup("luksDump", "--dump-json-metadata", header))


def data_segment(header: Path, data_size: int) -> DataSegment:
    """The data segment of a volume whose data file has ``data_size`` bytes."""
    segment = metadata(header)["segments"]["0"]
    offset = int(segment["offset"])
    length = data_size - offset if segment["size"] == "dynamic" else int(segment["size"])
    return DataSegment(
        offset=offset,
        length=length // segment["sector_size"] * segment["sector_size"],
        cipher=segment["encryption"],
        sector_size=segment["sector_size"],
        iv_offset=int(segment["iv_tweak"]),
    )


def volume_key(header: Path, *unlock: str | Path) -> bytes:
    """The volume key; ``unlock`` holds ``--key-file`` and what belongs to it."""
    with tempfile.TemporaryDirectory() as work:
        key = Path(work) / "key"
        cryptsetup(
            *("luksDump", "-q", "--dump-volume-key", "--volume-key-file", key, *unlock, header)
        )
        return key.read_bytes()


def decrypt(image: Path, key_file: Path) -> bytes:
    """The whole plaintext of a LUKS2 volume with an AES cipher and its header in ``image``.

    The real cryptsetup decrypts a copy in place: ``reencrypt --decrypt`` with an exported header
    moves the plaintext to the start of the file.
    """
    segment = data_segment(image, image.stat().st_size)
    with tempfile.TemporaryDirectory(dir=image.parent) as work:
        copy = Path(work) / "copy"
        shutil.copyfile(image, copy)
        cryptsetup(
            *("reencrypt", "-q", "--decrypt", "--force-offline-reencrypt"),
            *("--header", Path(work) / "header", "--key-file", key_file, copy),
        )
        return copy.read_bytes()[: segment.length]


if __name__ == "__main__":
    sys.stdout.write(hashlib.sha256(decrypt(*map(Path, sys.argv[1:3]))).hexdigest() + "\n")
