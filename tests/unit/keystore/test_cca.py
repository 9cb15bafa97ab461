"""Keys wrapped by a master key and back; by an independent computation too."""

import functools
import hashlib
import operator

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fusecrypt.keystore import aeskw, cca
from fusecrypt.keystore.errors import CoprocessorError, FormatError
from fusecrypt.keystore.key_type import CCA_KEY_TYPES
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.tokens import AesCipherToken, KeyType, make_tvv
from fusecrypt.keystore.verification import make_mkvp
from tests.unit.keystore.samples import REAL_XTS_KEY, SIZES, clear_key, master_key

MASTER = master_key(0)


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
@pytest.mark.parametrize(("bits", "is_xts"), SIZES)
def test_a_wrapped_key_comes_back(key_type, bits, is_xts):
    clear = clear_key(bits, is_xts)
    key = cca.wrap_key(key_type, clear, MASTER, is_xts=is_xts)
    assert key.key_type is key_type
    assert key.is_xts == is_xts
    assert key.clear_bits == len(clear) * 8
    assert key.mkvp.hex() == "491176b0f443c65a"
    assert clear == clear_key(bits, is_xts)
    assert cca.unwrap_key(key, MASTER) == clear
    assert bytes(clear[:16]) not in key.token


def test_an_aesdata_token_is_what_its_description_says():
    clear = clear_key(192, is_xts=False)
    encryptor = Cipher(algorithms.AES(MASTER), modes.CBC(bytes(16))).encryptor()
    encrypted = encryptor.update(bytes(clear) + bytes(8)) + encryptor.finalize()
    lrc = functools.reduce(operator.xor, clear)
    mkvp = hashlib.sha256(b"\1" + MASTER).digest()[:8]
    words = (
        bytes.fromhex("010000000400c0") + bytes([lrc]) + mkvp + encrypted + bytes(8)
        + (192).to_bytes(2, "big") + (32).to_bytes(2, "big")
    )  # fmt: skip
    wanted = words + make_tvv(words).to_bytes(4, "big")
    assert cca.wrap_key(KeyType.CCA_AESDATA, clear, MASTER, is_xts=False).token == wanted


def test_where_a_cipher_key_comes_from_is_in_its_token():
    clear = clear_key(256, is_xts=False)
    made = cca.wrap_key(KeyType.CCA_AESCIPHER, clear, MASTER, is_xts=False, is_random=False)
    assert made.token[54:56] == b"\x04\x04"
    assert cca.unwrap_key(made, MASTER) == clear


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_a_payload_of_version_1_unwraps(bits):
    clear = clear_key(bits, is_xts=False)
    skeleton = AesCipherToken(make_mkvp(MASTER), bytes(80), 1)
    payload = aeskw.wrap(clear, skeleton.pack_associated_data(), MASTER, 80)
    key = SecureKey(AesCipherToken(make_mkvp(MASTER), payload, 1).pack())
    assert key.clear_bits is None
    assert cca.unwrap_key(key, MASTER) == clear


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
def test_another_master_key_is_told(key_type):
    key = cca.wrap_key(key_type, clear_key(256, is_xts=True), MASTER, is_xts=True)
    with pytest.raises(FormatError, match="491176b0f443c65a"):
        cca.unwrap_key(key, master_key(1))
    with pytest.raises(FormatError, match="71ecf46a35bd8924"):
        cca.unwrap_key(SecureKey(REAL_XTS_KEY), MASTER)


def test_an_altered_aesdata_key_is_told_by_its_lrc():
    token = bytearray(
        cca.wrap_key(KeyType.CCA_AESDATA, clear_key(128, is_xts=False), MASTER, is_xts=False).token
    )
    token[20] ^= 1
    token[60:] = make_tvv(token[:60]).to_bytes(4, "big")
    with pytest.raises(FormatError, match="altered"):
        cca.unwrap_key(SecureKey(bytes(token)), MASTER)


@pytest.mark.parametrize("position", [45, 47, 50, 51, 53, 55, 57, 100])
def test_an_altered_cipher_key_is_told_even_in_its_rules(position):
    clear = clear_key(256, is_xts=False)
    token = bytearray(cca.wrap_key(KeyType.CCA_AESCIPHER, clear, MASTER, is_xts=False).token)
    token[position] ^= 0x01
    with pytest.raises(FormatError, match="altered"):
        cca.unwrap_key(SecureKey(bytes(token)), MASTER)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [({"management1": 0x00C8}, "protected key"), ({"usage1": 0x8000}, "encipher and decipher"),
     ({"usage1": 0x4000}, "encipher and decipher"), ({"management2": 0x8000}, "missing")],
)  # fmt: skip
def test_a_key_is_not_used_against_its_rules(rules, reason):
    mkvp = make_mkvp(MASTER)
    description = AesCipherToken(mkvp, bytes(80), **rules).pack_associated_data()
    payload = aeskw.wrap(clear_key(256, is_xts=False), description, MASTER, 80)
    key = SecureKey(AesCipherToken(mkvp, payload, **rules).pack())
    with pytest.raises(CoprocessorError, match=reason):
        cca.unwrap_key(key, MASTER)


@pytest.mark.parametrize(("size", "is_xts"), [(0, 0), (15, 0), (33, 0), (64, 0), (16, 1), (48, 1)])
def test_a_clear_key_of_another_size_is_refused(size, is_xts):
    with pytest.raises(FormatError, match=f"{size} bytes"):
        cca.wrap_key(KeyType.CCA_AESDATA, bytearray(size), MASTER, is_xts=bool(is_xts))


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
def test_equal_halves_are_refused(key_type):
    with pytest.raises(FormatError, match="halves"):
        cca.wrap_key(key_type, bytearray(b"a" * 64), MASTER, is_xts=True)
