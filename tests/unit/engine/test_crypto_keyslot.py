"""Keyslots against images of the real cryptsetup, and against a splitter in Python."""

import base64
import contextlib
import errno
import hashlib
import json
import os
import random
import struct

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher as Reference
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from tests.lab import golden
from tests.unit.engine.crypto_library import (
    ARGON2I,
    ARGON2ID,
    PBKDF2,
    WrongPassphraseError,
    arena_bytes,
    arena_used,
    check,
    create_keyslot,
    ffi,
    lib,
    make_digest,
    make_kdf,
    make_keyslot,
    open_keyslot,
    refused,
    start,
)

RANDOM = random.Random(3)
KINDS = {"pbkdf2": PBKDF2, "argon2i": ARGON2I, "argon2id": ARGON2ID}
SLOT = {"key_size": 64, "stripes": 4000, "af_hash": "sha256", "cipher": "aes-xts-plain64"}


def diffuse(block, name):
    size = hashlib.new(name).digest_size
    pieces = [block[i : i + size] for i in range(0, len(block), size)]
    return b"".join(
        hashlib.new(name, struct.pack(">I", n) + piece).digest()[: len(piece)]
        for n, piece in enumerate(pieces)
    )


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def merge(material, size, stripes, name):
    """LUKS1 specification, section 2.4."""
    block = bytes(size)
    for i in range(stripes - 1):
        block = diffuse(xor(block, material[i * size :][:size]), name)
    return xor(block, material[(stripes - 1) * size :][:size])


def kdf_of(described):
    cost = described.get("iterations") or described["time"]
    return make_kdf(
        KINDS[described["type"]],
        base64.b64decode(described["salt"]),
        cost,
        memory=described.get("memory", 0),
        lanes=described.get("cpus", 0),
        hash_name=described.get("hash", ""),
    )


def slots_of(path):
    """(slot, digest) of each keyslot of the first header: the least that reads LUKS2."""
    head = path.read_bytes()
    length = int.from_bytes(head[8:16], "big")
    metadata = json.loads(head[4096:length].split(b"\0", 1)[0])
    for number, slot in metadata["keyslots"].items():
        area, af = slot["area"], slot["af"]
        made = make_keyslot(
            kdf_of(slot["kdf"]),
            key_size=slot["key_size"],
            stripes=af["stripes"],
            af_hash=af["hash"],
            cipher=area["encryption"],
            area_key_size=area["key_size"],
            offset=int(area["offset"]),
            length=int(area["size"]),
        )
        for digest in metadata["digests"].values():
            if number in digest["keyslots"]:
                yield (
                    made,
                    make_digest(
                        digest["hash"],
                        digest["iterations"],
                        base64.b64decode(digest["salt"]),
                        base64.b64decode(digest["digest"]),
                    ),
                    bool(digest["segments"]),
                )


@pytest.mark.parametrize(
    "name", [image["name"] for image in golden.images("opens") if image["type"] == "luks2"]
)
def test_a_keyslot_of_the_real_cryptsetup_gives_the_volume_key(name, tmp_path):
    image = golden.find(name)
    files = golden.unpack(image, tmp_path)
    header = files.get("header", files["data"])
    start()
    before = arena_used()
    for unlock in image["unlock"]:
        passphrase = bytes.fromhex(unlock["secret_hex"])
        first, size = unlock.get("offset", 0), unlock.get("size")
        if size is not None and len(passphrase) > size:
            passphrase = passphrase[first : first + size]
        found = []
        with header.open("rb") as file:
            for slot, digest, of_segment in slots_of(header):
                with contextlib.suppress(WrongPassphraseError):
                    key = open_keyslot(file.fileno(), slot, digest, passphrase)
                    found += [key.hex()] if of_segment else []
        assert set(found) == {image["volume_key_hex"]}
    assert arena_used() == before


@pytest.mark.parametrize("name", ["sha1", "sha256", "sha512", "md5", "sha3_512"])
@pytest.mark.parametrize("size", [1, 16, 24, 32, 33, 64, 100])
@pytest.mark.parametrize("stripes", [1, 2, 4000])
def test_the_splitter_is_the_specifications(name, size, stripes):
    ours, key = name.replace("_", "-"), RANDOM.randbytes(size)
    with arena_bytes(size * stripes) as material, arena_bytes(size) as merged:
        check(lib.af_split(ours.encode(), key, size, stripes, material))
        split = bytes(ffi.buffer(material, size * stripes))
        assert merge(split, size, stripes, name) == key
        check(lib.af_merge(ours.encode(), material, size, stripes, merged))
        assert bytes(ffi.buffer(merged, size)) == key
        if stripes > 1:
            first = split[:size]
            check(lib.af_split(ours.encode(), key, size, stripes, material))
            assert size < 8 or bytes(ffi.buffer(material, size)) != first


def test_a_splitter_without_stripes_or_hash_is_refused():
    with arena_bytes(64) as work:
        assert lib.af_merge(b"sha256", work, 16, 0, work) == -errno.EINVAL
        assert lib.af_merge(b"sha256", work, 0, 1, work) == -errno.EINVAL
        assert lib.af_merge(b"sha0", work, 16, 1, work) == -errno.EOPNOTSUPP


