"""What more than one module of this folder starts from."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fusecrypt.daemon.config import Settings, load_settings
from fusecrypt.daemon.keystored.client import Keystore
from fusecrypt.daemon.keystored.methods import Methods
from fusecrypt.keystore.coprocessors import Coprocessors
from tests.unit.daemon.keystored_process import running_keystore


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that run within the test have directories of its own."""
    monkeypatch.setenv("FUSECRYPT_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("FUSECRYPT_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key file."""
    path = tmp_path / "key"
    path.write_bytes(b"passphrase")
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a keystored in the test's directory."""
    return load_settings(
        environment={
            "FUSECRYPT_RUNTIME_DIR": str(tmp_path),
            "FUSECRYPT_STATE_DIR": str(tmp_path / "state"),
            "FUSECRYPT_KEYSTORE": str(tmp_path / "keystore"),
        }
    )


@pytest.fixture
def methods(settings: Settings) -> Methods:
    """What that keystored can be asked."""
    return Methods(Coprocessors(settings.keystore_dir), settings.keystore_dir, memory="locked")


@pytest.fixture
async def running(settings: Settings, methods: Methods) -> AsyncIterator[Keystore]:
    """That keystored, as its clients see it."""
    async with running_keystore(settings, methods) as keystore:
        yield keystore
