"""EP11: tokens of both forms, and what is inside the blobs of virtual adapters."""

import hashlib
import hmac
import random
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fusecrypt.keystore import ep11
from fusecrypt.keystore.ep11_token import (
    DECRYPT,
    ENCRYPT,
    EXTRACTABLE,
    PROTKEY_EXTRACTABLE,
    VERSION_OVERLAID,
    Ep11Token,
)
from fusecrypt.keystore.errors import (
    CoprocessorError,
    FormatError,
    MapperError,
    UnsupportedError,
)
from fusecrypt.keystore.key_rules import find_weaknesses
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_wkvp
from tests.unit.keystore.samples import SIZES, clear_key, master_key

RANDOM = random.Random(11)
PUBLIC = X25519PrivateKey.generate().public_key().public_bytes_raw()
EP11 = KeyType.EP11_AES
FORMS = {3: 320, 6: 336}


def make_token(version=6, bits=256, **fields):
    token = Ep11Token(
        mkvp=RANDOM.randbytes(16),
        attributes=0x200C00,
        iv=RANDOM.randbytes(14),
        encrypted=RANDOM.randbytes(144),
        mac=RANDOM.randbytes(32),
        clear_bits=bits,
        version=version,
    )
    return replace(token, **fields)


def with_form(key, version):
    """The same key in another form."""
    return SecureKey(b"".join(replace(half, version=version).pack() for half in key.halves))


def open_blob(token, wrapping_key):
    """A second way to the clear key of one token: RFC 5869 and SP 800-38A read again."""
    blob = token[16:] if token[4] == 6 else bytes(32) + token[32:]
    assert blob[32:48] == hashlib.sha256(b"\2" + wrapping_key).digest()[:16]
    pseudorandom = hmac.digest(bytes(32), wrapping_key, "sha256")
    first = hmac.digest(pseudorandom, b"fusecrypt EP11 blob 1\1", "sha256")
    second = hmac.digest(pseudorandom, first + b"fusecrypt EP11 blob 1\2", "sha256")
    assert hmac.digest(second, blob[:224], "sha256") == blob[224:256]
    ecb = Cipher(algorithms.AES(first), modes.ECB())
    chain = ecb.encryptor().update(blob[66:80] + b"\0\0")
    plain = b""
    for at in range(80, 224, 16):
        block = ecb.decryptor().update(blob[at : at + 16])
        plain += bytes(a ^ b for a, b in zip(block, chain, strict=True))
        chain = blob[at : at + 16]
    size = int.from_bytes(plain[:2], "big") // 8
    assert not any(plain[2 + size :])
    assert not any(blob[256:])
    return plain[2 : 2 + size]


def wrap(bits=256, is_xts=False, key=0, **options):
    return ep11.wrap_key(EP11, clear_key(bits, is_xts), master_key(key), is_xts=is_xts, **options)


@pytest.mark.parametrize("version", FORMS)
@pytest.mark.parametrize("bits", [128, 192, 256, None])
def test_a_token_parsed_and_packed_is_the_same(version, bits):
    token = make_token(version, bits)
    packed = token.pack()
    assert len(packed) == FORMS[version]
    assert Ep11Token.parse(packed) == token
    key = SecureKey(packed)
    assert (key.key_type, key.is_xts, key.clear_bits, key.mkvp) == (EP11, False, bits, token.mkvp)


@pytest.mark.parametrize("version", FORMS)
def test_fields_are_where_the_kernel_has_them(version):
    token = make_token(version).pack()
    start = 16 if version == 6 else 0
    length = 256 + start
    assert token[:8] == bytes([0, 0, length >> 8, length & 255, version, 0, 1, 0])
    assert not any(token[8 : start + 32])
    assert token[start + 48 : start + 56] == bytes.fromhex("0000000000200c00")
    assert token[start + 64 : start + 66] == b"\x12\x34"
    assert not any(token[length:])


@pytest.mark.parametrize("version", FORMS)
def test_a_longer_blob_of_a_real_adapter_is_kept_as_it_is(version):
    """The kernel takes up to 320 bytes: what is behind the known fields is not ours to judge."""
    token = make_token(version, blob_size=300, rest=RANDOM.randbytes(44) + bytes(20))
    assert Ep11Token.parse(token.pack()) == token
    with pytest.raises(FormatError, match="padding"):
        Ep11Token.parse(token.pack()[:-1] + b"\1")


@pytest.mark.parametrize("version", FORMS)
@pytest.mark.parametrize(
    ("at", "value", "text"),
    [
        (0, 1, "type"), (1, 1, "reserved"), (5, 1, "reserved"), (2, 0, "length"), (2, 9, "length"),
        (6, 9, "clear key bits"), (7, 1, "clear key bits"), (12, 1, "reserved bytes"),
        (-1, 1, "padding"),
    ],
)  # fmt: skip
def test_a_field_that_says_something_else_is_refused(version, at, value, text):
    token = bytearray(make_token(version).pack())
    token[at] = value
    with pytest.raises(FormatError, match=text):
        Ep11Token.parse(bytes(token))


def test_a_session_is_known_only_with_a_header():
    token = make_token(session=bytes(31) + b"\1")
    assert Ep11Token.parse(token.pack()).is_session_bound
    assert not make_token().is_session_bound
    old = bytearray(make_token(3).pack())
    old[31] = 1
    with pytest.raises(FormatError, match="reserved bytes"):
        SecureKey(bytes(old))


