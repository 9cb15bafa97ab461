"""A zkey repository: a directory with a secure key and its properties in two files each.

Source: zkey's keystore.c and the manual page zkey(1) of s390-tools: names, modes, lock, rules.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from . import key_info
from .atomic_file import locked, make_file, read_file
from .coprocessor import Apqn
from .errors import AccessError, BusyError, ConfigError, FormatError, NotFoundError
from .key_info import KeyInfo
from .keys import SecureKey

KEY_SUFFIX: Final = ".skey"
INFO_SUFFIX: Final = ".info"
PENDING_SUFFIX: Final = ".renc"  # the re-enciphered key that waits
PASSPHRASE_SUFFIX: Final = ".pass"  # noqa: S105  a file name
_STRAY: Final = (PENDING_SUFFIX, PASSPHRASE_SUFFIX)
#: What zkey takes for a secure key: up to three times the largest token.
_KEY_MAX: Final = 1008  # bytes
_NAME_FORBIDDEN: Final = re.compile(r"""[/\\ *?'"\x00-\x1f\x7f]""")
_VOLUME_FORBIDDEN: Final = re.compile(r"[,*?\x00-\x1f\x7f]")
_NAME_MAX: Final = 240  # bytes, so that a suffix still fits a file name
SECTOR_SIZES: Final = (0, 512, 1024, 2048, 4096)  # 0: the system's default
LUKS2: Final = "luks2"
PLAIN: Final = "plain"
VOLUME_TYPES: Final = (PLAIN, LUKS2)
_PAES: Final = "paes"


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


class Repository:
    """The keys in one directory; each method holds the repository's lock, as zkey does."""

    def __init__(self, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self._now = now

    def list_names(self) -> tuple[str, ...]:
        """The names of all keys, in order, whatever state they are in.

        Raises:
            NotFoundError: there is no such directory.
            AccessError: it cannot be used, or others may write to it.
        """
        with self._locked():
            return self._list_names()

    def list(self) -> tuple[RepositoryKey, ...]:
        """All keys, in the order of their names.

        Raises:
            FormatError: a key is damaged or incomplete; names it.
            NotFoundError, AccessError: as `list_names`.
        """
        with self._locked():
            return tuple(self._get(name) for name in self._list_names())

    def get(self, name: str) -> RepositoryKey:
        """One key.

        Raises:
            NotFoundError: there is no such key, or no such directory.
            FormatError: it is damaged or incomplete.
            ConfigError: no key can have this name.
            AccessError: as `list_names`.
        """
        check_name(name)
        with self._locked():
            return self._get(name)

    def find_by_volume(self, path: str, dm_name: str | None = None) -> RepositoryKey | None:
        """The AES key of a volume, known by its path, or by path and dm name.

        Raises:
            FormatError, NotFoundError, AccessError: as `list`.
        """
        with self._locked():
            for name in self._list_names():
                key = self._get(name)
                for text in key.volumes:
                    there, _, its_name = text.rpartition(":")
                    is_it = there == path and dm_name in (None, its_name)
                    if is_it and key.info.get(key_info.CIPHER) == _PAES:
                        return key
        return None

    def add(
        self,
        name: str,
        secure_key: SecureKey,
        *,
        pattern: str = "",
        description: str = "",
        volumes: Sequence[Volume] = (),
        apqns: Sequence[Apqn] = (),
        sector_size: int = 0,
        volume_type: str = LUKS2,
    ) -> RepositoryKey:
        """Store a new AES key; the directory is made, for its owner alone, when there is none.

        Raises:
            ConfigError: a name, size or type that a repository cannot hold.
            BusyError: there is a key with this name, or a volume has one.
            FormatError: a leftover of such a key is there, or another key is damaged.
            AccessError: as `list_names`, or the file system refuses.
        """
        check_name(name)
        if sector_size not in SECTOR_SIZES:
            wanted = ", ".join(map(str, SECTOR_SIZES))
            raise ConfigError(f"key {name!r}: sector size {sector_size}, wanted one of {wanted}")
        if volume_type not in VOLUME_TYPES:
            raise ConfigError(f"key {name!r}: volume type {volume_type!r}, wanted plain or luks2")
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._now()))
        info = KeyInfo(
            (
                (key_info.CIPHER, _PAES),
                (key_info.IV_MODE, "plain64"),
                (key_info.CREATED, created),
                (key_info.DESCRIPTION, description),
                (key_info.KEY_TYPE, str(secure_key.key_type)),
                (key_info.VOLUMES, ",".join(map(str, volumes))),
                (key_info.APQNS, ",".join(map(str, apqns))),
                (key_info.SECTOR_SIZE, str(sector_size)),
                (key_info.VOLUME_TYPE, volume_type.upper()),
                *(((key_info.PATTERN, pattern),) if pattern else ()),
            )
        )
        try:
            text = info.pack()
        except FormatError as error:
            raise ConfigError(f"key {name!r}: {error}") from error
        self._make_directory()
        with self._locked() as (mode, group):
            self._check_free(name)
            self._check_volumes(volumes, volume_type)
            # The key first: alone it shows that the second file is missing.
            for suffix, content in ((KEY_SUFFIX, secure_key.token), (INFO_SUFFIX, text)):
                make_file(self._path(name, suffix), content, mode=mode, group=group)
            return self._get(name)

    # Helpers; the lock is held.

    def _path(self, name: str, suffix: str) -> Path:
        return self.directory / f"{name}{suffix}"

    def _list_names(self) -> tuple[str, ...]:
        names = {
            path.name.removesuffix(suffix)
            for path in self.directory.iterdir()
            for suffix in (KEY_SUFFIX, INFO_SUFFIX)
            if path.name.endswith(suffix)
        }
        return tuple(sorted(name for name in names if is_name(name)))

    def _get(self, name: str) -> RepositoryKey:
        path = self._path(name, KEY_SUFFIX)
        present = {
            suffix
            for suffix in (KEY_SUFFIX, INFO_SUFFIX, *_STRAY)
            if self._path(name, suffix).exists()
        }
        if not present:
            raise NotFoundError(f"key {name!r}: not in repository {self.directory}")
        self._check_whole(name, present)
        try:
            token = read_file(path, _KEY_MAX + 1)
            text = read_file(self._path(name, INFO_SUFFIX), key_info.SIZE_MAX)
        except FileNotFoundError as error:  # by one who does not take the lock
            raise NotFoundError(f"key {name!r}: removed meanwhile") from error
        if len(token) > _KEY_MAX:
            raise FormatError(f"{path}: longer than {_KEY_MAX} bytes")
        try:
            info = KeyInfo.parse(text)
        except FormatError as error:
            raise FormatError(f"{self._path(name, INFO_SUFFIX)}: {error}") from error
        has_passphrase = PASSPHRASE_SUFFIX in present
        return RepositoryKey(
            name=name,
            path=path,
            token=token,
            info=info,
            is_pending=PENDING_SUFFIX in present,
            passphrase_path=self._path(name, PASSPHRASE_SUFFIX) if has_passphrase else None,
        )

    def _check_whole(self, name: str, present: set[str]) -> None:
        missing = [suffix for suffix in (KEY_SUFFIX, INFO_SUFFIX) if suffix not in present]
        if missing:
            raise FormatError(
                f"key {name!r} is in an inconsistent state: {self.directory} has "
                f"{', '.join(name + suffix for suffix in sorted(present))}, and no "
                f"{' and no '.join(name + suffix for suffix in missing)}"
            )

    def _check_free(self, name: str) -> None:
        present = {
            suffix
            for suffix in (KEY_SUFFIX, INFO_SUFFIX, *_STRAY)
            if os.path.lexists(self._path(name, suffix))
        }
        if present:
            self._check_whole(name, present)
            raise BusyError(f"key {name!r}: exists in repository {self.directory}")

    def _check_volumes(self, volumes: Sequence[Volume], volume_type: str) -> None:
        """A volume has one key; with LUKS2 a second one for its integrity."""
        wanted = {volume.path for volume in volumes}
        if len(wanted) != len(volumes):
            raise ConfigError("volumes: one stands there twice")
        for name in self._list_names() if volumes else ():
            key = self._get(name)
            is_other_half = (
                volume_type == key.volume_type == LUKS2 and key.info.get(key_info.CIPHER) != _PAES
            )
            for text in key.volumes:
                path = text.rpartition(":")[0]
                if path in wanted and not is_other_half:
                    raise BusyError(f"volume {path}: key {name!r} is for it")

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AccessError(f"repository {self.directory}: {error.strerror}") from error

    @contextmanager
    def _locked(self) -> Generator[tuple[int, int], None, None]:
        """Hold the repository; gives mode and group of new files."""
        try:
            status = self.directory.stat()
        except FileNotFoundError as error:
            raise NotFoundError(f"repository {self.directory}: does not exist") from error
        except OSError as error:
            raise AccessError(f"repository {self.directory}: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise AccessError(f"repository {self.directory}: no directory")
        if status.st_mode & stat.S_IWOTH:
            raise AccessError(
                f"repository {self.directory}: mode {stat.S_IMODE(status.st_mode):04o} lets "
                "others write to it, which is not accepted"
            )
        if not os.access(self.directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise AccessError(f"repository {self.directory}: not readable and writable")
        mode = status.st_mode & 0o664
        with locked(self.directory, mode=mode, group=status.st_gid):
            yield mode, status.st_gid


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
