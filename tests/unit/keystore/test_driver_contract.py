"""What every driver has to do, asked of all of them: soft in both modes, SoftHSM, openCryptoki's
soft token.
"""

import itertools
import os
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fusecrypt.keystore.coprocessor import Apqn, Fill, Register
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import (
    CoprocessorError,
    FormatError,
    MasterKeyChangedError,
    UnsupportedError,
)
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.pkcs11_uri import TokenUri
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_pattern
from tests.lab import tokens

APQN = Apqn(3, 0x39)
BESIDE_OPENCRYPTOKI = tokens.BESIDE_OPENCRYPTOKI in os.environ
KINDS = ["opencryptoki"] if BESIDE_OPENCRYPTOKI else ["soft", "soft-ep11", "softhsm"]
_numbers = itertools.count()


class Engine:
    """What an engine has: two private keys, and the way to open blobs of both kinds."""

    def __init__(self):
        self._point = X25519PrivateKey.generate()
        self._rsa = rsa.generate_private_key(65537, 3072)
        self.public_key = (
            self._point.public_key().public_bytes_raw()
            + self._rsa.public_key().public_numbers().n.to_bytes(384, "big")
        )

    def open(self, blob):
        if blob[0] == 1:
            info = b"fusecrypt transport 1" + blob[1:33] + self.public_key[:32]
            peer = X25519PublicKey.from_public_bytes(blob[1:33])
            key = HKDF(hashes.SHA256(), 32, None, info).derive(self._point.exchange(peer))
            return AESGCM(key).decrypt(blob[33:45], blob[45:], blob[:33])
        assert blob[0] == 2
        assert len(blob) == 3 + 384 * blob[2]
        algorithm = {1: hashes.SHA1, 2: hashes.SHA256}[blob[1]]()
        oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, None)
        return b"".join(
            self._rsa.decrypt(blob[at : at + 384], oaep) for at in range(3, len(blob), 384)
        )


@pytest.fixture(scope="module")
def engine():
    return Engine()


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        hsm = tokens.SoftHsm(tmp_path_factory.mktemp("softhsm"))
        patch.setenv("SOFTHSM2_CONF", hsm.environment["SOFTHSM2_CONF"])
        yield hsm


@pytest.fixture(params=KINDS)
def adapters(request, tmp_path):
    """A directory with one adapter, that has a CURRENT master key."""
    made = Coprocessors(tmp_path / "keystore")
    if request.param in ("soft", "soft-ep11"):
        made.create(APQN, "ep11" if request.param == "soft-ep11" else "cca")
    else:
        if request.param == "softhsm":
            uri = request.getfixturevalue("softhsm").make(f"token {next(_numbers)}")
        else:
            uri = tokens.get_opencryptoki_uri()
        made.create_token(APQN, TokenUri.parse(uri), bytearray(tokens.PIN.encode()))
    yield made
    if BESIDE_OPENCRYPTOKI:  # there is one token for all tests: without NEW, as a new one
        made.clear_new(APQN)


@pytest.fixture
def key_type(adapters):
    return {
        "pkcs11": KeyType.PKCS11_AES,
        "ep11": KeyType.EP11_AES,
        "cca": KeyType.CCA_AESCIPHER,
    }[adapters.list_info()[0].mode]


XTS = pytest.mark.parametrize(("bits", "is_xts"), [(256, True), (128, True), (192, False)])


