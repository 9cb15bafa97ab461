"""A key of a zkey repository, and the volumes it is for: values, and what they may hold.

Source: zkey's keystore.c and the manual page zkey(1) of s390-tools: names, rules.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from . import key_info
from .errors import ConfigError, FormatError
from .key_info import KeyInfo
from .keys import SecureKey
from .token_shape import TokenShape, describe_token

_NAME_FORBIDDEN: Final = re.compile(r"""[/\\ *?'"\x00-\x1f\x7f]""")
_VOLUME_FORBIDDEN: Final = re.compile(r"[,*?\x00-\x1f\x7f]")
_NAME_MAX: Final = 240  # bytes, so that a suffix still fits a file name
SECTOR_SIZES: Final = (0, 512, 1024, 2048, 4096)  # 0: the system's default
LUKS2: Final = "luks2"
PLAIN: Final = "plain"
VOLUME_TYPES: Final = (PLAIN, LUKS2)
PAES: Final = "paes"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume that a key is for, ``PATH:DMNAME``; the path may be an image that is not there."""

    path: str
    dm_name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """A volume as people write it.

        Raises:
            ConfigError: not of this form, or with characters that a repository cannot hold.
        """
        path, colon, dm_name = text.rpartition(":")
        if not colon or not path or not dm_name or "/" in dm_name:
            raise ConfigError(f"volume {text!r}: wanted PATH:DMNAME")
        if _VOLUME_FORBIDDEN.search(text):
            raise ConfigError(f"volume {text!r}: no commas, wildcards or control characters")
        return cls(path, dm_name)

    def __str__(self) -> str:
        return f"{self.path}:{self.dm_name}"


@dataclass(frozen=True, slots=True)
class RepositoryKey:
    """A key of a repository as it was read; times are local, like 2026-01-31 12:00:00."""

    name: str
    path: Path  # of the .skey file
    token: bytes = field(repr=False)
    info: KeyInfo
    is_pending: bool  # a re-enciphered key waits
    passphrase_path: Path | None  # of the dummy passphrase

    @property
    def secure_key(self) -> SecureKey:
        """The key itself.

        Raises:
            FormatError: damaged, or of a type that is not supported.
        """
        try:
            return SecureKey.parse(self.token)
        except FormatError as error:
            raise FormatError(f"{self.path}: {error}") from error

    @property
    def shape(self) -> TokenShape:
        """What can be told of the key, also of kinds that are not supported.

        Raises:
            FormatError: damaged, or of no kind that zkey knows.
        """
        try:
            return describe_token(self.token)
        except FormatError as error:
            raise FormatError(f"{self.path}: {error}") from error

    @property
    def volumes(self) -> tuple[str, ...]:
        """``PATH:DMNAME`` each."""
        return _split(self.info.get(key_info.VOLUMES))

    @property
    def apqns(self) -> tuple[str, ...]:
        return _split(self.info.get(key_info.APQNS))

    @property
    def key_type(self) -> str:
        return self.info.get(key_info.KEY_TYPE) or "CCA-AESDATA"  # older files have none

    @property
    def volume_type(self) -> str:
        return self.info.get(key_info.VOLUME_TYPE).lower() or PLAIN  # older files have none

    @property
    def sector_size(self) -> int:
        """Bytes; 0: the system's default."""
        text = self.info.get(key_info.SECTOR_SIZE) or "0"
        if not text.isascii() or not text.isdigit() or int(text[:9]) not in SECTOR_SIZES:
            raise FormatError(f"key {self.name!r}: sector size {text!r}")
        return int(text[:9])

    @property
    def description(self) -> str:
        return self.info.get(key_info.DESCRIPTION)

    @property
    def pattern(self) -> str:
        """The verification pattern: 64 hexadecimal digits, or nothing."""
        return self.info.get(key_info.PATTERN)

    @property
    def created(self) -> str:
        return self.info.get(key_info.CREATED)

    @property
    def changed(self) -> str:
        return self.info.get(key_info.CHANGED)

    @property
    def reenciphered(self) -> str:
        return self.info.get(key_info.REENCIPHERED)

    @property
    def is_aes(self) -> bool:
        """Whether it enciphers; else it is for integrity."""
        return self.info.get(key_info.CIPHER) == PAES

    @property
    def kms(self) -> str:
        """The key-management system that it is bound to; nothing for local keys."""
        return self.info.get(key_info.KMS)


def is_name(name: str) -> bool:
    """A key may have this name."""
    return (
        bool(name)
        and not name.startswith(".")
        and _NAME_FORBIDDEN.search(name) is None
        and len(os.fsencode(name)) <= _NAME_MAX
    )


def check_name(name: str) -> None:
    """That a key may have this name.

    Raises:
        ConfigError: it may not.
    """
    if not is_name(name):
        raise ConfigError(
            f"key name {name!r}: wanted up to {_NAME_MAX} bytes, no slash, backslash, blank, "
            "wildcard, quote or control character, no dot in front"
        )


def _split(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)
