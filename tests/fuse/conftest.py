"""Fixtures of the tests that have an engine and a mount without a daemon."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.raw_session import RawMount, raw_mount


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[RawMount]:
    """A mounted engine."""
    with raw_mount(tmp_path / "mnt") as made:
        yield made


@pytest.fixture
def backing(tmp_path: Path) -> Iterator[int]:
    """A file of 4 MiB for its devices."""
    path = tmp_path / "backing"
    path.write_bytes(random.Random(7).randbytes(4 << 20))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)
