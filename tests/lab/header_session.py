"""Header changes in this process, with an engine that is already there: quicker than a command."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fusecrypt.dmcrypt.backing import get_size, pread_from
from fusecrypt.dmcrypt.engine.client import Engine, Secret
from fusecrypt.dmcrypt.engine.messages import DigestSpec, KeyslotSpec, SecretMode
from fusecrypt.dmcrypt.engine.process import spawn_engine
from fusecrypt.dmcrypt.luks2 import Luks2Header, key_change, read_header
from fusecrypt.dmcrypt.luks2.key_change import NewKeyslot, UnlockedKey
from fusecrypt.keystore.errors import NoKeyError


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    process = spawn_engine()
    try:
        yield process.engine
    finally:
        process.terminate()
        process.wait(10)
        process.close()


@contextlib.contextmanager
def given(engine: Engine, passphrase: str) -> Iterator[Secret]:
    """A passphrase, in the engine."""
    key = os.memfd_create("key")
    try:
        os.write(key, passphrase.encode())
        os.lseek(key, 0, os.SEEK_SET)
        with engine.load_secret(key, SecretMode.ALL) as secret:
            yield secret
    finally:
        os.close(key)


def opens(
    engine: Engine, image: bytes, passphrase: str, keyslot: KeyslotSpec, digest: DigestSpec
) -> bool:
    """Whether a passphrase opens a keyslot of an image."""
    file = os.memfd_create("image")
    try:
        os.write(file, image)
        with given(engine, passphrase) as secret:
            engine.open_keyslot(file, secret, keyslot, digest)
    except NoKeyError:
        return False
    finally:
        os.close(file)
    return True


def forget(_old: object) -> None:
    """Keep nothing of an old header."""


@dataclass
class HeaderSession:
    """A header's file, open for changing it."""

    engine: Engine
    fd: int

    def read(self) -> Luks2Header:
        return read_header(pread_from(self.fd), get_size(self.fd))

    def unlock(self, passphrase: str, number: int | None = None) -> UnlockedKey:
        with given(self.engine, passphrase) as secret:
            return key_change.unlock(self.engine, self.read(), self.fd, secret, number=number)

    def add(self, old: str, passphrase: str, new: NewKeyslot) -> int:
        unlocked = self.unlock(old)
        with given(self.engine, passphrase) as secret:
            return key_change.add_keyslot(self.engine, self.fd, unlocked, secret, new, forget)[1]

    def add_unbound(self, passphrase: str, new: NewKeyslot, size: int) -> int:
        key = self.engine.generate_key(size, xts=False)
        with given(self.engine, passphrase) as secret:
            return key_change.add_unbound_keyslot(
                self.engine, self.fd, key, size, secret, new, forget
            )[1]

    def change(self, old: str, passphrase: str, new: NewKeyslot) -> None:
        unlocked = self.unlock(old)
        with given(self.engine, passphrase) as secret:
            key_change.change_keyslot(self.engine, self.fd, unlocked, secret, new, forget)

    def remove(self, number: int) -> None:
        key_change.remove_keyslot(self.fd, number, forget, lambda _header: None)


@contextlib.contextmanager
def header_session(engine: Engine, path: Path) -> Iterator[HeaderSession]:
    fd = os.open(path, os.O_RDWR)
    try:
        yield HeaderSession(engine, fd)
    finally:
        os.close(fd)
