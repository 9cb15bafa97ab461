"""What a change of the master key has to do with: keys of the repository, key files, volumes.

Each item tells its own state from what is on disk, so a change that was cut short goes on where it
stopped: nothing else remembers it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ..dmcrypt.backing import get_size, pread_from
from ..dmcrypt.engine.client import Engine, Secret
from ..dmcrypt.engine.messages import SecretMode
from ..dmcrypt.luks2 import Luks2Header, key_change, read_header, volume_key
from ..dmcrypt.luks2.volume_key import Pending
from ..dmcrypt.luks2.volume_key_change import OpenKeyslot
from ..dmcrypt.old_header import Keep, OldHeader
from ..keystore.atomic_file import make_file, move_file, read_file, remove_file, replace_file
from ..keystore.errors import (
    AccessError,
    ConfigError,
    FormatError,
    MapperError,
    MasterKeyChangedError,
    NotFoundError,
    UnlockError,
)
from ..keystore.keys import SecureKey
from ..keystore.master_key_state import Finding, Registers, State
from ..keystore.repository import Repository
from ..keystore.repository_key import RepositoryKey
from .header_history import HeaderHistory
from .keystored.client import Keystore
from .secure_volume import SecureVolume, check_heirs, check_pattern, find_pattern

PENDING_SUFFIX: Final = ".renc"
_KEY_MAX: Final = 1008  # bytes of a key file
_WANTED: Final = "wanted: --key-file FILE"


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A file that opens keyslots, or a part of it."""

    path: str
    offset: int = 0  # bytes
    size: int = 0  # bytes; 0: all


@dataclass(frozen=True, slots=True)
class Tools:
    """Who is needed."""

    keystore: Keystore
    registers: Registers
    history: HeaderHistory
    engine: Callable[[], Engine]  # started when the first volume needs it
    may_drop: bool = False  # keyslots whose passphrase is not known


class Item(Protocol):
    """One key that has to change with the master key."""

    kind: str
    name: str

    def look(self) -> Finding:
        """Where it is.

        Raises:
            MapperError: there is no telling, for another reason than a missing passphrase.
        """
        ...

    def stage(self) -> None:
        """Re-encipher it, and let the result wait.

        Raises:
            MapperError: why not; then it is as it was.
        """
        ...

    def complete(self) -> None:
        """Put what waits into its place.

        Raises:
            MapperError: why not; then it waits on.
        """
        ...

    def rollback(self) -> bool:
        """Forget what waits; whether something did.

        Raises:
            MapperError: why not.
        """
        ...


class RepositoryItem:
    """A key of the repository."""

    kind = "key"

    def __init__(self, tools: Tools, repository: Repository, key: RepositoryKey) -> None:
        self._tools = tools
        self._repository = repository
        self._key = key
        self.name = key.name

    def look(self) -> Finding:
        try:
            secure_key = self._key.secure_key
        except FormatError:
            return Finding(State.OTHER, f"{self._key.shape.kind}: no adapter here can have it")
        return self._tools.registers.classify(secure_key, self._read_pending())

    def stage(self) -> None:
        self._repository.stage_key(self._key, _reencipher(self._tools, self._key.secure_key))

    def complete(self) -> None:
        pending = self._read_pending()
        if pending is None:
            raise ConfigError("nothing waits")
        keystore = self._tools.keystore
        pattern = keystore.validate(pending).pattern
        check_pattern(self._key.pattern or _find_pattern(keystore, self._key.token), pattern)
        self._repository.complete_key(self._key, pending)

    def rollback(self) -> bool:
        return self._repository.cancel_pending(self._key.name)

    def _read_pending(self) -> SecureKey | None:
        if not self._key.is_pending:
            return None
        token = self._repository.read_pending(self._key.name)
        return None if token is None else _parse_pending(token)


class DamagedItem:
    """A key of the repository that cannot be looked at, and keeps nothing else from being done."""

    kind = "key"

    def __init__(self, name: str, error: FormatError) -> None:
        self.name = name
        self._error = error

    def look(self) -> Finding:
        raise self._error

    def stage(self) -> None:
        raise self._error

    def complete(self) -> None:
        raise self._error

    def rollback(self) -> bool:
        raise self._error


class FileItem:
    """A secure key in a file, of a plain volume; what waits is in a file beside it."""

    kind = "file"

    def __init__(self, tools: Tools, path: str) -> None:
        self._tools = tools
        self.name = path
        self._path = Path(os.path.realpath(path))
        self._pending = self._path.with_name(self._path.name + PENDING_SUFFIX)

    def look(self) -> Finding:
        try:
            key = SecureKey.parse(read_file(self._path, _KEY_MAX + 1))
        except FileNotFoundError:
            return Finding(State.UNKNOWN, "does not exist")
        return self._tools.registers.classify(key, self._read_pending())

    def stage(self) -> None:
        key = SecureKey.parse(read_file(self._path, _KEY_MAX + 1))
        new = _reencipher(self._tools, key).token
        status = self._path.stat()
        mode, group = stat.S_IMODE(status.st_mode), status.st_gid
        if self._pending.exists():
            replace_file(self._pending, new, mode=mode, group=group)
        else:
            make_file(self._pending, new, mode=mode, group=group)

    def complete(self) -> None:
        pending = self._read_pending()
        if pending is None:
            raise ConfigError("nothing waits")
        keystore = self._tools.keystore
        pattern = keystore.validate(pending).pattern
        check_pattern(_find_pattern(keystore, read_file(self._path, _KEY_MAX + 1)), pattern)
        move_file(self._pending, self._path)

    def rollback(self) -> bool:
        if not self._pending.exists():
            return False
        remove_file(self._pending)
        return True

    def _read_pending(self) -> SecureKey | None:
        try:
            return _parse_pending(read_file(self._pending, _KEY_MAX + 1))
        except FileNotFoundError:
            return None


