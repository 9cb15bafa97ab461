"""Key tokens: a real one, every field altered, and hostile bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.keystore.errors import FormatError
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.tokens import (
    TOKEN_SIZES,
    AesCipherToken,
    AesDataToken,
    KeyType,
    make_tvv,
    parse_tokens,
)
from tests.unit.keystore.samples import REAL_MKVP, REAL_XTS_KEY

DATA = REAL_XTS_KEY[:64]
CIPHER = AesCipherToken(REAL_MKVP, bytes(range(80))).pack()


def with_byte(token, position, value):
    changed = bytearray(token)
    changed[position] = value
    return bytes(changed)


def with_tvv(token):
    return token[:60] + make_tvv(token[:60]).to_bytes(4, "big")


def test_the_key_of_a_real_system_is_what_zkey_says_of_it():
    key = SecureKey.parse(REAL_XTS_KEY)
    assert key.key_type is KeyType.CCA_AESDATA
    assert key.key_type == "CCA-AESDATA"
    assert key.is_xts
    assert key.clear_bits == 512
    assert key.mkvp == REAL_MKVP
    assert key.size == 128
    assert [half.lrc for half in key.halves] == [0xCC, 0x97]
    assert b"".join(half.pack() for half in key.halves) == REAL_XTS_KEY


def test_both_validation_values_of_the_real_key_are_the_sum_of_its_words():
    assert make_tvv(REAL_XTS_KEY[:60]) == 0x58CD01C7
    assert make_tvv(REAL_XTS_KEY[64:124]) == 0x9FBF28F7


def test_a_secure_key_prints_no_content_and_is_no_bytes():
    key = SecureKey.parse(DATA)
    assert repr(key) == "SecureKey()"
    assert not hasattr(key, "__bytes__")
    assert DATA[16:48].hex() not in repr(key.halves)
    assert repr(bytes(80)) not in repr(parse_tokens(CIPHER))


def test_a_secure_key_cannot_hold_what_is_no_token():
    with pytest.raises(FormatError):
        SecureKey(bytes(64))


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_the_payload_of_version_0_tells_the_size_of_the_key(bits):
    token = AesCipherToken(REAL_MKVP, bytes((bits + 384) // 8))
    key = SecureKey.parse(token.pack())
    assert key.clear_bits == bits
    assert key.size == 136
    assert key.halves == (token,)


def test_the_payload_of_version_1_hides_it():
    token = AesCipherToken(REAL_MKVP, bytes(80), payload_version=1)
    other = AesCipherToken(REAL_MKVP, bytes(79) + b"\1", payload_version=1)
    assert SecureKey.parse(token.pack()).clear_bits is None
    assert SecureKey.parse(token.pack() + other.pack()).clear_bits is None


def test_a_fresh_cipher_token_has_the_fields_that_the_kernel_asks_for():
    """The skeleton in drivers/s390/crypto/zcrypt_ccamisc.c, from its associated data on."""
    description = bytes.fromhex("0100001a0000000002800002000102c000ff000308c800000202")
    assert CIPHER[30:56] == description
    assert AesCipherToken.parse(CIPHER).pack_associated_data() == description
    assert CIPHER[:10] == bytes.fromhex("01000088050000000301")
    assert CIPHER[10:30] == REAL_MKVP + bytes(8) + bytes.fromhex("02020000")


# Byte 6: 0x40 may be clear. 7 is the LRC, 8 to 47 MKVP and key.
@pytest.mark.parametrize(
    ("position", "value"),
    [(0, 2), (0, 0), (1, 1), (3, 1), (4, 5), (5, 1), (6, 0), (6, 0x40), (6, 0xE0), (6, 0xC1),
     (48, 1), (55, 1), (56, 2), (57, 1), (58, 1), (59, 16)],
)  # fmt: skip
def test_an_altered_field_of_an_aesdata_token_is_refused(position, value):
    with pytest.raises(FormatError, match=r"key token|CCA-AES"):
        SecureKey.parse(with_tvv(with_byte(DATA, position, value)))


@pytest.mark.parametrize("position", range(64))
def test_an_aesdata_token_is_refused_whichever_byte_changed(position):
    with pytest.raises(FormatError):
        SecureKey.parse(with_byte(DATA, position, DATA[position] ^ 0x10))


def test_a_token_without_a_control_vector_is_one_too():
    """CCA Programmer's Guide: it is accepted, and taken for a DATA key."""
    token = with_tvv(with_byte(DATA, 6, 0x80))
    assert SecureKey.parse(token).halves[0].pack() == token


