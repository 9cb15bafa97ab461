"""What the engine takes for a secure key, and so hands out: compared with the parser's own view."""

import random

import pytest

from fusecrypt.keystore.errors import FormatError
from fusecrypt.keystore.keys import SecureKey
from tests.unit.engine.crypto_library import lib, start

RANDOM = random.Random(22)

# Tokens of a real system, as its owner published them (coreos/ignition issue 1693).
REAL = bytes.fromhex(
    "010000000400c0cc71ecf46a35bd8924b3975811a6fb51f1ee0545404e76e99a98301eca5cfed7c73460fff4ea82f3ec"
    "00000000000000000100002058cd01c7"
    "010000000400c09771ecf46a35bd8924c0cc8807dbc8e664bf33984ca9203a905fd1300919d57bdf087c0eba6b07eec9"
    "0000000000000000010000209fbf28f7"
)


def make_aescipher(payload_bits=640, version=1, mkvp=b"12345678"):
    token = bytearray(136)
    token[0], token[4], token[8], token[9] = 1, 5, 3, 1
    token[2:4] = (56 + payload_bits // 8).to_bytes(2, "big")
    token[10:18] = mkvp
    token[26:29] = bytes([2, 2, version])
    token[30] = 1
    token[32:34] = (26).to_bytes(2, "big")
    token[38:40] = payload_bits.to_bytes(2, "big")
    token[41:44] = bytes([2, 0, 1])
    token[44] = 2
    token[45:49] = bytes.fromhex("c000ff00")
    token[49] = 3
    token[50:56] = bytes.fromhex("08c800000400")
    token[56 : 56 + payload_bits // 8] = RANDOM.randbytes(payload_bits // 8)
    return bytes(token)


def make_pkcs11(bits=256, way=1, mkvp=b"12345678"):
    size = bits // 8 // 16 * 16 + 16 if way == 3 else bits // 8 + 8
    token = bytearray(96)
    token[0], token[4], token[5] = 0x46, 1, way
    token[6:8] = bits.to_bytes(2, "big")
    token[8:16] = mkvp
    token[16:18] = size.to_bytes(2, "big")
    if way == 3:
        token[24:40] = RANDOM.randbytes(16)
    token[40 : 40 + size] = RANDOM.randbytes(size)
    token[88:] = RANDOM.randbytes(8)
    return bytes(token)


def make_ep11(version=6, bits=256, wkvp=b"1234567812345678", blob_size=256, session=bytes(32)):
    header = 16 if version == 6 else 0
    head = bytes([0, 0]) + (header + blob_size).to_bytes(2, "big") + bytes([version, 0])
    head += bits.to_bytes(2, "big")
    token = bytearray(header + 320)
    token[:8] = head
    token[header : header + 32] = session if header else head + bytes(24)
    token[header + 32 : header + 48] = wkvp
    token[header + 48 : header + 64] = bytes.fromhex("0000000000200c000000000000000000")
    token[header + 64 : header + 66] = b"\x12\x34"
    token[header + 66 : header + blob_size] = RANDOM.randbytes(blob_size - 66)
    return bytes(token)


def is_whole(data):
    start()
    return bool(lib.secure_key_is_whole(data, len(data)))


def is_fragment(data):
    start()
    return bool(lib.secure_key_is_fragment(data, len(data)))


WHOLE = {
    "real AESDATA": REAL[:64],
    "real AESDATA for XTS": REAL,
    "AESCIPHER V1": make_aescipher(),
    "AESCIPHER V1 for XTS": make_aescipher() + make_aescipher(),
    "AESCIPHER V0 128": make_aescipher(512, 0),
    "AESCIPHER V0 192": make_aescipher(576, 0),
    "AESCIPHER V0 256": make_aescipher(640, 0),
    "EP11": make_ep11(),
    "EP11 of a session": make_ep11(session=RANDOM.randbytes(32)),
    "EP11 of unknown size": make_ep11(bits=0, blob_size=320),
    "EP11 192": make_ep11(bits=192),
    "EP11 overlaid": make_ep11(3),
    "EP11 for XTS": make_ep11() + make_ep11(),
    "EP11 overlaid for XTS": make_ep11(3, 128) + make_ep11(3, 128),
    "PKCS11": make_pkcs11(),
    "PKCS11 CBC": make_pkcs11(way=3),
    "PKCS11 192": make_pkcs11(192, 3),
    "PKCS11 for XTS": make_pkcs11(128, 2) + make_pkcs11(128, 2),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_tokens_are_secure_keys(name):
    assert is_whole(WHOLE[name])
    assert not is_fragment(WHOLE[name])
    SecureKey.parse(WHOLE[name])


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("size", [16, 32, 63, 65, 127, 135])
def test_their_beginnings_are_fragments(name, size):
    data = WHOLE[name][:size]
    if len(data) == len(WHOLE[name]):
        pytest.skip("the whole of it")
    assert not is_whole(data)
    assert is_fragment(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(64),
        REAL[:64] * 2,  # equal halves
        REAL[:64] + make_aescipher()[:64],
        REAL[:64] + make_aescipher(),
        REAL + REAL[:64],
        make_aescipher() + make_aescipher(mkvp=b"87654321"),
        REAL[64:63],
        WHOLE["EP11"] * 2,
        make_ep11() + make_ep11(3),
        make_ep11(3) + make_ep11(),
        make_ep11() + make_ep11(wkvp=b"8765432187654321"),
        make_ep11() + make_ep11(bits=128),
        make_ep11(bits=192) + make_ep11(bits=192),
        make_ep11()[:320],
        make_ep11(3)[:319],
        make_ep11(3) + bytes(16),
        make_ep11(7),
        make_ep11(blob_size=255),
        WHOLE["PKCS11"] * 2,
        make_pkcs11() + make_pkcs11(mkvp=b"87654321"),
        make_pkcs11() + make_pkcs11(128),
        make_pkcs11(192) + make_pkcs11(192),
        make_pkcs11() + make_aescipher()[:96],
        make_pkcs11(way=4),
    ],
)
def test_other_combinations_are_not_whole(data):
    assert not is_whole(data)


def test_clear_keys_are_neither():
    for size in (16, 32, 48, 64, 128):
        for _ in range(300):
            key = RANDOM.randbytes(size)
            assert not is_whole(key)
            assert not is_fragment(key)


def test_a_changed_bit_never_makes_the_engine_laxer_than_the_parser():
    """What the engine hands out, the strict parser takes: no clear key passes as a token."""
    for data in WHOLE.values():
        for bit in range(8 * len(data)):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            if is_whole(bytes(changed)):
                try:
                    SecureKey.parse(bytes(changed))
                except FormatError as error:
                    pytest.fail(f"bit {bit}: the engine takes what the parser refuses: {error}")
