"""The .info file of a key in a zkey repository: text to a value and back.

Source: libkeyutils' properties.c and keystore.c of s390-tools. Lines NAME=VALUE in their order,
then __hash__= and the SHA-256 over the bytes of all names and values in that order, without
separators. Lines that begin with # and empty ones are no properties.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Self

from .errors import FormatError

HASH_NAME: Final = "__hash__"
LINE_MAX: Final = 4095  # bytes; zkey reads no longer ones
SIZE_MAX: Final = 1 << 20  # bytes of a whole file

CIPHER: Final = "cipher"
IV_MODE: Final = "iv-mode"
CREATED: Final = "creation-time"
CHANGED: Final = "update-time"
REENCIPHERED: Final = "reencipher-time"
DESCRIPTION: Final = "description"
KEY_TYPE: Final = "key-type"
VOLUMES: Final = "volumes"
APQNS: Final = "apqns"
SECTOR_SIZE: Final = "sector-size"
VOLUME_TYPE: Final = "volume-type"
PATTERN: Final = "verification-pattern"
KMS: Final = "kms"
KMS_LABEL: Final = "kms-key-label"


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The properties of a key, in the order of the file; those that we do not know too."""

    properties: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Decode a whole file, its hash checked.

        Raises:
            FormatError: a line is no property, a name stands twice, or the hash is wrong.
        """
        properties: dict[str, str] = {}
        for number, line in enumerate(text.split(b"\n"), 1):
            if not line or line.startswith(b"#"):
                continue
            if len(line) > LINE_MAX:
                raise FormatError(f"line {number}: {len(line)} bytes, at most {LINE_MAX}")
            try:
                name, equals, value = line.decode().partition("=")
            except UnicodeDecodeError as error:
                raise FormatError(f"line {number}: no UTF-8") from error
            if not equals or not name:
                raise FormatError(f"line {number}: no NAME=VALUE")
            if name in properties:
                raise FormatError(f"line {number}: {name} for the second time")
            properties[name] = value
        told = properties.pop(HASH_NAME, None)
        if told is None:
            raise FormatError(f"no {HASH_NAME}")
        info = cls(tuple(properties.items()))
        if not hmac.compare_digest(told.encode(), info.make_hash().encode()):
            raise FormatError("altered: its hash is not the properties'")
        return info

    def pack(self) -> bytes:
        """The whole file.

        Raises:
            FormatError: a property that the format cannot hold.
        """
        lines: list[str] = []
        try:
            told = self.make_hash()
        except UnicodeEncodeError as error:
            raise FormatError("a property is no UTF-8") from error
        for name, value in (*self.properties, (HASH_NAME, told)):
            line = f"{name}={value}"
            if not name or name.startswith("#") or "=" in name or "\n" in line or "\0" in line:
                raise FormatError(f"property {name!r}: it cannot hold this text")
            if len(line.encode()) > LINE_MAX:
                raise FormatError(f"property {name}: longer than {LINE_MAX} bytes")
            lines.append(line)
        return "".join(line + "\n" for line in lines).encode()

    def make_hash(self) -> str:
        """64 hexadecimal digits over names and values."""
        digest = hashlib.sha256()
        for name, value in self.properties:
            digest.update(name.encode())
            digest.update(value.encode())
        return digest.hexdigest()

    def get(self, name: str) -> str:
        """The value of a property; empty where there is none, which zkey takes for the same."""
        return dict(self.properties).get(name, "")

    def put(self, changes: Mapping[str, str]) -> KeyInfo:
        """These properties with other values; new ones come last."""
        known = dict(self.properties)
        return KeyInfo(tuple({**known, **changes}.items()))

    def drop(self, names: Collection[str]) -> KeyInfo:
        """Without these properties."""
        return KeyInfo(tuple((name, text) for name, text in self.properties if name not in names))
