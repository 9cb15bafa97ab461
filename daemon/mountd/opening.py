"""What the daemon may have opened: the crypttab of root, and what one entry of it names."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...dmcrypt.backing import open_device_lock
from ...dmcrypt.passed_fds import close_fds
from ...keystore.errors import ConfigError, NotFoundError, PolicyError, UnsupportedError
from ..config import CrypttabSource, load_settings
from ..crypttab import Crypttab, CrypttabEntry, load_crypttabs
from ..entry_files import open_entry_files, reopen
from ..key_file import open_key_file
from .mounting import find_device
from .packets import MAX_FDS
from .safe_path import find_path

log = logging.getLogger(__name__)


_MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Opened:
    """What was opened, and the descriptors of it, which the caller closes."""

    content: Mapping[str, object]
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens what root's crypttab names.

    ``sources`` are the files of that crypttab; None: those of root's settings, at each request.
    """

    mount_point: Path
    sources: tuple[CrypttabSource, ...] | None = None

    def open_crypttab(self) -> Opened:
        """Descriptors of the crypttab's files, as far as they are there and root's alone.

        Raises:
            NotFoundError: a file that root's settings name is not there.
        """
        files: list[dict[str, object]] = []
        refused: list[dict[str, str]] = []
        fds: list[int] = []
        try:
            for source in self._get_sources()[:MAX_FDS]:
                try:
                    fds.append(open_trusted(source.path))
                except FileNotFoundError:
                    if source.required:
                        raise NotFoundError(f"crypttab {source.path}: no such file") from None
                except (PolicyError, OSError) as error:
                    refused.append({"path": str(source.path), "reason": str(error)})
                else:
                    files.append({"path": str(source.path), "whole": source.whole})
        except BaseException:
            close_fds(fds)
            raise
        return Opened({"files": files, "refused": refused}, tuple(fds))

    def open_entry(self, name: str) -> Opened:
        """Source and header of one entry, and for each that is a device cryptsetup's lock of it.

        Raises:
            MapperError: there is no such entry, or a file of it cannot be opened.
        """
        entry = self.find_entry(name)
        for path in (entry.source_path, entry.options.header):
            if path is not None:
                self._refuse_own(path)
        device = find_device(self.mount_point)
        major, minor = (int(n) for n in device.split(":")) if device else (0, 0)
        own_device = os.makedev(major, minor)
        files = open_entry_files(entry, own_device=own_device, find=find_path)
        fds = [file.fd for file in files if file is not None]
        described: list[dict[str, object] | None] = []
        try:
            for file in files:
                lock = None if file is None else open_device_lock(file.fd)
                if lock is not None:
                    fds.append(lock)
                described.append(
                    None if file is None else {"path": file.path, "locked": lock is not None}
                )
        except BaseException:
            close_fds(fds)
            raise
        source, header = described
        return Opened({"source": source, "header": header}, tuple(fds))

    def open_key_file(self, name: str) -> Opened:
        """The entry's key file, if it has one.

        Raises:
            MapperError: there is no such entry, or the file cannot be opened.
        """
        entry = self.find_entry(name)
        if entry.key_file is not None:
            self._refuse_own(entry.key_file)
        file = open_key_file(entry, find=find_path)
        return Opened({"path": None}) if file is None else Opened({"path": file.path}, (file.fd,))

    def find_entry(self, name: str) -> CrypttabEntry:
        """The usable entry of this name.

        Raises:
            NotFoundError: there is none.
            MapperError: its line cannot be used.
        """
        entry = self._load().find(name)
        if entry is None:
            raise NotFoundError(f"{name}: no such entry in the crypttab")
        entry.check()
        return entry

    def _load(self) -> Crypttab:
        return load_crypttabs(self._get_sources(), _open_or_skip)

    def _get_sources(self) -> tuple[CrypttabSource, ...]:
        return load_settings().crypttabs if self.sources is None else self.sources

    def _refuse_own(self, path: str) -> None:
        """The daemon serves its own files itself; to look one up here would wait for it."""
        if Path(os.path.normpath(path)).is_relative_to(self.mount_point):
            raise UnsupportedError(
                f"{path}: is a file of this daemon, which cannot hold another of its own"
            )


def open_trusted(path: Path) -> int:
    """A descriptor of a regular file that only root can change.

    Raises:
        PolicyError: another could.
        OSError: as open(2).
    """
    found = find_path(str(path))
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise PolicyError(f"{path}: is not a regular file")
        if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PolicyError(
                f"{path}: belongs to user {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o};"
                " wanted: root's, and writable by nobody else"
            )
        return reopen(found, os.O_RDONLY)
    finally:
        os.close(found)


def _open_or_skip(path: Path) -> int:
    """A file that is not root's alone costs its own entries, not those of the others."""
    try:
        return open_trusted(path)
    except PolicyError as error:
        log.error("crypttab %s: not used", error)  # noqa: TRY400 (no bug of ours)
        raise FileNotFoundError from None


def get_name(request: Mapping[str, object]) -> str:
    """The entry that a request is about.

    Raises:
        ConfigError: it names none.
    """
    name = request.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise ConfigError("request: no name of an entry")
    return name
