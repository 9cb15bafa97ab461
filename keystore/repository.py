"""A zkey repository: its keys are added, changed, renamed, copied, re-enciphered and removed.

A crash at any moment leaves each key whole under one name at least: files are replaced whole, a
key that waits takes the place of the old one by a single rename, and nothing is removed before what
follows it is on disk.

Source: zkey's keystore.c and the manual page zkey(1) of s390-tools: rules, order of properties.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from . import key_info
from .atomic_file import link_file, move_file, remove_file
from .coprocessor import Apqn
from .errors import AccessError, BusyError, ConfigError, FormatError, NotFoundError
from .key_info import KeyInfo
from .keys import SecureKey
from .repository_directory import (
    INFO_SUFFIX,
    KEY_SUFFIX,
    PASSPHRASE_SUFFIX,
    PENDING_SUFFIX,
    FileAccess,
    RepositoryDirectory,
)
from .repository_key import (
    LUKS2,
    PAES,
    SECTOR_SIZES,
    VOLUME_TYPES,
    RepositoryKey,
    Volume,
    check_name,
)

#: In this order they are made for a new name, and in the reverse one removed.
_SUFFIXES: Final = (PENDING_SUFFIX, PASSPHRASE_SUFFIX, KEY_SUFFIX, INFO_SUFFIX)


@dataclass(frozen=True, slots=True)
class ListChange:
    """What becomes of a list of volumes or APQNs: replaced, extended, or made shorter."""

    kind: Literal["", "+", "-"]
    items: tuple[str, ...]

    def apply(self, present: Sequence[str], what: str) -> tuple[str, ...]:
        """The list afterwards.

        Raises:
            ConfigError: adds what is there, or takes away what is not.
        """
        if self.kind == "":
            return self.items
        is_adding = self.kind == "+"
        wrong = [item for item in self.items if (item in present) == is_adding]
        if wrong:
            state = "is there already" if is_adding else "is not there"
            raise ConfigError(f"{what} {wrong[0]}: {state}")
        if is_adding:
            return (*present, *self.items)
        return tuple(item for item in present if item not in self.items)


class Repository(RepositoryDirectory):
    """The keys in one directory; each method holds the repository's lock, as zkey does."""

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
        passphrase: bytearray | None = None,
    ) -> RepositoryKey:
        """Store a new AES key; the directory is made, for its owner alone, when there is none.

        Raises:
            ConfigError: a name, size or type that a repository cannot hold.
            BusyError: there is a key with this name, or a volume has one.
            FormatError: a leftover of such a key is there, or another key is damaged.
            AccessError: as `list_names`, or the file system refuses.
        """
        check_name(name)
        _check_properties(name, sector_size, volume_type)
        if passphrase is not None:
            _check_passphrase(name, passphrase, volume_type)
        info = KeyInfo(
            (
                (key_info.CIPHER, PAES),
                (key_info.IV_MODE, "plain64"),
                (key_info.CREATED, self._make_time()),
                (key_info.DESCRIPTION, description),
                (key_info.KEY_TYPE, str(secure_key.key_type)),
                (key_info.VOLUMES, ",".join(map(str, volumes))),
                (key_info.APQNS, ",".join(map(str, apqns))),
                (key_info.SECTOR_SIZE, str(sector_size)),
                (key_info.VOLUME_TYPE, volume_type.upper()),
                *(((key_info.PATTERN, pattern),) if pattern else ()),
            )
        )
        text = _pack(name, info)
        files: dict[str, bytes | bytearray] = {KEY_SUFFIX: secure_key.token}
        if passphrase is not None:
            files[PASSPHRASE_SUFFIX] = passphrase
        self._make_directory()
        with self._locked() as access:
            self._check_free(name)
            self._check_volumes(volumes, volume_type)
            # The key first: alone it shows that the second file is missing.
            for suffix, content in {**files, INFO_SUFFIX: text}.items():
                access.make(self._path(name, suffix), content)
            return self._get(name)

    def change(
        self,
        name: str,
        *,
        description: str | None = None,
        volumes: ListChange | None = None,
        apqns: ListChange | None = None,
        sector_size: int | None = None,
        volume_type: str | None = None,
        pattern: str = "",
    ) -> RepositoryKey:
        """Change what is said of a key; None leaves it. Other than LUKS2 has no dummy passphrase.

        Raises:
            MapperError: as `add` and `get`.
        """
        with self._locked() as access:
            key = self._get(name)
            kind = key.volume_type if volume_type is None else volume_type
            size = key.sector_size if sector_size is None else sector_size
            _check_properties(name, size, kind)
            changes = {key_info.CHANGED: self._make_time()}
            if description is not None:
                changes[key_info.DESCRIPTION] = description
            if volumes is not None or volume_type is not None:
                texts = key.volumes if volumes is None else volumes.apply(key.volumes, "volume")
                self._check_volumes([Volume.parse(text) for text in texts], kind, but=name)
                changes[key_info.VOLUMES] = ",".join(texts)
            if apqns is not None:
                changes[key_info.APQNS] = ",".join(apqns.apply(key.apqns, "adapter"))
            if sector_size is not None:
                changes[key_info.SECTOR_SIZE] = str(size)
            if volume_type is not None:
                changes[key_info.VOLUME_TYPE] = kind.upper()
            if pattern and not key.pattern:
                changes[key_info.PATTERN] = pattern
            self._write_info(key, changes, access)
            if kind != LUKS2 and key.passphrase_path is not None:
                remove_file(key.passphrase_path)
            return self._get(name)

    def set_passphrase(self, name: str, passphrase: bytearray) -> RepositoryKey:
        """Give a key a dummy passphrase; the caller wipes.

        Raises:
            BusyError: it has one.
            ConfigError: it cannot have one.
            MapperError: as `get`.
        """
        with self._locked() as access:
            key = self._get(name)
            if key.passphrase_path is not None:
                raise BusyError(f"key {name!r}: has a dummy passphrase; remove that first")
            if not key.is_aes:
                raise ConfigError(f"key {name!r}: is for integrity, and takes no dummy passphrase")
            _check_passphrase(name, passphrase, key.volume_type)
            path = self._path(name, PASSPHRASE_SUFFIX)
            access.make(path, passphrase)
            self._write_info(key, {key_info.CHANGED: self._make_time()}, access)
            return self._get(name)

    def remove_passphrase(self, name: str) -> RepositoryKey:
        """Take a key's dummy passphrase away.

        Raises:
            NotFoundError: it has none.
            MapperError: as `get`.
        """
        with self._locked() as access:
            key = self._get(name)
            if key.passphrase_path is None:
                raise NotFoundError(f"key {name!r}: has no dummy passphrase")
            remove_file(key.passphrase_path)
            self._write_info(key, {key_info.CHANGED: self._make_time()}, access)
            return self._get(name)

    def rename(self, name: str, new_name: str) -> RepositoryKey:
        """Give a key another name, with all that belongs to it.

        Raises:
            BusyError: there is a key of that name.
            MapperError: as `get`.
        """
        check_name(new_name)
        with self._locked():
            self._get(name)
            self._check_free(new_name)
            present = [suffix for suffix in _SUFFIXES if self._path(name, suffix).exists()]
            for suffix in present:
                link_file(self._path(name, suffix), self._path(new_name, suffix))
            for suffix in reversed(present):
                remove_file(self._path(name, suffix))
            return self._get(new_name)

    def copy(
        self, name: str, new_name: str, *, volumes: Sequence[Volume] = (), is_local: bool = False
    ) -> RepositoryKey:
        """A second key with the same content, for other volumes, or for none yet.

        ``is_local`` allows it of a key that a key-management system holds; the copy is not bound.

        Raises:
            BusyError: there is a key of that name, or a volume has one.
            ConfigError: bound to a key-management system.
            MapperError: as `get`.
        """
        check_name(new_name)
        with self._locked() as access:
            key = self._get(name)
            if key.kms and not is_local:
                raise ConfigError(
                    f"key {name!r}: is bound to {key.kms}; wanted: --local, for a copy that is not"
                )
            self._check_free(new_name)
            self._check_volumes(volumes, key.volume_type)
            kms = [known for known, _ in key.info.properties if known.startswith(key_info.KMS)]
            info = key.info.drop((key_info.CHANGED, key_info.REENCIPHERED, *kms)).put(
                {
                    key_info.CREATED: self._make_time(),
                    key_info.VOLUMES: ",".join(map(str, volumes)),
                }
            )
            text = _pack(new_name, info)
            access.make(self._path(new_name, KEY_SUFFIX), key.token)
            if key.passphrase_path is not None:
                to = self._path(new_name, PASSPHRASE_SUFFIX)  # is replaced, never written to
                link_file(key.passphrase_path, to)
            access.make(self._path(new_name, INFO_SUFFIX), text)
            return self._get(new_name)

    def remove(self, name: str, *, is_forced: bool = False) -> None:
        """Forget a key and all that belongs to it; ``is_forced``: also half of one.

        Raises:
            MapperError: as `get`.
        """
        check_name(name)
        with self._locked():
            if not is_forced:
                self._get(name)
            present = [suffix for suffix in _SUFFIXES if self._path(name, suffix).exists()]
            if not present:
                raise NotFoundError(f"key {name!r}: not in repository {self.directory}")
            for suffix in present:
                remove_file(self._path(name, suffix))

    def replace_key(self, key: RepositoryKey, new: SecureKey) -> RepositoryKey:
        """Put a re-enciphered or converted key in the place of ``key``; what waited goes.

        Raises:
            BusyError: it is another key by now.
            MapperError: as `get`.
        """
        with self._locked_for(key) as access:
            access.replace(self._path(key.name, KEY_SUFFIX), new.token)
            self._finish_reencipher(key, new, access)
            return self._get(key.name)

    def stage_key(self, key: RepositoryKey, new: SecureKey) -> RepositoryKey:
        """Let a re-enciphered key wait, instead of any that waited; ``key`` stays as it is.

        Raises:
            BusyError: it is another key by now.
            MapperError: as `get`.
        """
        with self._locked_for(key) as access:
            access.replace(self._path(key.name, PENDING_SUFFIX), new.token)
            return self._get(key.name)

    def complete_key(self, key: RepositoryKey, pending: SecureKey) -> RepositoryKey:
        """Put the key that waits, which ``pending`` is, in the place of ``key``.

        Raises:
            BusyError: one of them is another by now.
            MapperError: as `get`.
        """
        with self._locked_for(key) as access:
            if self._read_pending(key.name) != pending.token:
                raise BusyError(f"key {key.name!r}: another re-enciphered key waits by now")
            move_file(self._path(key.name, PENDING_SUFFIX), self._path(key.name, KEY_SUFFIX))
            self._finish_reencipher(key, pending, access)
            return self._get(key.name)

    def cancel_pending(self, name: str) -> bool:
        """Forget the re-enciphered key that waits; whether one did.

        Raises:
            MapperError: as `get`.
        """
        with self._locked():
            if not self._get(name).is_pending:
                return False
            remove_file(self._path(name, PENDING_SUFFIX))
            return True

    # Helpers; the lock is held.

    @contextmanager
    def _locked_for(self, key: RepositoryKey) -> Generator[FileAccess, None, None]:
        """Hold the repository while the key is still the one that the caller has seen."""
        with self._locked() as access:
            if self._get(key.name).token != key.token:
                raise BusyError(f"key {key.name!r}: was changed meanwhile")
            yield access

    # Helpers; the lock is held.

    def _finish_reencipher(self, key: RepositoryKey, new: SecureKey, access: FileAccess) -> None:
        changes = {key_info.REENCIPHERED: self._make_time()}
        if key.key_type != str(new.key_type):
            changes[key_info.KEY_TYPE] = str(new.key_type)
        self._write_info(key, changes, access)
        path = self._path(key.name, PENDING_SUFFIX)
        if path.exists():
            remove_file(path)

    def _write_info(
        self, key: RepositoryKey, changes: Mapping[str, str], access: FileAccess
    ) -> None:
        text = _pack(key.name, key.info.put(changes))
        access.replace(self._path(key.name, INFO_SUFFIX), text)

    def _make_time(self) -> str:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._now()))

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AccessError(f"repository {self.directory}: {error.strerror}") from error


def _check_properties(name: str, sector_size: int, volume_type: str) -> None:
    if sector_size not in SECTOR_SIZES:
        wanted = ", ".join(map(str, SECTOR_SIZES))
        raise ConfigError(f"key {name!r}: sector size {sector_size}, wanted one of {wanted}")
    if volume_type not in VOLUME_TYPES:
        raise ConfigError(f"key {name!r}: volume type {volume_type!r}, wanted plain or luks2")


def _check_passphrase(name: str, passphrase: bytearray, volume_type: str) -> None:
    if volume_type != LUKS2:
        raise ConfigError(f"key {name!r}: a dummy passphrase is for volume type luks2 only")
    if not passphrase:
        raise ConfigError(f"key {name!r}: an empty dummy passphrase")


def _pack(name: str, info: KeyInfo) -> bytes:
    try:
        return info.pack()
    except FormatError as error:
        raise ConfigError(f"key {name!r}: {error}") from error
