"""An engine process for the tests of this folder."""

from collections.abc import Iterator

import pytest

from fusecrypt.dmcrypt.engine.process import EngineProcess, spawn_engine


@pytest.fixture
def process() -> Iterator[EngineProcess]:
    """One that ends well whatever the test did to it."""
    started = spawn_engine()
    yield started
    started.terminate()
    assert started.wait(10) == 0
    started.close()
