"""The daemon's side of fusecrypt-mountd: files of the crypttab, the mount, questions. It blocks."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from ...dmcrypt.passed_fds import close_fds
from ...keystore.errors import AccessError, UnlockError
from ..activation import OpenFile
from ..config import CrypttabSource
from ..crypttab import Problem, load_crypttabs
from ..crypttab_files import wait_for_writer
from ..crypttab_options import Verdict
from ..entry_files import make_recipe
from ..key_file import KeyFile
from . import packets

if TYPE_CHECKING:
    from ..activation import Recipe
    from ..crypttab import Crypttab, CrypttabEntry

log = logging.getLogger(__name__)

#: Seconds for what needs no disk and nobody's answer.
_TIMEOUT: Final = 10.0


@dataclass(slots=True)
class Answer:
    """What mountd answered; whoever holds it owns the descriptors."""

    content: dict[str, object]
    fds: list[int]

    def get_text(self, name: str) -> str | None:
        """A text of the answer, None for null.

        Raises:
            PacketError: it is something else.
        """
        value = self.content.get(name)
        if value is None or isinstance(value, str):
            return value
        raise packets.PacketError(f"mountd: {name} is not a text")

    def get_object(self, name: str) -> dict[str, object] | None:
        """An object of the answer, None for null.

        Raises:
            PacketError: it is something else.
        """
        value = self.content.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise packets.PacketError(f"mountd: {name} is not an object")
        return cast("dict[str, object]", value)

    def check_fds(self, count: int) -> None:
        """Insist on so many descriptors; otherwise they are closed.

        Raises:
            PacketError: there are fewer or more.
        """
        if len(self.fds) != count:
            close_fds(self.fds)
            raise packets.PacketError(f"mountd: {len(self.fds)} descriptors, wanted {count}")


class Connection:
    """One connection to mountd."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self.socket.connect(str(path))
        except OSError as error:
            self.socket.close()
            raise AccessError(f"mountd at {path}: {error.strerror}") from None

    def call(self, method: str, *, timeout: float | None = None, **fields: object) -> Answer:
        """Ask for something.

        Raises:
            MapperError: mountd's own error, or it is not there any more.
        """
        self.socket.settimeout(timeout)
        try:
            packets.send(self.socket, packets.pack({"call": method, **fields}))
            data, fds = packets.receive(self.socket, max_fds=packets.MAX_FDS)
        except OSError as error:
            reason = error.strerror or "does not answer"
            raise AccessError(f"mountd at {self._path}: {reason}") from None
        if not data:
            raise AccessError(f"mountd at {self._path}: has hung up")
        try:
            return Answer(packets.parse_reply(data), fds)
        except BaseException:
            close_fds(fds)
            raise

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


def call(path: Path, method: str, *, timeout: float | None = None, **fields: object) -> Answer:
    """Ask for one thing, with a connection of its own.

    Raises:
        MapperError: as `Connection.call`.
    """
    connection = Connection(path)
    try:
        return connection.call(method, timeout=timeout, **fields)
    finally:
        connection.close()


