"""A zkey repository as it lies on disk: a directory, its lock, two files a key, and reading them.

Source: zkey's keystore.c and the manual page zkey(1) of s390-tools: names, modes, lock, rules.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import key_info
from .atomic_file import locked, make_file, read_file, replace_file
from .errors import AccessError, BusyError, ConfigError, FormatError, NotFoundError
from .key_info import KeyInfo
from .repository_key import LUKS2, RepositoryKey, Volume, check_name, is_name

KEY_SUFFIX: Final = ".skey"
INFO_SUFFIX: Final = ".info"
PENDING_SUFFIX: Final = ".renc"  # the re-enciphered key that waits
PASSPHRASE_SUFFIX: Final = ".pass"  # noqa: S105  a file name
_STRAY: Final = (PENDING_SUFFIX, PASSPHRASE_SUFFIX)
#: What zkey takes for a secure key: up to three times the largest token.
_KEY_MAX: Final = 1008  # bytes


@dataclass(frozen=True, slots=True)
class FileAccess:
    """Who may read and write the files of a repository: as its directory has it."""

    mode: int
    group: int

    def make(self, path: Path, content: bytes | bytearray) -> None:
        """As `make_file`."""
        make_file(path, content, mode=self.mode, group=self.group)

    def replace(self, path: Path, content: bytes | bytearray) -> None:
        """As `replace_file`."""
        replace_file(path, content, mode=self.mode, group=self.group)


class RepositoryDirectory:
    """The keys in one directory, read; each method holds the repository's lock, as zkey does."""

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

    def survey(self) -> tuple[tuple[RepositoryKey, ...], dict[str, FormatError]]:
        """All keys that are whole, in the order of their names, and what is wrong with others.

        Raises:
            NotFoundError, AccessError: as `list_names`.
        """
        keys: list[RepositoryKey] = []
        damaged: dict[str, FormatError] = {}
        with self._locked():
            for name in self._list_names():
                try:
                    keys.append(self._get(name))
                except FormatError as error:
                    damaged[name] = error
        return tuple(keys), damaged

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
                    if is_it and key.is_aes:
                        return key
        return None

    def read_pending(self, name: str) -> bytes | None:
        """The re-enciphered key that waits, if one does.

        Raises:
            MapperError: as `get`.
        """
        check_name(name)
        with self._locked():
            self._get(name)
            return self._read_pending(name)

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

    def _read_pending(self, name: str) -> bytes | None:
        try:
            token = read_file(self._path(name, PENDING_SUFFIX), _KEY_MAX + 1)
        except FileNotFoundError:
            return None
        if len(token) > _KEY_MAX:
            raise FormatError(f"{self._path(name, PENDING_SUFFIX)}: longer than {_KEY_MAX} bytes")
        return token

    def _check_whole(self, name: str, present: set[str]) -> None:
        missing = [suffix for suffix in (KEY_SUFFIX, INFO_SUFFIX) if suffix not in present]
        if missing:
            raise FormatError(
                f"key {name!r} is in an inconsistent state: {self.directory} has "
                f"{', '.join(name + suffix for suffix in sorted(present))}, and no "
                f"{' and no '.join(name + suffix for suffix in missing)}; "
                "'fusecrypt zkey remove --force' removes what is left of it"
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

    def _check_volumes(
        self, volumes: Sequence[Volume], volume_type: str, *, but: str | None = None
    ) -> None:
        """A volume has one key; with LUKS2 a second one for its integrity. ``but``: its own key."""
        wanted = {volume.path for volume in volumes}
        if len(wanted) != len(volumes):
            raise ConfigError("volumes: one stands there twice")
        for name in self._list_names() if volumes else ():
            if name == but:
                continue
            key = self._get(name)
            is_other_half = volume_type == key.volume_type == LUKS2 and not key.is_aes
            for text in key.volumes:
                path = text.rpartition(":")[0]
                if path in wanted and not is_other_half:
                    raise BusyError(f"volume {path}: key {name!r} is for it")

    @contextmanager
    def _locked(self) -> Generator[FileAccess, None, None]:
        """Hold the repository; gives who may read and write its files."""
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
        access = FileAccess(status.st_mode & 0o664, status.st_gid)
        with locked(self.directory, mode=access.mode, group=access.group):
            yield access
