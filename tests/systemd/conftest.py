"""The installed product, once for all machines."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import machine


@pytest.fixture(scope="session")
def installed() -> Iterator[Path]:
    """A directory with what `make install` makes, and volumes."""
    directory = Path(tempfile.mkdtemp(prefix="fusecrypt-install."))
    directory.chmod(0o755)
    try:
        machine.install(directory)
        machine.make_volumes(directory)
        machine.put_drop_ins(directory)
        yield directory
    finally:
        shutil.rmtree(directory)