def test_a_wrong_validation_value_is_told_with_the_right_one():
    with pytest.raises(FormatError, match=r"byte 60: 58cd01c6, wanted 58cd01c7"):
        SecureKey.parse(with_byte(DATA, 63, 0xC6))


@pytest.mark.parametrize(
    "position",
    [0, 1, 2, 3, 4, 5, 7, 8, 9, 18, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39,
     40, 41, 42, 43, 44, 49],
)  # fmt: skip
def test_an_altered_field_of_an_aescipher_token_is_refused(position):
    with pytest.raises(FormatError):
        SecureKey.parse(with_byte(CIPHER, position, CIPHER[position] ^ 0x02))


def test_the_padding_of_the_file_form_is_zeros():
    short = AesCipherToken(REAL_MKVP, bytes(64)).pack()
    assert SecureKey.parse(short).clear_bits == 128
    with pytest.raises(FormatError, match="padding at byte 120"):
        SecureKey.parse(with_byte(short, 135, 1))


@pytest.mark.parametrize("key", [DATA, CIPHER])
@pytest.mark.parametrize("change", [-1, 1])
def test_another_length_is_refused(key, change):
    whole = key[:change] if change < 0 else key + bytes(change)
    with pytest.raises(FormatError, match=rf"{len(key) + change} bytes, wanted {len(key)}"):
        SecureKey.parse(whole)


@pytest.mark.parametrize(
    ("head", "name"),
    [("0000000003000000", "EP11-AES"), ("0000000006000000", "EP11-AES"),
     ("0000000009000000", "PVSECRET"), ("0000000001000000", "protected key"),
     ("0000000002000000", "clear key")],
)  # fmt: skip
def test_a_key_of_another_kind_is_refused_by_its_name(head, name):
    with pytest.raises(FormatError, match=name):
        SecureKey.parse(bytes.fromhex(head) + bytes(56))


def test_the_halves_of_an_xts_key_belong_together():
    second = REAL_XTS_KEY[64:]
    with pytest.raises(FormatError, match="same"):
        SecureKey.parse(DATA + DATA)
    with pytest.raises(FormatError, match="MKVP"):
        SecureKey.parse(DATA + with_tvv(with_byte(second, 8, 0)))
    half = AesDataToken(REAL_MKVP, 0, 192, bytes(32))
    other = AesDataToken(REAL_MKVP, 1, 192, bytes(32))
    with pytest.raises(FormatError, match="128 or 256"):
        SecureKey.parse(half.pack() + other.pack())
    with pytest.raises(FormatError, match="second half"):
        SecureKey.parse(DATA + half.pack())
    with pytest.raises(FormatError):
        SecureKey.parse(DATA + CIPHER)


@given(st.binary(max_size=300))
def test_bytes_are_tokens_or_refused(data):
    try:
        key = SecureKey.parse(data)
    except FormatError:
        return
    assert b"".join(half.pack() for half in key.halves) == data


@given(
    st.sampled_from(
        [DATA, REAL_XTS_KEY, CIPHER, CIPHER + AesCipherToken(REAL_MKVP, bytes(80)).pack()]
    ),
    st.lists(st.tuples(st.integers(0, 271), st.integers(0, 255)), max_size=3),
    st.integers(0, 272),
)
def test_damaged_tokens_are_tokens_or_refused(token, changes, length):
    damaged = bytearray(token)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    for data in (bytes(damaged), bytes(damaged[:length])):
        try:
            key = SecureKey.parse(data)
        except FormatError:
            continue
        assert b"".join(half.pack() for half in key.halves) == data


@given(
    st.binary(min_size=8, max_size=8),
    st.sampled_from([64, 72, 80]).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
    st.lists(st.integers(0, 65535), min_size=5, max_size=5),
)
def test_an_aescipher_token_comes_back(mkvp, payload, fields):
    token = AesCipherToken(mkvp, payload, 0, *fields)
    packed = token.pack()
    assert len(packed) == TOKEN_SIZES[KeyType.CCA_AESCIPHER]
    assert AesCipherToken.parse(packed) == token


@given(
    st.binary(min_size=8, max_size=8),
    st.integers(0, 255),
    st.sampled_from([128, 192, 256]),
    st.binary(min_size=32, max_size=32),
    st.booleans(),
)
def test_an_aesdata_token_comes_back(mkvp, lrc, bits, encrypted, has_vector):
    token = AesDataToken(mkvp, lrc, bits, encrypted, has_vector)
    assert AesDataToken.parse(token.pack()) == token
