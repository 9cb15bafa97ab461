"""No master key, no clear key and no passphrase in the memory of a keystored between two calls."""

import os
import shutil

import pytest

from fusecrypt.keystore.adapter_store import AdapterStore
from fusecrypt.keystore.coprocessor import Apqn, Register
from fusecrypt.keystore.sealing import HostKey
from tests.product import running
from tests.security.leak_scan import (
    CoreError,
    Search,
    force_core,
    key_patterns,
    passphrase_patterns,
    volume_key_patterns,
)

pytestmark = pytest.mark.root

PASSPHRASE = b"correct-horse-51d0e2-battery-staple"


@pytest.fixture
def place(scratch):
    with running(scratch) as instance:
        yield instance


def test_nothing_is_left_in_memory(place, tmp_path, record_figure):
    if os.geteuid() != 0:
        pytest.skip("only root reads another process's memory")
    key = os.urandom(64)
    clear = place.write_file("clear", key)
    place.cli("adapter", "create", "03.0039")
    for number, key_type in enumerate(("CCA-AESDATA", "CCA-AESCIPHER") * 3):
        path = f"key{number}"
        place.cli("zkey", "generate", path, "-x", "-c", clear, "-K", key_type)
        place.cli("zkey", "validate", path)
    place.cli("adapter", "backup", "backup", stdin=PASSPHRASE + b"\n")
    place.cli("adapter", "restore", "backup", stdin=PASSPHRASE + b"\n")

    state = place.directory / "state/keystore"
    host_key = (state / "host.key").read_bytes()
    with AdapterStore(state, HostKey(state / "host.key")).opened(Apqn(3, 0x39)) as adapter:
        master_key = bytes(adapter.master_keys.copy(Register.CURRENT))
    search = Search(
        {
            **volume_key_patterns("clear key", key, xts=True),
            **key_patterns("master key", master_key),
            **key_patterns("host key", host_key),
            **passphrase_patterns("passphrase", PASSPHRASE),
        }
    )
    pid = place.pid("fusecrypt-keystored")
    findings = search.process(pid)
    assert findings.searched > 100_000, findings
    assert not findings.hits, findings
    if shutil.which("gcore") is not None:
        try:
            core = force_core(pid, tmp_path)
        except CoreError as error:
            record_figure("cores", str(error))
        else:
            found = search.core(core)
            core.unlink()
            assert not found.hits, found