@XTS
def test_a_random_key_is_what_was_asked_for_and_gets_to_the_engine(
    adapters, key_type, engine, bits, is_xts
):
    key = adapters.generate(key_type, bits, is_xts=is_xts)
    assert (key.key_type, key.is_xts, key.clear_bits) == (key_type, is_xts, bits * (1 + is_xts))
    assert key.mkvp == adapters.list_info()[0].current.mkvp
    assert SecureKey.parse(key.token) == key
    transport = adapters.to_transport(key, engine.public_key)
    clear = bytearray(engine.open(transport.blob))
    assert len(clear) == transport.key_size == bits // 8 * (1 + is_xts)
    assert transport.pattern == make_pattern(clear, is_xts=is_xts)
    assert (transport.apqn, transport.register) == (APQN, Register.CURRENT)
    for part in (clear, clear[: len(clear) // 2], clear[:16]):
        assert bytes(part) not in key.token + transport.blob
    other = adapters.generate(key_type, bits, is_xts=is_xts)
    assert engine.open(adapters.to_transport(other, engine.public_key).blob) != bytes(clear)
    assert adapters.to_transport(key, engine.public_key).blob != transport.blob


@XTS
def test_a_clear_key_comes_out_as_it_went_in(adapters, key_type, engine, bits, is_xts):
    clear = bytearray(os.urandom(bits // 8 * (1 + is_xts)))
    key = adapters.import_clear(key_type, clear, is_xts=is_xts)
    assert engine.open(adapters.to_transport(key, engine.public_key).blob) == bytes(clear)
    validation = adapters.validate(key)
    assert validation.pattern == make_pattern(clear, is_xts=is_xts)
    assert (validation.clear_bits, validation.is_xts) == (len(clear) * 8, is_xts)
    assert (validation.register, validation.apqns) == (Register.CURRENT, (APQN,))


def test_keys_that_are_none_are_refused(adapters, key_type):
    with pytest.raises(FormatError, match="both halves"):
        adapters.import_clear(key_type, bytearray(b"k" * 64), is_xts=True)
    with pytest.raises(FormatError, match="17 bytes"):
        adapters.import_clear(key_type, bytearray(17), is_xts=False)
    with pytest.raises(UnsupportedError, match="192 bits"):
        adapters.generate(key_type, 192, is_xts=True)
    key = adapters.generate(key_type, 256, is_xts=False)
    with pytest.raises(UnsupportedError, match="is re-enciphered to OLD"):
        adapters.get(APQN).reencipher(key, Register.OLD)


@pytest.mark.parametrize("is_xts", [True, False])
def test_a_master_key_is_changed_and_the_key_stays_the_same(adapters, key_type, engine, is_xts):
    if key_type is KeyType.EP11_AES:
        pytest.skip("it commits NEW, and has no OLD: test_ep11_adapters.py")
    clear = bytearray(os.urandom(64 if is_xts else 32))
    key = adapters.import_clear(key_type, clear, is_xts=is_xts)
    with pytest.raises(CoprocessorError, match="NEW empty"):
        adapters.reencipher(key, Register.NEW)
    new = adapters.load_random(APQN).new
    assert new.state is Fill.FULL
    with pytest.raises(CoprocessorError, match="wanted empty"):
        adapters.load_random(APQN)
    staged = adapters.reencipher(key, Register.NEW)
    assert staged.mkvp == new.mkvp != key.mkvp
    with pytest.raises(MasterKeyChangedError, match="NEW"):
        adapters.to_transport(staged, engine.public_key)  # not set yet
    info = adapters.set_new(APQN)
    assert (info.current.mkvp, info.old.mkvp, info.new.state) == (new.mkvp, key.mkvp, Fill.EMPTY)
    with pytest.raises(CoprocessorError, match="NEW is empty"):
        adapters.set_new(APQN)
    for one, register in ((key, Register.OLD), (staged, Register.CURRENT)):
        transport = adapters.to_transport(one, engine.public_key)
        assert transport.register is register
        assert engine.open(transport.blob) == bytes(clear)
    again = adapters.reencipher(key, Register.CURRENT)
    assert again.mkvp == new.mkvp
    assert engine.open(adapters.to_transport(again, engine.public_key).blob) == bytes(clear)
    assert adapters.reencipher(again, Register.CURRENT) == again
    adapters.load_random(APQN)
    adapters.set_new(APQN)
    with pytest.raises(MasterKeyChangedError, match=key.mkvp.hex()):
        adapters.validate(key)  # two changes, and it is lost


def test_new_is_cleared(adapters):
    first = adapters.load_random(APQN).new.mkvp
    assert adapters.clear_new(APQN).new.state is Fill.EMPTY
    assert adapters.clear_new(APQN).new.state is Fill.EMPTY
    assert adapters.load_random(APQN).new.mkvp != first


def test_an_altered_key_is_refused(adapters, key_type, engine):
    key = adapters.generate(key_type, 256, is_xts=True)
    # Both ends of the wrapped key, the middle of the second half.
    wrapped = {
        KeyType.PKCS11_AES: (40, 79, 96 + 60),
        KeyType.EP11_AES: (96, 239, 336 + 150),
        KeyType.CCA_AESCIPHER: (56, 135, 136 + 100),
    }
    for at in wrapped[key_type]:
        token = bytearray(key.token)
        token[at] ^= 0x10
        altered = SecureKey.parse(bytes(token))
        for use in (
            lambda altered=altered: adapters.to_transport(altered, engine.public_key),
            lambda altered=altered: adapters.validate(altered),
        ):
            with pytest.raises(FormatError, match=r"altered|wrapped by another"):
                use()
    assert adapters.validate(key).clear_bits == 512


def test_an_adapter_that_is_offline_does_nothing(adapters, key_type, engine):
    key = adapters.generate(key_type, 256, is_xts=True)
    adapters.set_online(APQN, is_online=False)
    for use in (
        lambda: adapters.generate(key_type, 256, is_xts=True),
        lambda: adapters.to_transport(key, engine.public_key),
        lambda: adapters.reencipher(key, Register.CURRENT),
        lambda: adapters.get(APQN).validate(key),
    ):
        with pytest.raises(CoprocessorError, match="offline"):
            use()
    adapters.set_online(APQN, is_online=True)
    assert adapters.validate(key).register is Register.CURRENT


def test_another_kind_of_key_is_refused_by_name(adapters, key_type, engine):
    other = KeyType.CCA_AESDATA if key_type is KeyType.PKCS11_AES else KeyType.PKCS11_AES
    with pytest.raises(CoprocessorError, match=f"{other}: wanted a"):
        adapters.generate(other, 256, is_xts=True)
    with pytest.raises(UnsupportedError, match=r"PKCS11-AES|no key of (CCA|EP11)"):
        adapters.get(APQN).generate(other, 256, is_xts=True)
    for public_key in (b"", bytes(31), bytes(33), engine.public_key + b"\0"):
        with pytest.raises(FormatError, match="public key"):
            adapters.to_transport(adapters.generate(key_type, 256, is_xts=True), public_key)


@pytest.mark.root
@pytest.mark.skipif(BESIDE_OPENCRYPTOKI, reason="it is there")
def test_the_same_of_the_software_token_of_opencryptoki():
    tokens.run_beside_opencryptoki(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    )
