"""Old headers, kept in the state directory before each change: made, listed, pruned, wiped.

`STATE/headers/UUID/TIME-EPOCH-REASON.luks2` (or `.luks1`), mode 0600, is what luksHeaderBackup
would have made, with holes where no key material is. A volume's newest `KEEP` are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ..dmcrypt.old_header import OldHeader
from ..keystore.atomic_file import sync_directory
from ..keystore.errors import AccessError, NotFoundError

#: Backups of one volume; older ones are removed when a new one is made.
KEEP: Final = 10

_UUID: Final = re.compile(r"[0-9a-fA-F-]{1,40}")
_NAME: Final = re.compile(r"([0-9]{8}T[0-9]{6}\.[0-9]{6}Z)-([0-9]+)-([A-Za-z-]+)\.luks[12]")
_TIME: Final = "%Y%m%dT%H%M%S.%fZ"
_TEMPORARY: Final = ".new"
_LEFTOVER_AGE: Final = 3600  # seconds; what another process is just writing is younger


@dataclass(frozen=True, slots=True)
class Backup:
    """One old header."""

    path: Path
    time: datetime  # UTC, when it was replaced
    epoch: int  # its sequence number
    reason: str  # the action that replaced it


class HeaderHistory:
    """The old headers of all volumes."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "headers"

    def keep(self, old: OldHeader, reason: str) -> Path:
        """Make an old header durable; the file.

        Raises:
            AccessError: it cannot be written; then the header must not be changed.
        """
        directory = self._get_directory(old.uuid)
        name = f"{datetime.now(UTC).strftime(_TIME)}-{old.epoch}-{reason}.{old.type}"
        path = directory / name
        try:
            self._directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            for each in (self._directory, directory):
                each.mkdir(mode=0o700, exist_ok=True)
            _write(path, old)
            sync_directory(directory)
            self._prune(directory)
        except OSError as error:
            raise AccessError(
                f"backup of the header {path}: {error.strerror}; without one no header is changed "
                "(FUSECRYPT_STATE_DIR says where)"
            ) from None
        return path

    def list_backups(self, uuid: str) -> list[Backup]:
        """A volume's old headers, the newest first.

        Raises:
            AccessError: they cannot be listed.
        """
        return _list(self._get_directory(uuid))

    def get_backup(self, uuid: str, number: int) -> Backup:
        """One of them, counted from 1, the newest.

        Raises:
            NotFoundError: there are not so many.
        """
        backups = self.list_backups(uuid)
        if not 1 <= number <= len(backups):
            raise NotFoundError(
                f"header {number} of {uuid}: there are {len(backups)} in {self._directory}"
            )
        return backups[number - 1]

    def remove(self, backup: Backup) -> None:
        """Overwrite a backup and remove it.

        Raises:
            AccessError: it cannot be.
        """
        try:
            _remove(backup.path)
        except OSError as error:
            raise AccessError(f"{backup.path}: cannot remove it: {error.strerror}") from None

    def _get_directory(self, uuid: str) -> Path:
        """The header's word is not trusted: it becomes a file name."""
        if _UUID.fullmatch(uuid):
            return self._directory / uuid.lower()
        return self._directory / hashlib.sha256(uuid.encode("utf-8", "surrogateescape")).hexdigest()

    def _prune(self, directory: Path) -> None:
        backups = _list(directory)
        # Copies of one volume have its UUID: another change may prune here at the same time.
        for backup in backups[KEEP:]:
            with contextlib.suppress(FileNotFoundError):
                _remove(backup.path)
        for leftover in directory.glob(f"*{_TEMPORARY}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE:
                    _remove(leftover)


def _list(directory: Path) -> list[Backup]:
    """The newest first, as their names begin with the time."""
    try:
        paths = sorted(directory.iterdir(), reverse=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AccessError(f"{directory}: {error.strerror}") from None
    backups: list[Backup] = []
    for path in paths:
        if match := _NAME.fullmatch(path.name):
            when = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)
            backups.append(Backup(path, when, int(match[2]), match[3]))
    return backups


def _write(path: Path, old: OldHeader) -> None:
    temporary = path.with_name(path.name + _TEMPORARY)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, old.size)
        for offset, data in old.pieces:
            _write_at(fd, data, offset)
        os.fsync(fd)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _write_at(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def _remove(path: Path) -> None:
    """Overwritten first: key material may lie in it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        at = 0
        while at < size:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            end = os.lseek(fd, at, os.SEEK_HOLE)
            while at < end:
                at += os.pwrite(fd, bytes(min(end - at, 1 << 20)), at)
        os.fsync(fd)
    finally:
        os.close(fd)
    path.unlink()