class MountdFiles:
    """The crypttab's files by mountd, which opens what it finds in the crypttab itself."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Crypttab:
        answer = call(self._path, "crypttab", timeout=_TIMEOUT)
        sources = [
            CrypttabSource(
                Path(str(file.get("path"))), whole=file.get("whole") is True, required=True
            )
            for file in _get_list(answer, "files")
        ]
        answer.check_fds(len(sources))
        fds = {s.path: fd for s, fd in zip(sources, answer.fds, strict=True)}
        try:
            crypttab = load_crypttabs(sources, lambda path: os.dup(fds[path]))
        finally:
            close_fds(answer.fds)
        refused = [
            Problem(str(f.get("path")), 0, Verdict.WRONG, f"file not used: {f.get('reason')}")
            for f in _get_list(answer, "refused")
        ]
        return dataclasses.replace(crypttab, problems=(*refused, *crypttab.problems))

    def open_entry(self, entry: CrypttabEntry, *, own_device: int) -> Recipe:  # noqa: ARG002
        # mountd knows the daemon's own device: it mounted it.
        answer = call(self._path, "entry", name=entry.name)
        described = [answer.get_object("source") or {}, answer.get_object("header")]
        files = [file for file in described if file is not None]
        answer.check_fds(len(files) + sum(_has_lock(file) for file in files))
        # First those of the files, then those of the locks, in the same order.
        fds, locks = answer.fds[: len(files)], iter(answer.fds[len(files) :])
        source, *header = [
            OpenFile(fd, str(file.get("path")), next(locks) if _has_lock(file) else None)
            for fd, file in zip(fds, files, strict=True)
        ]
        return make_recipe(entry, source, header[0] if header else None)

    def open_key_file(self, entry: CrypttabEntry) -> KeyFile | None:
        answer = call(self._path, "key", name=entry.name)
        path = answer.get_text("path")
        answer.check_fds(0 if path is None else 1)
        return None if path is None else wait_for_writer(KeyFile(path, answer.fds[0]))


@dataclass(slots=True)
class ServiceMount:
    """The mount that mountd made for this connection, as long as it lasts."""

    fuse_fd: int
    lifetime_fd: int  # for the engine: mountd unmounts when we are gone and this is closed
    clone_fds: list[int]
    _connection: Connection
    _path: Path

    def hand_over(self) -> None:
        """The engine has them now; ours are closed."""
        close_fds([self.fuse_fd, self.lifetime_fd, *self.clone_fds])
        self.fuse_fd = self.lifetime_fd = -1
        self.clone_fds = []

    def set_read_ahead(self) -> int:
        """Have read-ahead set, once the mount answers; kilobytes in force, 0 if not known."""
        try:
            answer = self._connection.call("mounted", timeout=_TIMEOUT)
        except AccessError as error:
            log.warning("read-ahead: %s", error)
            return 0
        value = answer.content.get("read_ahead_kb")
        return value if isinstance(value, int) else 0

    def unmount(self) -> None:
        """Have it taken away, by another mountd if the first one has been restarted.

        Raises:
            MapperError: the mount stays.
        """
        try:
            self._connection.call("unmount", timeout=_TIMEOUT)
        except AccessError:
            call(self._path, "unmount", timeout=_TIMEOUT)


@contextlib.contextmanager
def open_mount(path: Path, clones: int) -> Generator[ServiceMount, None, None]:
    """The service's mount, with as many spare descriptors of /dev/fuse; unmounted at the end.

    Raises:
        MapperError: mountd is not there, or cannot mount.
    """
    connection = Connection(path)
    try:
        answer = connection.call("mount", timeout=_TIMEOUT, clones=clones)
        answer.check_fds(2 + clones)
        fuse_fd, lifetime_fd, *spare = answer.fds
        made = ServiceMount(fuse_fd, lifetime_fd, spare, connection, path)
        try:
            yield made
        finally:
            if made.fuse_fd >= 0:
                made.hand_over()
            made.unmount()
    finally:
        connection.close()


class Question:
    """A question for an entry's passphrase, which mountd puts to whoever is at the machine."""

    def __init__(self, path: Path, name: str) -> None:
        self._connection = Connection(path)
        self._name = name

    def ask(self) -> int:
        """Wait for the answer: a pipe from which it can be read, the caller's to close.

        Raises:
            UnlockError: nobody answered.
            MapperError: it cannot be asked.
        """
        try:
            answer = self._connection.call("ask", name=self._name)
        finally:
            self._connection.close()
        answer.check_fds(1)
        if answer.content.get("status") != 0:
            close_fds(answer.fds)
            raise UnlockError("no passphrase was entered")
        return answer.fds[0]

    def take_back(self) -> None:
        """From another thread: end the question, which disappears where it was asked."""
        with contextlib.suppress(OSError):
            self._connection.socket.shutdown(socket.SHUT_RDWR)


def _has_lock(file: Mapping[str, object]) -> bool:
    return file.get("locked") is True


def _get_list(answer: Answer, name: str) -> Sequence[dict[str, object]]:
    value = answer.content.get(name)
    if not isinstance(value, list):
        raise packets.PacketError(f"mountd: {name} is no list")
    items = cast("list[object]", value)
    return [cast("dict[str, object]", item) for item in items if isinstance(item, dict)]
