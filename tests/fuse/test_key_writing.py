"""An engine that serves a mount shows nobody a key."""

import os

import pytest

from fusecrypt.dmcrypt.engine.messages import KeyForm
from fusecrypt.keystore.errors import EngineError
from tests.fuse.raw_session import raw_mount

pytestmark = [pytest.mark.root, pytest.mark.fuse]


def test_an_engine_with_a_mount_writes_no_key(tmp_path):
    with raw_mount(tmp_path / "mnt") as mount:
        key = mount.engine.generate_key(64, xts=True)
        reader, writer = os.pipe()
        with pytest.raises(EngineError, match="not permitted"):
            mount.engine.write_key(key, writer, KeyForm.RAW)
        os.close(writer)
        assert os.read(reader, 1) == b""
        os.close(reader)
