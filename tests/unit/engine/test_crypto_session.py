"""Protected key tokens, and transport blobs that `cryptography` made."""

import errno
import os
import random

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.unit.engine.crypto_library import (
    ffi,
    import_blob,
    lib,
    refused,
    start,
    unwrap,
    wrap,
)

RANDOM = random.Random(4)
SIZES = [16, 17, 24, 31, 32, 48, 64, 96, 127, 128]
WRAPPED_SIZES = [1, 8, 15, *SIZES, 129, 136, 272, 1040, 2079, 2080]


def session_public_key():
    start()
    key = ffi.new("uint8_t[32]")
    lib.session_public_key(key)
    return bytes(key)


def session_pattern():
    pattern = ffi.new("uint8_t[32]")
    lib.session_pattern(pattern)
    return bytes(pattern)


def seal(key, *, ephemeral=None, info=b"fusecrypt transport 1", kind=1, to=None):
    """A transport blob, as a coprocessor makes it."""
    ephemeral = ephemeral or X25519PrivateKey.generate()
    to = to or session_public_key()
    mine = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(to))
    aes_key = HKDF(hashes.SHA256(), 32, None, info + mine + to).derive(shared)
    head, nonce = bytes([kind]) + mine, os.urandom(12)
    return head + nonce + AESGCM(aes_key).encrypt(nonce, key, head)


@pytest.mark.parametrize("size", WRAPPED_SIZES)
def test_a_wrapped_key_comes_back(size):
    key = RANDOM.randbytes(size)
    assert unwrap(wrap(key)) == key


@pytest.mark.parametrize("size", WRAPPED_SIZES)
def test_a_token_has_the_layout_of_the_header_file(size):
    key = RANDOM.randbytes(size)
    token = wrap(key)
    assert len(token) == 16 + max(size, 16) + 32
    assert token[:16] == bytes.fromhex("00000000 01000000 46435601") + (size + 32).to_bytes(
        4, "big"
    )
    assert token[-32:] == session_pattern()
    assert size < 8 or key not in token


@pytest.mark.parametrize("size", [0, 2081, 4096])
def test_a_key_of_another_size_is_not_wrapped(size):
    with refused(errno.EINVAL):
        wrap(bytes(size))


def is_imported(token):
    given = ffi.new("struct wire_token *", {"length": len(token)})
    given.bytes[0 : len(token)] = token
    return lib.session_is_imported(given)


def test_a_key_that_was_sent_says_so_and_is_used_like_any_other():
    key = RANDOM.randbytes(32)
    sent, own = import_blob(seal(key)), wrap(key)
    assert unwrap(sent) == unwrap(own) == key
    assert (is_imported(sent), is_imported(own)) == (True, False)
    assert is_imported(b"no token at all")


def test_a_token_of_another_session_has_expired():
    token = bytearray(wrap(b"k" * 32))
    token[-1] ^= 1
    with refused(errno.EKEYEXPIRED):
        unwrap(bytes(token))


@pytest.mark.parametrize("position", range(16))
def test_a_token_with_another_header_is_none(position):
    token = bytearray(wrap(b"k" * 32))
    token[position] ^= 0x40
    with refused(errno.EINVAL):
        unwrap(bytes(token))


@pytest.mark.parametrize("length", [0, 1, 16, 47, 48, 63, 79, 81, 176, 177, 320])
def test_a_token_of_another_length_is_none(length):
    token = wrap(b"k" * 32).ljust(320, b"\0")[:length]
    with refused(errno.EINVAL):
        unwrap(token)


def test_a_token_longer_than_its_field_is_none():
    start()
    token = ffi.new("struct wire_token *", {"length": 2**32 - 1})
    key, size = ffi.new("uint8_t **"), ffi.new("size_t *")
    assert lib.session_unwrap(token, key, size) == -errno.EINVAL
    assert key[0] == ffi.NULL


AES_128, AES_192, AES_256, XTS_128, XTS_256 = 1, 2, 3, 10, 11


def make_pkey(kind):
    start()
    token = ffi.new("struct wire_token *")
    assert lib.session_make_pkey(kind, token) == 0
    return bytes(ffi.buffer(token.bytes, token.length))


def join(*tokens):
    """The volume key that protected key tokens make."""
    start()
    data = b"".join(tokens)
    out = ffi.new("struct wire_token *")
    status = lib.session_join_pkeys(data, len(data), out)
    if status:
        raise OSError(-status, "session_join_pkeys")
    return unwrap(bytes(ffi.buffer(out.bytes, out.length)))


# pkey.h and pkey_sysfs.c of Linux 6.x: type number, bytes of the key, bytes of the token.
PKEYS = [
    (AES_128, 16, 80),
    (AES_192, 24, 80),
    (AES_256, 32, 80),
    (XTS_128, 32, 80),
    (XTS_256, 64, 112),
]


