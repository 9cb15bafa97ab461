"""An engine for the tests of this folder that need keys."""

import os

import pytest

from fusecrypt.dmcrypt.engine.messages import SecretMode
from fusecrypt.dmcrypt.engine.process import spawn_engine


@pytest.fixture(scope="session")
def engine():
    started = spawn_engine()
    yield started.engine
    started.engine.shutdown()
    assert started.wait(10) == 0
    started.close()


@pytest.fixture
def load(engine, tmp_path):
    """Bytes to a secret that the engine holds until the test ends."""
    secrets = []

    def load_it(data, mode=SecretMode.ALL, **where):
        path = tmp_path / f"secret{len(secrets)}"
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        try:
            secrets.append(engine.load_secret(fd, mode, **where))
        finally:
            os.close(fd)
        return secrets[-1]

    yield load_it
    for secret in secrets:
        secret.drop()


@pytest.fixture
def open_file(tmp_path):
    """Bytes, or a size of zeros, to a descriptor of a file that holds them."""
    fds = []

    def open_it(content):
        path = tmp_path / f"file{len(fds)}"
        path.write_bytes(content if isinstance(content, bytes) else b"")
        if isinstance(content, int):
            os.truncate(path, content)
        fds.append(os.open(path, os.O_RDWR))
        return fds[-1]

    yield open_it
    for fd in fds:
        os.close(fd)
