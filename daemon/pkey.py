"""``dev/pkey``: random keys as tokens, as the sysfs attributes of IBM Z's pkey driver give them.

Source: drivers/s390/crypto/pkey_sysfs.c. Every open yields a new key, which nobody has ever seen in
clear: a protected key of this engine's session, or a secure key of an adapter.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..dmcrypt.engine.messages import PkeyType
from ..keystore.tokens import KeyType

if TYPE_CHECKING:
    from ..dmcrypt.engine.client import Engine
    from .key_service import KeyService
    from .tree import Tree


@dataclass(frozen=True, slots=True)
class ProtectedKind:
    """Protected keys, one after the other."""

    type: PkeyType
    count: int = 1


@dataclass(frozen=True, slots=True)
class SecureKind:
    """A secure key; for XTS a pair."""

    type: KeyType
    bits: int  # of one half
    is_xts: bool = False


@dataclass(frozen=True, slots=True)
class TokenKind:
    """What one file of dev/pkey gives."""

    group: str
    name: str
    size: int  # bytes
    recipe: ProtectedKind | SecureKind


def _protected(name: str, size: int, kind: PkeyType, count: int = 1) -> TokenKind:
    return TokenKind("protkey", f"protkey_{name}", size, ProtectedKind(kind, count))


def _secure(group: str, kind: KeyType, size: int) -> tuple[TokenKind, ...]:
    single = (
        TokenKind(group, f"{group}_aes_{bits}", size, SecureKind(kind, bits))
        for bits in (128, 192, 256)
    )
    pairs = (
        TokenKind(group, f"{group}_aes_{bits}_xts", 2 * size, SecureKind(kind, bits, is_xts=True))
        for bits in (128, 256)
    )
    return (*single, *pairs)


#: Where the kernel's driver has its attributes: crypttab lines written for IBM Z name files there.
#: A protected key of the machine would be of no use to the engine, so ours are taken.
SYSFS: Final = Path("/sys/devices/virtual/misc/pkey")

#: Names and sizes as on IBM Z.
TOKEN_KINDS: Final = (
    _protected("aes_128", 80, PkeyType.AES_128),
    _protected("aes_192", 80, PkeyType.AES_192),
    _protected("aes_256", 80, PkeyType.AES_256),
    _protected("aes_128_xts", 160, PkeyType.AES_128, 2),
    _protected("aes_256_xts", 160, PkeyType.AES_256, 2),
    _protected("aes_xts_128", 80, PkeyType.AES_XTS_128),
    _protected("aes_xts_256", 112, PkeyType.AES_XTS_256),
    *_secure("ccadata", KeyType.CCA_AESDATA, 64),
    *_secure("ccacipher", KeyType.CCA_AESCIPHER, 136),
    *_secure("ep11", KeyType.EP11_AES, 336),
)


def find_token_kind(path: str, device_dir: Path) -> TokenKind | None:
    """The kind of key that is made when the path is opened; None: an ordinary file."""
    plain = Path(os.path.normpath(path))
    for kind in TOKEN_KINDS:
        if plain in (place / kind.group / kind.name for place in (device_dir / "pkey", SYSFS)):
            return kind
    return None


class PkeyTokens:
    """Makes tokens. Blocks; any thread may call."""

    def __init__(self, device_dir: Path, engine: Engine, key_service: KeyService) -> None:
        self._device_dir = device_dir
        self._engine = engine
        self._key_service = key_service

    def make(self, kind: TokenKind) -> bytes:
        """A new random key of ``kind.size`` bytes.

        Raises:
            CoprocessorError: no adapter that makes secure keys.
            EngineError: the engine is gone.
        """
        recipe = kind.recipe
        if isinstance(recipe, ProtectedKind):
            token = b"".join(self._engine.make_pkey_token(recipe.type) for _ in range(recipe.count))
        else:
            token = self._key_service.generate(
                recipe.type, key_bits=recipe.bits, xts=recipe.is_xts
            ).token
        assert len(token) == kind.size
        return token

    def open(self, kind: TokenKind) -> int:
        """A descriptor of an unnamed file with such a token, to be closed by the caller.

        Raises:
            MapperError: as `make`.
        """
        token = self.make(kind)
        fd = os.memfd_create(kind.name, os.MFD_CLOEXEC)
        try:
            os.write(fd, token)
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_path(self, path: str) -> int | None:
        """As `open`, if the path is one of those files: to open it would wait for ourselves.

        Raises:
            MapperError: as `make`.
        """
        kind = find_token_kind(path, self._device_dir)
        return None if kind is None else self.open(kind)


class OwnFiles:
    """The files of our own mount, as descriptors come in from others. Blocks."""

    def __init__(self, device: int, tree: Tree, tokens: PkeyTokens) -> None:
        """``device`` is the st_dev of the mount."""
        self._device = device
        self._tree = tree
        self._tokens = tokens

    def is_own(self, fd: int) -> bool:
        """Whether the file is in our mount."""
        return os.fstat(fd).st_dev == self._device

    def open_token(self, fd: int) -> int | None:
        """A descriptor of a new token, if the file is one of dev/pkey.

        Raises:
            MapperError: as `PkeyTokens.make`.
        """
        kind = self._tree.find_token_kind(os.fstat(fd).st_ino)
        return None if kind is None else self._tokens.open(kind)


#: Makes a token for a reader of a file: what the name space calls, away from its own thread.
TokenMaker = Callable[[TokenKind], bytes]