@dataclass(slots=True)
class VolumeItem:
    """The volume key of a LUKS2 volume."""

    tools: Tools
    name: str  # its path
    passphrases: Sequence[Passphrase] = ()
    kind: str = field(default="volume", init=False)

    def look(self) -> Finding:
        with (
            self._opened(read_only=True) as (volume, header, pending),
            self._load_secrets() as secrets,
        ):
            key = self._find_key(volume, header, secrets, key_change.list_bound(header))
            if key is None:
                waits = "; something waits" if pending else ""
                text = f"no passphrase of it is known{waits}; {_WANTED}"
                return Finding(State.UNKNOWN, text, is_waiting=bool(pending))
            waiting = [each.unbound for each in pending]
            later = self._find_key(volume, header, secrets, waiting) if waiting else None
        if pending and later is None:
            text = f"no passphrase of what waits is known; {_WANTED}"
            return Finding(State.UNKNOWN, text, is_waiting=True)
        return self.tools.registers.classify(key, later)

    def stage(self) -> None:
        with self._opened() as (volume, header, _), self._load_secrets() as secrets:
            left = list(key_change.list_bound(header))
            key: SecureKey | None = None
            slots: list[OpenKeyslot] = []
            for secret in secrets:
                for each in volume.unlock_each(header, secret, left):
                    assert each.keyslot is not None
                    slots.append(OpenKeyslot(each.keyslot, secret))
                    left.remove(each.keyslot.id)
                    key = key or volume.read_key(header, each.key)
            if key is None:
                raise UnlockError(f"no passphrase of it is known; {_WANTED}")
            if not self.tools.may_drop:
                check_heirs(header, [slot.keyslot.id for slot in slots])
            known = volume.validate(key)
            check_pattern(find_pattern(header), known.validation.pattern)
            new = volume.reencipher(known, self.tools.registers.choose_target(key))
            volume.stage(slots, new, known.validation.pattern)

    def complete(self) -> None:
        with self._opened() as (volume, header, pending), self._load_secrets() as secrets:
            waiting = [each.unbound for each in pending]
            key = self._find_key(volume, header, secrets, waiting)
            if key is None:
                raise UnlockError(f"no passphrase of what waits is known; {_WANTED}")
            pattern = volume.validate(key).validation.pattern
            check_pattern(pending[0].pattern, pattern)
            check_pattern(find_pattern(header), pattern)
            volume.activate(pending, may_drop=self.tools.may_drop)

    def rollback(self) -> bool:
        with self._opened() as (volume, _, pending):
            if pending:
                volume.cancel()
            return bool(pending)

    def _find_key(
        self,
        volume: SecureVolume,
        header: Luks2Header,
        secrets: Sequence[Secret],
        numbers: Sequence[int],
    ) -> SecureKey | None:
        for secret in secrets:
            for number in numbers:
                for each in volume.unlock_each(header, secret, [number]):
                    return volume.read_key(header, each.key)
        return None

    @contextlib.contextmanager
    def _opened(
        self, *, read_only: bool = False
    ) -> Generator[tuple[SecureVolume, Luks2Header, tuple[Pending, ...]], None, None]:
        try:
            fd = os.open(
                self.name, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NOCTTY
            )
        except FileNotFoundError:
            raise NotFoundError("does not exist") from None
        except OSError as error:
            raise AccessError(f"cannot open it: {error.strerror}") from None
        try:
            tools = self.tools
            keep = _make_keep(tools.history)
            volume = SecureVolume(tools.engine(), tools.keystore, fd, keep)
            header = volume.read()
            yield volume, header, volume_key.find_pending(header.metadata)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _load_secrets(self) -> Generator[list[Secret], None, None]:
        with contextlib.ExitStack() as stack:
            secrets: list[Secret] = []
            for passphrase in self.passphrases:
                with contextlib.suppress(FileNotFoundError, UnlockError):
                    fd = os.open(passphrase.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
                    stack.callback(os.close, fd)
                    secret = self.tools.engine().load_secret(
                        fd, SecretMode.ALL, offset=passphrase.offset, size=passphrase.size
                    )
                    secrets.append(stack.enter_context(secret))
            yield secrets


def is_secure_volume(path: str) -> bool:
    """Whether a file has the header of a volume with a secure key."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        segments = read_header(pread_from(fd), get_size(fd)).metadata.segments
    except (MapperError, OSError):
        return False
    finally:
        os.close(fd)
    return any((segment.encryption or "").startswith("paes-") for segment in segments)


def _make_keep(history: HeaderHistory) -> Keep:
    def keep(old: OldHeader) -> None:
        history.keep(old, "master-key")

    return keep


def _reencipher(tools: Tools, key: SecureKey) -> SecureKey:
    """The key under NEW if that is loaded, else under CURRENT."""
    target = tools.registers.choose_target(key)
    new = tools.keystore.reencipher(key, target)
    if new == key:
        raise ConfigError(f"is under the {target} master key already")
    return new


def _find_pattern(keystore: Keystore, token: bytes) -> str | None:
    """The verification pattern of a key, while an adapter can tell it."""
    try:
        return keystore.validate(SecureKey.parse(token)).pattern
    except MasterKeyChangedError:
        return None


def _parse_pending(token: bytes) -> SecureKey | None:
    try:
        return SecureKey.parse(token)
    except FormatError:
        return None  # to be staged anew
