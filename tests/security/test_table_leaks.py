"""No key of a raw table or of loop-AES in the memory of any of our processes."""

import hashlib
import os

import pytest

from tests.security.leak_scan import REGISTERS, Search, key_patterns, volume_key_patterns

pytestmark = [pytest.mark.fuse, pytest.mark.root]

SIZE = 1 << 20
ROUNDS = 20


def use(instance, name):
    with instance.device(name).open("r+b", buffering=0) as file:
        for number in range(ROUNDS):
            os.pwrite(file.fileno(), os.urandom(8192), number * 8192 + 100)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert len(os.pread(file.fileno(), 65_536, 511)) == 65_536


def test_no_key_of_a_table_or_of_loop_aes_is_found(instance):
    keys = {"xts": os.urandom(64), "tcw": os.urandom(64), "lrw": os.urandom(48)}
    ciphers = {"xts": "aes-xts-plain64", "tcw": "aes-cbc-tcw", "lrw": "aes-lrw-benbi"}
    image = instance.write_file("image", bytes(4 * SIZE))
    patterns = volume_key_patterns("xts", keys["xts"], xts=True)
    patterns |= key_patterns("tcw", keys["tcw"][:32]) | key_patterns("lrw", keys["lrw"][:32])
    patterns |= {"tcw: IV seed": keys["tcw"][32:48], "tcw: whitening": keys["tcw"][48:]}
    patterns |= {"tcw: IV seed in hexadecimal": keys["tcw"][32:48].hex().encode()}
    patterns |= {
        "lrw: tweak key": keys["lrw"][32:],
        "lrw: in hexadecimal": keys["lrw"].hex().encode(),
    }
    for name, key in keys.items():
        patterns[f"{name}: in hexadecimal"] = key.hex().encode()
    sectors = SIZE // 512
    table = "".join(
        f"{n * sectors} {sectors} crypt {ciphers[name]} {key.hex()} 0 {image} {n * sectors}\n"
        for n, (name, key) in enumerate(keys.items())
    )
    lines = [os.urandom(30).hex().encode() for _ in range(65)]
    hashed = [bytearray(hashlib.sha512(line).digest()[:32]) for line in lines]
    for key in hashed:
        key[0] ^= 0xF4
    patterns |= {"loop-AES: line": lines[7], "loop-AES: last line": lines[64]}
    patterns |= key_patterns("loop-AES", bytes(hashed[7])) | {
        "loop-AES: seed": bytes(hashed[64][:16])
    }

    instance.start()
    instance.cli("table", "table", "--table", "-", stdin=table.encode())
    stream = b"".join(line + b"\n" for line in lines)
    loop = instance.write_file("loop", bytes(SIZE))
    instance.cli("open", "--type", "loopaes", "--key-file", "-", loop, "loop", stdin=stream)
    for name in ("table", "loop"):
        use(instance, name)
    assert instance.cli("table", "--show-keys", "table").stdout == table
    if "secret" not in str(instance.cli("status", "--json").json["arena"]["kind"]):
        pytest.skip("no memfd_secret: the engine's memory can be read")

    def check(moment):
        search = Search(patterns)
        for pid, words in instance.pids().items():
            findings = search.process(pid)
            assert findings.searched > 100_000, words
            hits = {hit for hit in findings.hits if hit[1] != REGISTERS}
            assert not hits, f"{moment}: {words}:\n{findings}"

    check("open")
    instance.cli("close", "table")
    instance.cli("close", "loop")
    check("closed")
    assert instance.stop() == 0
