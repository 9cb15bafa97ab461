"""The images of tests/golden as acceptance tests use them: unpacked, with their command lines."""

import functools
import json
import lzma
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@functools.cache
def manifest() -> dict[str, Any]:
    return json.loads((GOLDEN / "golden.json").read_text())


def images(expect: str) -> list[dict[str, Any]]:
    """All images with a verdict, ``opens`` or ``refused``."""
    return [image for image in manifest()["images"] if image["expect"] == expect]


def loopaes() -> list[dict[str, Any]]:
    """Images of loop-AES, each with its key file."""
    return manifest()["loopaes"]


def tables() -> list[dict[str, Any]]:
    """Images that dmsetup mapped with a raw table."""
    return manifest()["tables"]


def find(name: str) -> dict[str, Any]:
    return next(image for image in manifest()["images"] if image["name"] == name)


def unpack(image: dict[str, Any], directory: Path) -> dict[str, Path]:
    """Unpack an image's files; role (``data``, ``header``) to path."""
    found = {}
    for file in image["files"]:
        path = directory / Path(file["path"]).name.removesuffix(".xz")
        path.write_bytes(lzma.decompress((GOLDEN / file["path"]).read_bytes()))
        found[file["role"]] = path
    if "keyfile_hex" in image.get("plain", {}):
        found["key"] = directory / "key"
        found["key"].write_bytes(bytes.fromhex(image["plain"]["keyfile_hex"]))
    return found


def unlock_arguments(
    image: dict[str, Any], files: dict[str, Path], number: int = 0
) -> tuple[list[str], bytes]:
    """cryptsetup's options for one of the image's secrets, and what goes to standard input."""
    if "key" in files:
        return ["--key-file", str(files["key"])], b""
    unlock = image["unlock"][number]
    if unlock.get("mode") == "passphrase":
        return [], bytes.fromhex(unlock["secret_hex"]) + b"\n"
    words = ["--key-file", str(GOLDEN / unlock["keyfile"])]
    if number:  # a slot of priority "ignore" opens only when it is named
        words += ["--key-slot", str(unlock["slot"])]
    if plain := image.get("plain"):
        offset = plain.get("keyfile_offset", 0)
        words += ["--keyfile-offset", str(offset)] if offset else []
    for option in ("offset", "size"):
        if option in unlock:
            words += [f"--keyfile-{option}", str(unlock[option])]
    return words, b""


def open_arguments(image: dict[str, Any], files: dict[str, Path], name: str) -> list[str]:
    """The arguments of ``open`` without those of the secret."""
    words = ["open", "--type", image["type"]]
    plain = image.get("plain")
    if plain is not None:
        words += ["--cipher", plain["cipher"], "--key-size", str(plain["key_bits"])]
        words += ["--hash", plain["hash"]] if plain["hash"] else []
        words += ["--offset", str(plain["offset"]), "--skip", str(plain["skip"])]
        words += ["--size", str(plain["size"])] if plain["size"] else []
        words += ["--sector-size", str(plain["sector_size"])]
        words += ["--iv-large-sectors"] if plain["iv_large_sectors"] else []
    if "header" in files:
        words += ["--header", str(files["header"])]
    return [*words, str(files["data"]), name]
