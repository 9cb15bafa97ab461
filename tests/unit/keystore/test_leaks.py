"""What stays in the memory of a process that used adapters: no master key, no volume key.

Python cannot promise it; this shows that the code at least leaves no copy of its own behind.
"""

import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fusecrypt import keystore
from fusecrypt.keystore import ep11
from fusecrypt.keystore.cca import unwrap_key
from fusecrypt.keystore.coprocessor import Apqn, Register
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.keys import SecureKey
from tests.unit.keystore.memory import read_memory
from tests.unit.keystore.samples import FIRST, store_of

PROGRAM = """
import sys
from pathlib import Path
from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.key_type import CCA_KEY_TYPES, KeyType

adapters = Coprocessors(Path(sys.argv[1]))
other = Coprocessors(Path(sys.argv[1] + ".restored"))
adapters.create(Apqn(3, 0x39))
adapters.create(Apqn(5, 0x11), "ep11")
public = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
for key_type in (*CCA_KEY_TYPES, KeyType.EP11_AES):
    key = adapters.generate(key_type, 256, is_xts=True)
    adapters.validate(key)
    adapters.to_transport(key, public)
    print(key.token.hex(), flush=True)
other.restore(adapters.backup(bytearray(b"pass")), bytearray(b"pass"))
mark = bytearray(range(100, 164))
print("ready", flush=True)
sys.stdin.read()
"""


def test_no_key_stays_in_memory_after_use(directory):
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(keystore.__path__[0]).parent.parent)},
    )
    with child:
        assert child.stdout is not None
        keys = [SecureKey(bytes.fromhex(child.stdout.readline().decode())) for _ in range(3)]
        assert child.stdout.readline() == b"ready\n"
        memory = read_memory(child.pid)
        child.kill()
    assert bytes(range(100, 164)) in memory  # the search finds what is there
    with store_of(directory).opened(FIRST) as adapter:
        secrets = [adapter.master_keys.copy(Register.CURRENT)]
    secrets += [unwrap_key(key, secrets[0]) for key in keys[:2]]
    with store_of(directory).opened(Apqn(5, 0x11)) as adapter:
        wrapping_key = adapter.master_keys.copy(Register.CURRENT)
    derived = HKDF(SHA256(), 64, None, b"fusecrypt EP11 blob 1").derive(bytes(wrapping_key))
    secrets += [wrapping_key, bytearray(derived), ep11.unwrap_key(keys[2], wrapping_key)]
    secrets.append(bytearray((directory / "host.key").read_bytes()))
    found = [
        (number, start)
        for number, secret in enumerate(secrets)
        for start in range(0, len(secret), 16)
        if bytes(secret[start : start + 16]) in memory
    ]
    assert found == []
    assert Coprocessors(directory).validate(keys[0])