def test_hostile_bytes_parse_or_are_refused():
    for version in FORMS:
        token = make_token(version).pack()
        for _ in range(2000):
            data = bytearray(token)
            for _ in range(RANDOM.randrange(1, 4)):
                data[RANDOM.randrange(len(data))] = RANDOM.randrange(256)
            if RANDOM.random() < 0.2:
                del data[RANDOM.randrange(len(data)) :]
            try:
                key = SecureKey.parse(bytes(data))
            except MapperError:
                continue
            assert b"".join(half.pack() for half in key.halves) == data


def test_the_halves_of_an_xts_key_belong_together():
    one = make_token()
    pair = SecureKey(one.pack() + make_token(mkvp=one.mkvp).pack())
    assert (pair.is_xts, pair.clear_bits, pair.size) == (True, 512, 672)
    for other, text in (
        (one, "the same"),
        (make_token(), "MKVP"),
        (make_token(bits=128, mkvp=one.mkvp), "bits"),
        (make_token(3, mkvp=one.mkvp), "bytes, wanted 336"),
    ):
        with pytest.raises(FormatError, match=text):
            SecureKey(one.pack() + other.pack())
    half = make_token(bits=192)
    with pytest.raises(FormatError, match="128 or 256"):
        SecureKey(half.pack() + make_token(bits=192, mkvp=half.mkvp).pack())


@pytest.mark.parametrize("version", FORMS)
@pytest.mark.parametrize(("bits", "is_xts"), SIZES)
def test_a_wrapped_key_is_what_another_implementation_unwraps(version, bits, is_xts):
    key = with_form(wrap(bits, is_xts), version)
    clear = clear_key(bits, is_xts)
    size = FORMS[version]
    found = [open_blob(key.token[i : i + size], master_key(0)) for i in range(0, key.size, size)]
    assert b"".join(found) == clear
    assert ep11.unwrap_key(key, master_key(0)) == clear
    assert key.mkvp == make_wkvp(master_key(0))
    for part in (clear[:16], clear[-16:]):
        assert bytes(part) not in key.token


def test_the_same_key_never_looks_the_same():
    one, other = wrap(), wrap()
    first, second = one.halves[0], other.halves[0]
    assert first.iv != second.iv
    assert first.encrypted[:16] != second.encrypted[:16]


@pytest.mark.parametrize("version", FORMS)
def test_every_changed_byte_of_a_blob_is_seen(version):
    key = with_form(wrap(), version)
    start = 16 if version == 6 else 0
    for at in (*range(start + 48, start + 64), *range(start + 66, start + 256, 7), start + 255):
        token = bytearray(key.token)
        token[at] ^= 0x20  # of the attributes, it is PROTKEY_EXTRACTABLE
        with pytest.raises((FormatError, CoprocessorError), match=r"altered|may not"):
            ep11.unwrap_key(SecureKey(bytes(token)), master_key(0))
    token = bytearray(key.token)
    token[6:8] = (192).to_bytes(2, "big")
    with pytest.raises(FormatError, match="size of the key inside"):
        ep11.unwrap_key(SecureKey(bytes(token)), master_key(0))
    token[6:8] = bytes(2)  # which tells nothing
    assert ep11.unwrap_key(SecureKey(bytes(token)), master_key(0)) == clear_key(256, False)


def test_a_key_is_rewrapped_as_it_is():
    key = with_form(wrap(256, is_xts=True, is_exportable=True), VERSION_OVERLAID)
    again = ep11.rewrap_key(key, master_key(0), master_key(1))
    assert ep11.unwrap_key(again, master_key(1)) == clear_key(256, True)
    assert {half.version for half in again.halves} == {VERSION_OVERLAID}
    assert {half.attributes for half in again.halves} == {
        EXTRACTABLE | ENCRYPT | DECRYPT | PROTKEY_EXTRACTABLE
    }
    with pytest.raises(FormatError, match="WKVP"):
        ep11.rewrap_key(key, master_key(1), master_key(2))


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"attributes": ENCRYPT | DECRYPT}, CoprocessorError, "PROTKEY_EXTRACTABLE"),
        ({"attributes": PROTKEY_EXTRACTABLE | ENCRYPT}, CoprocessorError, "both encipher"),
        ({"session": b"\1" * 32}, CoprocessorError, "bound to EP11 session 0101010101010101"),
        ({"blob_size": 260}, UnsupportedError, "260 bytes"),
        ({}, FormatError, "altered"),
    ],
)
def test_what_may_not_be_used_is_refused(fields, error, text):
    token = make_token(mkvp=make_wkvp(master_key(0)), **fields)
    with pytest.raises(error, match=text):
        ep11.unwrap_key(SecureKey(token.pack()), master_key(0))


def test_keys_of_other_kinds_are_refused():
    with pytest.raises(UnsupportedError, match="no key of EP11"):
        ep11.wrap_key(KeyType.CCA_AESDATA, clear_key(256, False), master_key(0), is_xts=False)
    with pytest.raises(FormatError, match="both halves"):
        ep11.wrap_key(EP11, bytearray(64), master_key(0), is_xts=True)


def test_attributes_that_a_volume_key_should_not_have_are_told():
    def weaknesses(attributes, **options):
        return find_weaknesses(SecureKey(make_token(attributes=attributes).pack()), **options)

    assert weaknesses(0x200C00) == []
    assert weaknesses(0x200C01) == ["can be exported with another key"]
    assert weaknesses(0x200C01, may_export=True) == []
    assert weaknesses(0) == [
        "cannot be used to encrypt", "cannot be used to decrypt", "cannot become a protected key"
    ]  # fmt: skip