@pytest.mark.parametrize(("kind", "key_size", "size"), PKEYS)
def test_a_protected_key_token_has_the_layout_of_pkey(kind, key_size, size):
    token, other = make_pkey(kind), make_pkey(kind)
    assert len(token) == size
    assert token[:8] == bytes.fromhex("00000000 01000000")
    assert int.from_bytes(token[8:12], "big") == kind
    assert int.from_bytes(token[12:16], "big") == key_size + 32
    pattern = session_pattern()
    assert token[16 + key_size : 16 + key_size + 32] == pattern
    assert not any(token[16 + key_size + 32 :])
    assert token != other
    assert len(join(token)) == key_size


def test_two_single_tokens_make_an_xts_key_in_their_order():
    for kind in (AES_128, AES_256):
        first, second = make_pkey(kind), make_pkey(kind)
        assert join(first, second) == join(first) + join(second)


@pytest.mark.parametrize(
    "parts",
    [(AES_128, AES_256), (AES_256, XTS_128), (XTS_256, XTS_256), (AES_256, AES_256, AES_256)],
)
def test_tokens_that_make_no_pair_are_refused(parts):
    with refused(errno.EINVAL):
        join(*(make_pkey(kind) for kind in parts))


def test_a_protected_key_token_of_another_session_has_expired():
    token = bytearray(make_pkey(AES_256))
    token[16 + 32] ^= 1
    with refused(errno.EKEYEXPIRED):
        join(bytes(token))


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 47, 79])
def test_a_cut_protected_key_token_is_none(cut):
    with refused(errno.EINVAL):
        join(make_pkey(AES_256)[:cut])


def test_random_bytes_are_no_protected_key():
    for _ in range(2000):
        data = bytearray(make_pkey(RANDOM.choice((AES_128, XTS_256))))
        for _ in range(RANDOM.randrange(1, 4)):
            data[RANDOM.randrange(16)] = RANDOM.randrange(256)
        out = ffi.new("struct wire_token *")
        status = lib.session_join_pkeys(bytes(data), len(data), out)
        assert status in (0, -errno.EINVAL, -errno.EKEYEXPIRED)


@pytest.mark.parametrize("size", SIZES)
def test_a_transport_blob_becomes_a_token_of_its_key(size):
    key = RANDOM.randbytes(size)
    assert unwrap(import_blob(seal(key))) == key
    assert unwrap(import_blob(seal(key), key_size=size)) == key


def test_a_blob_is_taken_once():
    blob = seal(b"k" * 64)
    import_blob(blob)
    with refused(errno.EEXIST):
        import_blob(blob)


def test_the_unused_bit_of_a_point_makes_no_second_blob():
    blob = bytearray(seal(b"k" * 64))
    blob[32] ^= 0x80  # X25519 ignores it; the additional data does not
    with refused(errno.EKEYREJECTED):
        import_blob(bytes(blob))


@pytest.mark.parametrize("position", [1, 20, 33, 40, 45, 60, 108, 109, 124])
def test_a_changed_blob_is_not_authentic(position):
    blob = bytearray(seal(b"k" * 64))
    blob[position] ^= 1
    with refused(errno.EKEYREJECTED):
        import_blob(bytes(blob))


def test_a_changed_blob_may_be_sent_again_unchanged():
    blob = seal(b"k" * 64)
    with refused(errno.EKEYREJECTED):
        import_blob(blob[:-1] + bytes([blob[-1] ^ 1]))
    assert unwrap(import_blob(blob)) == b"k" * 64


def test_a_blob_to_another_session_is_not_authentic():
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    with refused(errno.EKEYREJECTED):
        import_blob(seal(b"k" * 64, to=other))


def test_a_blob_with_another_purpose_is_not_authentic():
    with refused(errno.EKEYREJECTED):
        import_blob(seal(b"k" * 64, info=b"fusecrypt transport 2"))


SMALL_ORDER = [  # RFC 7748 section 6.1 speaks of them; from https://cr.yp.to/ecdh.html#validate
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_point_of_small_order_is_refused(point):
    """Its shared secret is zero, known to everybody: the blob is otherwise a good one."""
    to = session_public_key()
    aes_key = HKDF(hashes.SHA256(), 32, None, b"fusecrypt transport 1" + point + to).derive(
        bytes(32)
    )
    head, nonce = b"\x01" + point, bytes(12)
    with refused(errno.EKEYREJECTED):
        import_blob(head + nonce + AESGCM(aes_key).encrypt(nonce, b"k" * 64, head))


@pytest.mark.parametrize("kind", [0, 3, 255])
def test_another_kind_is_not_supported(kind):
    with refused(errno.EOPNOTSUPP):
        import_blob(seal(b"k" * 64, kind=kind))


@pytest.mark.parametrize("size", [0, 129, 4000])
def test_a_blob_of_impossible_length_is_refused(size):
    with refused(errno.EINVAL):
        import_blob(seal(bytes(size)))


@pytest.mark.parametrize("length", [0, 1, 33, 45, 60, 61])
def test_a_piece_of_a_blob_is_refused(length):
    with refused(errno.EINVAL):
        import_blob(seal(b"k" * 64)[:length])


def test_a_key_of_another_size_than_wanted_is_refused():
    with refused(errno.EINVAL):
        import_blob(seal(b"k" * 64), key_size=32)
    with refused(errno.EINVAL):
        import_blob(seal(b"k" * 15))
