"""Transport blobs, opened by the engine that they are for."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fusecrypt.dmcrypt.engine.process import spawn_engine
from fusecrypt.keystore.errors import FormatError, UnlockError
from fusecrypt.keystore.key_type import CCA_KEY_TYPES
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.transport import seal
from tests.unit.engine.crypto_library import import_blob, unwrap
from tests.unit.engine.test_crypto_session import session_public_key
from tests.unit.keystore.samples import FIRST, SIZES, clear_key


@pytest.fixture(scope="module")
def engine():
    started = spawn_engine()
    yield started.engine
    started.engine.shutdown()
    assert started.wait(10) == 0
    started.close()


@pytest.mark.parametrize("size", [16, 24, 32, 48, 64])
def test_the_engine_takes_the_very_key_out_of_a_blob(size):
    clear = bytearray(os.urandom(size))
    assert unwrap(import_blob(seal(clear, session_public_key()), key_size=size)) == clear


def test_two_blobs_of_a_key_have_nothing_in_common():
    clear, public = clear_key(256, is_xts=True), session_public_key()
    first, second = seal(clear, public), seal(clear, public)
    assert len(first) == len(second) == 1 + 32 + 12 + 64 + 16
    assert first[0] == second[0] == 1
    assert first[1:33] != second[1:33]
    assert first[45:] != second[45:]


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
@pytest.mark.parametrize(("bits", "is_xts"), SIZES)
def test_a_generated_key_reaches_a_running_engine(engine, coprocessors, key_type, bits, is_xts):
    coprocessors.create(FIRST)
    key = coprocessors.generate(key_type, bits, is_xts=is_xts)
    made = coprocessors.to_transport(key, engine.status().public_key)
    assert made.key_size == bits // 8 * (2 if is_xts else 1)
    assert engine.import_key(made.blob, key_size=made.key_size).token[-32:]
    with pytest.raises(UnlockError, match="used before"):
        engine.import_key(made.blob)


def test_an_imported_key_reaches_the_engine_as_it_was(coprocessors):
    coprocessors.create(FIRST)
    clear = clear_key(256, is_xts=True)
    key = coprocessors.import_clear(KeyType.CCA_AESCIPHER, clear, is_xts=True)
    made = coprocessors.to_transport(key, session_public_key())
    assert unwrap(import_blob(made.blob, key_size=64)) == clear
    assert made.pattern.startswith("cd6b103236fbd87d")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_public_key_of_another_size_is_refused(size):
    with pytest.raises(FormatError, match=f"{size} bytes"):
        seal(bytearray(64), bytes(size))


def test_a_point_of_small_order_is_refused():
    with pytest.raises(FormatError, match="small order"):
        seal(bytearray(64), bytes(32))


def test_a_blob_prints_no_content(coprocessors):
    coprocessors.create(FIRST)
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    key = coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    made = coprocessors.to_transport(key, public)
    assert repr(made.blob) not in repr(made)
