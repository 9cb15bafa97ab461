"""Another session: what of the one before is void, and what goes on."""

import errno
import os

import pytest

from fusecrypt.dmcrypt.engine.messages import PkeyType
from fusecrypt.keystore.errors import EngineError, ProtectedKeyExpiredError, UnlockError
from fusecrypt.keystore.transport import seal
from tests.unit.engine import test_crypto_rsa
from tests.unit.engine.crypto_library import (
    arena_used,
    check,
    ffi,
    import_blob,
    lib,
    refused,
    unwrap,
    wrap,
)
from tests.unit.engine.engine_keys import load_key
from tests.unit.engine.test_crypto_session import (
    XTS_256,
    join,
    make_pkey,
    session_pattern,
    session_public_key,
)
from tests.unit.engine.test_crypto_session import seal as seal_with

IMPORTED_KEY, RANDOM_KEY = 0x46435602, 0x46435603


@pytest.fixture
def old_session():
    """The session before the one that begins in the test with `begin`."""
    old = ffi.new("struct session *")
    yield old
    lib.session_discard(old)
    test_crypto_rsa.modulus.cache_clear()


def begin(old):
    check(lib.session_prepare(old))
    lib.session_replace(old)


def pack(token):
    packed = ffi.new("struct wire_token *", {"length": len(token)})
    packed.bytes[0 : len(token)] = token
    return packed


def test_tokens_blobs_and_random_keys_of_the_session_before_are_void(old_session):
    own, sent, random = wrap(b"k" * 32), import_blob(seal_with(b"s" * 32)), make_pkey(XTS_256)
    blob = seal_with(b"t" * 32)
    pattern, public = session_pattern(), session_public_key()
    begin(old_session)
    assert session_pattern() != pattern
    assert session_public_key() != public
    for token in (own, sent):
        with refused(errno.EKEYEXPIRED):
            unwrap(token)
    with refused(errno.EKEYEXPIRED):
        join(random)
    with refused(errno.EKEYREJECTED):
        import_blob(blob)
    assert unwrap(wrap(b"k" * 32)) == b"k" * 32
    assert unwrap(import_blob(seal_with(b"s" * 32))) == b"s" * 32


@pytest.mark.parametrize("size", [1, 8, 15, 16, 64, 272, 2080])
def test_the_token_of_a_clear_key_is_wrapped_anew(old_session, size):
    key = os.urandom(size)
    token = pack(wrap(key))
    begin(old_session)
    check(lib.session_rewrap(old_session, token))
    assert unwrap(bytes(ffi.buffer(token.bytes, token.length))) == key
    assert lib.session_rewrap(old_session, token) == -errno.EKEYEXPIRED


def test_no_other_token_is_wrapped_anew(old_session):
    sent = pack(import_blob(seal_with(b"s" * 32)))
    data = make_pkey(XTS_256)
    random = ffi.new("struct wire_token *")
    check(lib.session_join_pkeys(data, len(data), random))
    assert [lib.session_kind(token) for token in (sent, random)] == [IMPORTED_KEY, RANDOM_KEY]
    begin(old_session)
    for token in (sent, random):
        assert lib.session_rewrap(old_session, token) == -errno.EINVAL


def test_a_session_leaves_nothing_behind():
    wrap(b"k")
    used = arena_used()
    old = ffi.new("struct session *")
    for _ in range(5):
        begin(old)
        lib.session_discard(old)
    test_crypto_rsa.modulus.cache_clear()
    assert arena_used() <= used


def test_an_engine_in_another_session_has_other_keys_and_says_so(process):
    engine = process.engine
    hello, modulus = engine.hello, engine.get_rsa_modulus()
    volume_key = load_key(engine, b"v" * 64)
    blob = seal(bytearray(b"s" * 64), hello.public_key)
    token = engine.make_pkey_token(PkeyType.AES_256)
    engine.bump_session()
    assert engine.hello.public_key != hello.public_key
    assert engine.hello.pattern != hello.pattern
    assert engine.status().pattern == engine.hello.pattern
    assert engine.get_rsa_modulus() != modulus
    with pytest.raises(UnlockError, match="not made for this session"):
        engine.import_key(blob)
    with pytest.raises(ProtectedKeyExpiredError):
        engine.export_key(volume_key)
    with pytest.raises(ProtectedKeyExpiredError):
        engine.export_key(load_key(engine, token))
    engine.import_key(seal(bytearray(b"s" * 64), engine.hello.public_key))


def test_what_no_device_is_has_no_key_to_forget(process):
    with pytest.raises(EngineError, match="No such device"):
        process.engine.forget_key(7)
    with pytest.raises(EngineError, match="No such device"):
        process.engine.deny_key(7, milliseconds=1)


def test_a_key_pair_that_is_used_up_is_followed_by_another(process):
    engine = process.engine
    public_key = engine.hello.public_key
    first = seal(bytearray(b"s" * 64), public_key)
    engine.import_key(first)
    for _ in range(4095):
        engine.import_key(seal(bytearray(b"s" * 64), public_key))
    token = load_key(engine, b"v" * 64)
    with pytest.raises(UnlockError, match="its public key is another"):
        engine.import_key(seal(bytearray(b"s" * 64), public_key))
    assert engine.hello.public_key != public_key
    for blob in (first, seal(bytearray(b"s" * 64), public_key)):
        with pytest.raises(UnlockError, match="not made for this session"):
            engine.import_key(blob)
    engine.import_key(seal(bytearray(b"s" * 64), engine.hello.public_key))
    engine.export_key(token)  # it is the same session
