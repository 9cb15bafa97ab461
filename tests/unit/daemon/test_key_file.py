"""Key files of crypttab entries: named, discovered, refused."""

import os
import socket
from pathlib import Path

import pytest

from fusecrypt.daemon.crypttab import CrypttabEntry, parse_crypttab
from fusecrypt.daemon.key_file import open_key_file
from fusecrypt.keystore.errors import AccessError, ConfigError, NotFoundError, UnsupportedError

PLAIN = "plain,cipher=aes-xts-plain64,size=512"


def entry(key: Path | str = "none", options: str = "luks") -> CrypttabEntry:
    (made,) = parse_crypttab(f"vol /img {key} {options}", "tab", whole=True).entries
    return made


def read(made: CrypttabEntry, *dirs: Path) -> bytes | None:
    file = open_key_file(made, dirs)
    if file is None:
        return None
    try:
        return os.read(file.fd, 100)
    finally:
        os.close(file.fd)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    return path


def test_a_named_key_file_is_opened(key: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(entry(key)) == b"secret"
    assert caplog.records == []


def test_a_key_that_everybody_may_read_is_warned_about(
    key: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key.chmod(0o644)
    assert read(entry(key)) == b"secret"
    assert "everybody may read it" in caplog.text
    caplog.clear()
    read(entry("/dev/urandom", PLAIN))
    assert caplog.records == []


def test_keys_are_discovered_by_the_volumes_name_in_order(tmp_path: Path) -> None:
    etc, run = tmp_path / "etc", tmp_path / "run"
    for path in (etc, run):
        path.mkdir()
    assert read(entry(), etc, run) is None
    for path in (run, etc):
        key = path / "vol.key"
        key.write_bytes(path.name.encode())
        key.chmod(0o600)
        assert read(entry(), etc, run) == path.name.encode()


def test_a_named_key_file_is_not_replaced_by_a_discovered_one(tmp_path: Path) -> None:
    (tmp_path / "vol.key").write_bytes(b"found")
    with pytest.raises(NotFoundError, match="vol: key file /nonexistent: no such file"):
        read(entry("/nonexistent"), tmp_path)


def test_a_discovered_key_for_a_plain_volume_with_a_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vol.key").write_bytes(b"found")
    with pytest.raises(ConfigError, match="systemd would hash the file"):
        read(entry(options=f"{PLAIN},hash=sha256"), tmp_path)
    (tmp_path / "vol.key").chmod(0o600)
    assert read(entry(options=f"{PLAIN},hash=plain"), tmp_path) == b"found"


def test_sockets_and_directories_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(UnsupportedError, match="not supported: a socket"):
            read(entry(path))
    with pytest.raises(AccessError, match="is a directory"):
        read(entry(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_key_file_is_refused(key: Path) -> None:
    key.chmod(0)
    with pytest.raises(AccessError, match="Permission denied"):
        read(entry(key))
