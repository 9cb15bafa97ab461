"""AESKW: RFC 3394's vectors for its core, a second implementation for the whole."""

import hashlib
import os

import pytest
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fusecrypt.keystore import aeskw
from fusecrypt.keystore.errors import FormatError

KEK = bytearray(range(32))
KEY = bytearray(bytes.fromhex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f"))
ICV = b"\xa6" * 8
DESCRIPTION = b"associated data of 26 byte"

# RFC 3394 section 4: bytes of KEK, bytes of key, ciphertext.
VECTORS = [
    (16, 16, "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5"),
    (24, 16, "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d"),
    (32, 16, "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7"),
    (32, 24, "a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1"),
    (32, 32, "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"),
]


@pytest.mark.parametrize(("kek_size", "key_size", "wanted"), VECTORS)
def test_the_wrapping_function_is_the_one_of_rfc_3394(kek_size, key_size, wanted):
    data = bytearray(ICV + KEY[:key_size])
    aeskw.wrap_semiblocks(data, KEK[:kek_size])
    assert data.hex() == wanted
    aeskw.unwrap_semiblocks(data, KEK[:kek_size])
    assert data == ICV + KEY[:key_size]


def test_the_wrapping_function_agrees_with_the_library_on_random_keys():
    for size in (16, 40, 64, 128):
        kek, key = os.urandom(32), os.urandom(size)
        data = bytearray(ICV + key)
        aeskw.wrap_semiblocks(data, bytearray(kek))
        assert bytes(data) == keywrap.aes_key_wrap(kek, key)
        # Another check value in front: RFC 5649 has one.
        data = bytearray(bytes.fromhex("a65959a6") + size.to_bytes(4, "big") + key)
        aeskw.wrap_semiblocks(data, bytearray(kek))
        assert bytes(data) == keywrap.aes_key_wrap_with_padding(kek, key)


def wrap_again(key, description, kek, size):
    """AESKW by RFC 3394's index-free formulation (2.2.1, the shifting registers), byte by byte."""
    head = ICV[:6] + bytes([(size - 44 - len(key)) * 8, 32]) + bytes(4)
    plain = head + hashlib.sha256(description).digest() + key
    plain = plain.ljust(size, b"\0")
    registers = [plain[i : i + 8] for i in range(0, size, 8)]
    n = len(registers) - 1
    for t in range(1, 6 * n + 1):
        encryptor = Cipher(algorithms.AES(kek), modes.ECB()).encryptor()
        block = encryptor.update(registers[0] + registers[1]) + encryptor.finalize()
        first = (int.from_bytes(block[:8], "big") ^ t).to_bytes(8, "big")
        registers = [first, *registers[2:], block[8:]]
    return b"".join(registers)


@pytest.mark.parametrize(("key_size", "size"), [(16, 64), (24, 72), (32, 80), (16, 80), (24, 80)])
def test_a_wrapped_key_is_what_a_second_implementation_makes_of_it(key_size, size):
    wrapped = aeskw.wrap(KEY[:key_size], DESCRIPTION, KEK, size)
    assert wrapped == wrap_again(bytes(KEY[:key_size]), DESCRIPTION, bytes(KEK), size)
    assert aeskw.unwrap(wrapped, DESCRIPTION, KEK) == KEY[:key_size]


@pytest.mark.parametrize("position", range(0, 80, 7))
def test_an_altered_payload_is_refused(position):
    wrapped = bytearray(aeskw.wrap(KEY, DESCRIPTION, KEK, 80))
    wrapped[position] ^= 1
    with pytest.raises(FormatError, match="altered"):
        aeskw.unwrap(bytes(wrapped), DESCRIPTION, KEK)


def test_another_key_or_description_is_refused():
    wrapped = aeskw.wrap(KEY, DESCRIPTION, KEK, 80)
    with pytest.raises(FormatError, match="altered"):
        aeskw.unwrap(wrapped, DESCRIPTION[:-1] + b"!", KEK)
    with pytest.raises(FormatError, match="altered"):
        aeskw.unwrap(wrapped, DESCRIPTION, KEY)


@pytest.mark.parametrize(
    ("pad_bits", "hash_size", "tail"), [(33, 32, 0), (32, 20, 0), (32, 32, 1), (255, 32, 0)]
)
def test_a_payload_that_says_something_else_of_itself_is_refused(pad_bits, hash_size, tail):
    digest = hashlib.sha256(DESCRIPTION).digest()
    plain = ICV[:6] + bytes([pad_bits, hash_size]) + bytes(4) + digest + KEY
    data = bytearray(plain.ljust(79, b"\0") + bytes([tail]))
    aeskw.wrap_semiblocks(data, KEK)
    with pytest.raises(FormatError, match="altered"):
        aeskw.unwrap(bytes(data), DESCRIPTION, KEK)


@pytest.mark.parametrize("size", [0, 8, 40, 79, 81])
def test_another_length_is_refused(size):
    with pytest.raises(FormatError, match="multiple of 8"):
        aeskw.unwrap(bytes(size), DESCRIPTION, KEK)
