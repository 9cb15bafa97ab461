"""No master key, no clear key and no passphrase in the memory of a keystored between two calls."""

import ctypes
import os
import shutil

import pytest

from fusecrypt.keystore.adapter_store import AdapterStore
from fusecrypt.keystore.coprocessor import Apqn, Register
from fusecrypt.keystore.envelope import Envelope, derive_key
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

#: asm-generic/unistd.h: memfd_secret(2); without it a host key that somebody unlocked is readable.
MEMFD_SECRET = 447
PASSPHRASE = b"correct-horse-51d0e2-battery-staple"


def check_after_a_master_key_change(place, pid, key):
    """Nothing of key parts, of the new master key, nor of the host key that a passphrase opened."""
    parts = [os.urandom(32), os.urandom(32)]
    whole = bytes(a ^ b for a, b in zip(*parts, strict=True))
    for part, content in zip(("first", "last"), parts, strict=True):
        place.cli("adapter", "master-key", "load", "3.39", "-", "--part", part, stdin=content)
    place.cli("zkey", "validate", "key0")
    place.cli("adapter", "master-key", "set", "3.39")
    place.cli("adapter", "seal", "--with", "passphrase", stdin=PASSPHRASE + b"\n")
    for path in ("key0", "key1"):
        place.cli("zkey", "validate", path)
    state = place.directory / "state/keystore"
    content = (state / "host.key.sealed").read_bytes()
    envelope = Envelope.parse(content, "test")
    passphrase_key = derive_key(envelope, bytearray(PASSPHRASE), "test")
    patterns = {
        **volume_key_patterns("clear key", key, xts=True),
        **key_patterns("master key", whole),
        **key_patterns("first part", parts[0]),
        **key_patterns("last part", parts[1]),
        **passphrase_patterns("passphrase", PASSPHRASE),
        **key_patterns("passphrase's key", bytes(passphrase_key)),
    }
    fd = ctypes.CDLL(None).syscall(MEMFD_SECRET, 0)
    if fd >= 0:
        os.close(fd)
        host_key = bytes(envelope.open(passphrase_key, "test"))
        patterns |= key_patterns("host key", host_key)
    findings = Search(patterns).process(pid)
    assert findings.searched > 100_000, findings
    assert not findings.hits, findings


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
    check_after_a_master_key_change(place, pid, key)
    if shutil.which("gcore") is not None:
        try:
            core = force_core(pid, tmp_path)
        except CoreError as error:
            record_figure("cores", str(error))
        else:
            found = search.core(core)
            core.unlink()
            assert not found.hits, found
