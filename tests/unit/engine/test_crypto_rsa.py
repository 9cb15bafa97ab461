"""Transport blobs of kind 2: RSA-OAEP ciphertexts that `cryptography` (OpenSSL) made."""

import errno
import functools
import os
import random

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from fusecrypt.dmcrypt.engine import messages
from fusecrypt.keystore.errors import UnlockError
from tests.unit.engine.crypto_library import (
    arena_used,
    check,
    ffi,
    import_blob,
    lib,
    refused,
    start,
    unwrap,
)

SIZE = 384
SHA1, SHA256 = 1, 2
HASHES = {SHA1: hashes.SHA1, SHA256: hashes.SHA256}
RANDOM = random.Random(11)


@functools.cache
def modulus():
    start()
    out = ffi.new("uint8_t[]", SIZE)
    check(lib.rsa_modulus(out))
    return bytes(out)


def encipher(key, number=SHA256, *, to=None, label=None, mask=None):
    public = rsa.RSAPublicNumbers(65537, int.from_bytes(to or modulus(), "big")).public_key()
    algorithm = HASHES.get(number, hashes.SHA512)()
    oaep = padding.OAEP(padding.MGF1(mask or algorithm), algorithm, label)
    return public.encrypt(key, oaep)


def make_blob(*ciphertexts, number=SHA256, count=None):
    return bytes([2, number, count or len(ciphertexts)]) + b"".join(ciphertexts)


def seal(*keys, number=SHA256):
    return make_blob(*(encipher(key, number) for key in keys), number=number)


def test_the_public_key_is_one_of_3072_bits_and_stays():
    n = int.from_bytes(modulus(), "big")
    assert n.bit_length() == 3072
    assert n % 2 == 1
    assert all(n % small for small in range(3, 2000, 2))
    again = ffi.new("uint8_t[]", SIZE)
    check(lib.rsa_modulus(again))
    assert bytes(again) == modulus()


@pytest.mark.parametrize("number", [SHA1, SHA256])
@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize("count", [1, 2])
def test_a_blob_becomes_a_token_of_its_keys(number, size, count):
    keys = [RANDOM.randbytes(size) for _ in range(count)]
    blob = seal(*keys, number=number)
    before = arena_used()
    assert unwrap(import_blob(blob, key_size=size * count)) == b"".join(keys)
    assert arena_used() == before


def test_a_blob_is_taken_once_and_so_is_each_of_its_ciphertexts():
    first, second = encipher(b"a" * 32), encipher(b"b" * 32)
    blob = make_blob(first, second)
    assert unwrap(import_blob(blob)) == b"a" * 32 + b"b" * 32
    for again in (blob, make_blob(second, first), make_blob(second), make_blob(first)):
        with refused(errno.EEXIST):
            import_blob(again)
    with refused(errno.EEXIST):
        import_blob(make_blob(encipher(b"c" * 32), first))
    with refused(errno.EKEYREJECTED):
        import_blob(make_blob(*[encipher(b"d" * 32)] * 2))


def test_the_same_number_in_other_bytes_is_no_second_ciphertext():
    while True:
        ciphertext = encipher(b"k" * 32)
        other = int.from_bytes(ciphertext, "big") + int.from_bytes(modulus(), "big")
        if other.bit_length() <= 8 * SIZE:
            break
    assert unwrap(import_blob(make_blob(ciphertext))) == b"k" * 32
    with refused(errno.EKEYREJECTED):
        import_blob(make_blob(other.to_bytes(SIZE, "big")))


@functools.cache
def stranger():
    return (
        rsa.generate_private_key(65537, 3072).public_key().public_numbers().n.to_bytes(SIZE, "big")
    )


def pad_otherwise():
    """Ciphertexts that decipher to something else than OAEP of a key with this hash."""
    n = int.from_bytes(modulus(), "big")
    public = rsa.RSAPublicNumbers(65537, n).public_key()
    block = b"\0" + RANDOM.randbytes(SIZE - 1)  # the leading zero that OAEP wants, and noise
    yield "PKCS#1 1.5", public.encrypt(b"k" * 32, padding.PKCS1v15())
    yield "a label", encipher(b"k" * 32, label=b"label")
    yield "another mask", encipher(b"k" * 32, mask=hashes.SHA1())
    yield "another hash", encipher(b"k" * 32, 3)
    yield "SHA-1", encipher(b"k" * 32, SHA1)
    yield "noise behind zero", pow(int.from_bytes(block, "big"), 65537, n).to_bytes(SIZE, "big")
    yield "noise", RANDOM.randbytes(SIZE)
    yield "zero", bytes(SIZE)
    yield "one", (1).to_bytes(SIZE, "big")
    yield "the modulus", modulus()
    yield "its neighbour", (n - 1).to_bytes(SIZE, "big")
    yield "all ones", b"\xff" * SIZE
    yield "another session", encipher(b"k" * 32, to=stranger())
    changed = bytearray(encipher(b"k" * 32))
    changed[200] ^= 1
    yield "changed", bytes(changed)
    for size in (0, 15, 17, 31, 33, 64):
        yield f"{size} bytes", encipher(bytes(size))


def test_whatever_is_wrong_with_a_ciphertext_is_one_error():
    good = encipher(b"k" * 32)
    for name, ciphertext in pad_otherwise():
        for blob in (
            make_blob(ciphertext),
            make_blob(good, ciphertext),
            make_blob(ciphertext, good),
        ):
            with refused(errno.EKEYREJECTED):
                import_blob(blob)
                pytest.fail(f"{name} was taken")
    assert unwrap(import_blob(make_blob(good))) == b"k" * 32  # no failure spent it


def test_blobs_of_another_shape_are_refused_alike():
    good = seal(b"k" * 32)
    shapes = [b"\2", b"\2\2", good[:3], good[:-1], good + b"\0", good[:2] + b"\0" + good[3:]]
    shapes += [good[:2] + b"\2" + good[3:], good[:2] + b"\3" + good[3:] * 3]
    shapes += [bytes([2, number, 1]) + good[3:] for number in (0, 3, 255)]
    shapes += [make_blob(encipher(b"k" * 32), encipher(b"k" * 16))]
    for shape in shapes:
        with refused(errno.EKEYREJECTED):
            import_blob(shape)
    for _ in range(40):
        with refused(errno.EKEYREJECTED):
            import_blob(b"\2" + RANDOM.randbytes(RANDOM.choice((3, 386, 770, 1500))))


def test_without_a_public_key_nothing_is_opened_and_the_sandbox_holds(process):
    """The engine makes its pair behind its system call filter; each process has another one."""
    engine = process.engine
    with pytest.raises(UnlockError, match="not made for this session"):
        engine.import_key(seal(b"k" * 32))
    own = engine.get_rsa_modulus()
    assert len(own) == SIZE
    assert own != modulus()
    assert engine.get_rsa_modulus() == own
    key = os.urandom(32)
    blob = make_blob(encipher(key, to=own), encipher(key[::-1], to=own))
    token = engine.import_key(blob, key_size=64)
    assert engine.export_key(token).kind is messages.KeyKind.CLEAR
    with pytest.raises(UnlockError, match="used before"):
        engine.import_key(blob)
    assert engine.status().sandbox & 1
    assert engine.status().kdf_memory == 0