def decipher_area(area, key):
    return b"".join(
        Reference(algorithms.AES(key), modes.XTS(number.to_bytes(16, "little")))
        .decryptor()
        .update(area[number * 512 :][:512])
        for number in range(len(area) // 512)
    )


@pytest.mark.parametrize("key_size", [16, 24, 32, 48, 64, 136, 320])
def test_a_keyslot_that_we_make_is_the_specifications(tmp_path, key_size):
    path, key, salt = tmp_path / "area", RANDOM.randbytes(key_size), RANDOM.randbytes(32)
    path.write_bytes(b"\xee" * (3 << 20))
    slot = make_keyslot(
        make_kdf(PBKDF2, salt, 1000, hash_name="sha512"),
        **{**SLOT, "key_size": key_size},
        area_key_size=64,
        offset=32768,
    )
    with path.open("r+b") as file:
        create_keyslot(file.fileno(), slot, b"passphrase", key)
        digest = make_digest("sha256", 1000, salt, hashlib.pbkdf2_hmac("sha256", key, salt, 1000))
        assert open_keyslot(file.fileno(), slot, digest, b"passphrase") == key
        with refused(errno.ENOKEY):
            open_keyslot(file.fileno(), slot, digest, b"passphrasf")

    written = -(-key_size * 4000 // 512) * 512
    content = path.read_bytes()
    assert content[:32768] == b"\xee" * 32768
    assert content[32768 + written :] == b"\xee" * (len(content) - 32768 - written)
    area_key = hashlib.pbkdf2_hmac("sha512", b"passphrase", salt, 1000, 64)
    material = decipher_area(content[32768 : 32768 + written], area_key)
    assert merge(material, key_size, 4000, "sha256") == key


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key_size": 0}, errno.EINVAL),
        ({"key_size": 1025}, errno.EINVAL),
        ({"key_size": 2**32 - 1}, errno.EINVAL),
        ({"stripes": 0}, errno.EINVAL),
        ({"stripes": 4001}, errno.EINVAL),
        ({"stripes": 2**32 - 1}, errno.EINVAL),
        ({"area_key_size": 0}, errno.EINVAL),
        ({"area_key_size": 63}, errno.EINVAL),
        ({"area_key_size": 129}, errno.EINVAL),
        ({"length": 64 * 4000 - 1}, errno.EINVAL),
        ({"length": 0}, errno.EINVAL),
        ({"offset": 2**63 - 1}, errno.EINVAL),
        ({"offset": 2**64 - 1}, errno.EINVAL),
        ({"cipher": "aes-xts-random"}, errno.EOPNOTSUPP),
        ({"cipher": "cipher_null-ecb"}, errno.EOPNOTSUPP),  # would keep no secret
        ({"cipher": "capi:ecb(cipher_null)"}, errno.EOPNOTSUPP),
        ({"cipher": ""}, errno.EOPNOTSUPP),
        ({"af_hash": "sha257"}, errno.EOPNOTSUPP),
        ({"offset": 1 << 20}, errno.ENODATA),  # past the end
        ({"offset": (512 << 10) - 256 * 1000 + 512}, errno.ENODATA),  # the last sector is missing
    ],
)
def test_a_bad_keyslot_is_refused(tmp_path, change, code):
    path = tmp_path / "area"
    path.write_bytes(bytes(512 << 10))
    kdf = make_kdf(PBKDF2, b"s" * 32, 10, hash_name="sha256")
    slot = make_keyslot(kdf, **{**SLOT, "area_key_size": 64, **change})
    digest = make_digest("sha256", 10, b"s" * 32, b"d" * 32)
    with path.open("rb") as file, refused(code):
        open_keyslot(file.fileno(), slot, digest, b"passphrase")


@pytest.mark.parametrize(
    ("digest", "code"),
    [
        (("sha257", 10, b"s" * 32, b"d" * 32), errno.EOPNOTSUPP),
        (("sha256", 0, b"s" * 32, b"d" * 32), errno.EINVAL),
        (("sha256", 10, b"", b"d" * 32), errno.EINVAL),
        (("sha256", 10, b"s" * 32, b""), errno.EINVAL),
        (("sha256", 10, b"s" * 32, b"d" * 32, 513), errno.EINVAL),
    ],
)
def test_a_bad_digest_is_refused(tmp_path, digest, code):
    path = tmp_path / "area"
    path.write_bytes(bytes(512 << 10))
    slot = make_keyslot(
        make_kdf(PBKDF2, b"s" * 32, 10, hash_name="sha256"), **SLOT, area_key_size=64
    )
    with path.open("rb") as file, refused(code):
        open_keyslot(file.fileno(), slot, make_digest(*digest), b"passphrase")


def test_a_key_of_another_size_than_the_keyslot_says_is_refused(tmp_path):
    path = tmp_path / "area"
    path.write_bytes(bytes(512 << 10))
    slot = make_keyslot(
        make_kdf(PBKDF2, b"s" * 32, 10, hash_name="sha256"), **SLOT, area_key_size=64
    )
    with path.open("r+b") as file, refused(errno.EINVAL):
        create_keyslot(file.fileno(), slot, b"passphrase", b"k" * 32)
    assert path.read_bytes() == bytes(512 << 10)


def test_an_area_that_cannot_be_read_or_written_is_an_error():
    slot = make_keyslot(
        make_kdf(PBKDF2, b"s" * 32, 10, hash_name="sha256"), **SLOT, area_key_size=64
    )
    read_end, write_end = os.pipe()
    try:
        with refused(errno.ESPIPE):
            create_keyslot(write_end, slot, b"passphrase", b"k" * 64)
        with refused(errno.ESPIPE):
            open_keyslot(read_end, slot, make_digest("sha256", 1, b"s", b"d" * 32), b"p")
    finally:
        os.close(read_end)
        os.close(write_end)
