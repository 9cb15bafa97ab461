"""The adapters of one state directory: a file each, its master keys sealed by the host key."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from .adapter import (
    MASTER_KEYS_SIZE,
    VERSION,
    Adapter,
    MasterKeys,
    pack_public,
    take_public,
)
from .atomic_file import locked, make_file, read_file, remove_file, replace_file
from .clear_bytes import wipe
from .coprocessor import AdapterInfo, Apqn
from .errors import AccessError, BusyError, FormatError, NotFoundError
from .json_object import JsonObject, pack_canonical
from .sealing import HostKey, Sealed
from .secure_guest import SecureGuest, can_be_bound, read_boot_id

_FORMAT: Final = "fusecrypt adapter"
_SUFFIX: Final = ".adapter"
_NAME: Final = re.compile(r"([0-9a-f]{2}\.[0-9a-f]{4})\.adapter")
_FILE_MAX: Final = 16 << 10  # bytes


class AdapterStore:
    """The files; every change of them happens while `locked` is held."""

    def __init__(
        self, directory: Path, host_key: HostKey, read_boot_id: Callable[[], str] = read_boot_id
    ) -> None:
        self.directory = directory
        self.host_key = host_key
        self.guest = SecureGuest(directory, host_key, read_boot_id)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the directory, which is made if need be, for a change.

        Raises:
            AccessError: the file system refuses.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AccessError(f"adapter directory {self.directory}: {error.strerror}") from error
        return locked(self.directory)

    def list_apqns(self) -> tuple[Apqn, ...]:
        """The adapters that there are, in order."""
        try:
            names = [path.name for path in self.directory.iterdir()]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise AccessError(f"adapter directory {self.directory}: {error.strerror}") from error
        matches = [match for match in map(_NAME.fullmatch, names) if match]
        return tuple(sorted(Apqn.parse(match[1]) for match in matches))

    @contextmanager
    def opened(self, apqn: Apqn) -> Generator[Adapter, None, None]:
        """The adapter with its master keys for the length of a block, at whose end they are wiped.

        Raises:
            NotFoundError: there is no such adapter.
            FormatError: the file is damaged, altered, or sealed by another host key.
            CoprocessorError, AccessError: the file or the host key cannot be read.
        """
        path = self._path(apqn)
        info, driver, sealed, public = self._read(path)
        if info.apqn != apqn:
            raise FormatError(f"{path}: it is the file of adapter {info.apqn}")
        content = self.host_key.unseal(sealed, public, str(path))
        try:
            adapter = Adapter(self._tell(info, driver), driver, MasterKeys(content))
            adapter.check(str(path))
            yield adapter
        finally:
            wipe(content)

    def create(self, adapter: Adapter) -> None:
        """Store a new adapter; the host key is made with the first one.

        Raises:
            BusyError: there is one with this APQN.
            CoprocessorError, AccessError, FormatError: the file or the host key cannot be had.
        """
        if not self.list_apqns():
            self.host_key.make()
        try:
            make_file(self._path(adapter.info.apqn), self._pack(adapter))
        except FileExistsError as error:
            raise BusyError(f"adapter {adapter.info.apqn}: exists") from error

    def replace(self, adapter: Adapter) -> None:
        """Store another state of an adapter.

        Raises:
            CoprocessorError, AccessError, FormatError: the file or the host key cannot be had.
        """
        replace_file(self._path(adapter.info.apqn), self._pack(adapter))

    def remove(self, apqn: Apqn) -> None:
        """Remove an adapter, even a damaged one, and its master keys with it.

        Raises:
            NotFoundError: there is no such adapter.
            AccessError: the file system refuses.
        """
        try:
            remove_file(self._path(apqn))
        except FileNotFoundError as error:
            raise NotFoundError(f"adapter {apqn}: does not exist") from error

    def _tell(self, info: AdapterInfo, driver: str) -> AdapterInfo:
        """With what it is to the secure guest, which does not stand in its own file."""
        if not can_be_bound(info.mode, driver):
            return info
        queue = self.guest.look(info.apqn)
        return replace(
            info, se_state=queue.state, association=queue.association, session=queue.session_id
        )

    def _path(self, apqn: Apqn) -> Path:
        return self.directory / f"{apqn}{_SUFFIX}"

    def _pack(self, adapter: Adapter) -> bytes:
        members: dict[str, Any] = {
            "format": _FORMAT,
            "version": VERSION,
            "adapter": pack_public(adapter.info, adapter.driver),
        }
        sealed = self.host_key.seal(adapter.master_keys.content, pack_canonical(members))
        members["sealed"] = sealed.pack("master_keys")
        return pack_canonical(members) + b"\n"

    def _read(self, path: Path) -> tuple[AdapterInfo, str, Sealed, bytes]:
        """What the file says, and the bytes that its seal vouches for."""
        where = str(path)
        try:
            text = read_file(path, _FILE_MAX)
        except FileNotFoundError as error:
            raise NotFoundError(f"adapter {path.stem}: does not exist") from error
        json = JsonObject.parse(text, where)
        json.take_constant("format", _FORMAT)
        version = json.take_version(VERSION)
        public = json.take_object("adapter")
        info, driver = take_public(public, where, version)
        public.finish()
        sealed = Sealed.take(json, "master_keys", MASTER_KEYS_SIZE)
        json.finish()
        # Packed again rather than kept: what is vouched for is exactly what was understood.
        vouched = {
            "format": _FORMAT,
            "version": version,
            "adapter": pack_public(info, driver, version),
        }
        return info, driver, sealed, pack_canonical(vouched)
