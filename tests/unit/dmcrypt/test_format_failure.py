"""A format of either LUKS that fails midway."""

import os

import pytest

from fusecrypt.dmcrypt.backing import locked
from fusecrypt.dmcrypt.luks1 import format as luks1_format
from fusecrypt.dmcrypt.luks2 import format as luks2_format
from fusecrypt.dmcrypt.pbkdf import PbkdfParams
from fusecrypt.keystore.errors import EngineError

SIZE = 5 << 20
#: What a version is formatted with, and the bytes of its header, before any key material.
VERSIONS = [(luks1_format, {}, 4096), (luks2_format, {"keyslots_size": 262144}, 32768)]


@pytest.mark.parametrize("step", ["create_keyslot", "write_header"])
@pytest.mark.parametrize(("version", "sizes", "header"), VERSIONS, ids=["luks1", "luks2"])
def test_failure_midway_leaves_no_header_and_no_lock(
    engine, load, open_file, monkeypatch, version, sizes, header, step
):
    cheap = PbkdfParams(type="pbkdf2", iterations=1000)
    params = version.FormatParams(pbkdf=cheap, **sizes)
    fd = open_file(SIZE)
    version.format_volume(engine, fd, load(b"a passphrase"), params)

    def fail(*_args):
        raise EngineError("no")

    if step == "write_header":
        monkeypatch.setattr(version, "write_header", fail)
    else:
        monkeypatch.setattr(type(engine), "create_keyslot", fail)
    with pytest.raises(EngineError):
        version.format_volume(engine, fd, load(b"a passphrase"), params)
    assert os.pread(fd, header, 0) == bytes(header)
    with locked(fd, exclusive=True, timeout=0):
        pass
