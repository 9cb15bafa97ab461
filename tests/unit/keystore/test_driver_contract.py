"""What every driver has to do, asked of all of them: soft in both modes, SoftHSM, openCryptoki's
soft token.
"""

import os
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.hazmat.primitives.padding import PKCS7

from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessor import Apqn, Fill, Register
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import (
    CoprocessorError,
    FormatError,
    MasterKeyChangedError,
    UnsupportedError,
)
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.pkcs11_token import Wrapping
from fusecrypt.keystore.pkcs11_uri import TokenUri
from fusecrypt.keystore.registers import Part
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_pattern
from tests.lab import tokens
from tests.unit.keystore.samples import pin

APQN = Apqn(3, 0x39)
BESIDE_OPENCRYPTOKI = tokens.BESIDE_OPENCRYPTOKI in os.environ
KINDS = ["opencryptoki"] if BESIDE_OPENCRYPTOKI else ["soft", "soft-ep11", "softhsm"]


@pytest.fixture(params=KINDS)
def adapters(request, tmp_path):
    """A directory with one adapter, that has a CURRENT master key."""
    made = Coprocessors(tmp_path / "keystore")
    if request.param in ("soft", "soft-ep11"):
        made.create(APQN, "ep11" if request.param == "soft-ep11" else "cca")
    else:
        if request.param == "softhsm":
            uri = request.getfixturevalue("make_token")()
        else:
            uri = TokenUri.parse(tokens.get_opencryptoki_uri())
        made.create_token(APQN, uri, pin())
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


def unwrap(half, master_key):
    """The key in one of a token's own tokens, by what is not our code."""
    if half.wrapping is Wrapping.KEY_WRAP:
        return aes_key_unwrap(master_key, half.wrapped)
    assert half.wrapping is Wrapping.CBC_PAD
    decryptor = Cipher(algorithms.AES(master_key), modes.CBC(half.iv)).decryptor()
    unpadder = PKCS7(128).unpadder()
    return unpadder.update(decryptor.update(half.wrapped)) + unpadder.finalize()


def test_a_lost_master_key_is_made_again_of_its_parts(adapters, key_type, engine):
    parts = [os.urandom(32) for _ in Part]
    master_key = bytes(a ^ b ^ c for a, b, c in zip(*parts, strict=True))

    def load():
        for part, content in zip(Part, parts, strict=True):
            info = adapters.load_part(APQN, part, bytearray(content))
            assert (info.new.state is Fill.PARTIAL) == (part is not Part.LAST)
        return info.new.mkvp

    def set_new():
        if key_type is KeyType.EP11_AES:
            adapters.commit_new(APQN)
        return adapters.set_new(APQN).current.mkvp

    mkvp = load()
    assert set_new() == mkvp
    key = adapters.generate(key_type, 256, is_xts=True)
    clear = engine.open(adapters.to_transport(key, engine.public_key).blob)
    if key_type is KeyType.PKCS11_AES:
        assert b"".join(unwrap(half, master_key) for half in key.halves) == clear
    for _ in range(2):
        adapters.load_random(APQN)
        set_new()
    with pytest.raises(MasterKeyChangedError, match=mkvp.hex()):
        adapters.validate(key)
    assert load() == mkvp
    set_new()
    assert engine.open(adapters.to_transport(key, engine.public_key).blob) == clear


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
    adapters.change([APQN], Change.OFFLINE)
    for use in (
        lambda: adapters.generate(key_type, 256, is_xts=True),
        lambda: adapters.to_transport(key, engine.public_key),
        lambda: adapters.reencipher(key, Register.CURRENT),
        lambda: adapters.get(APQN).validate(key),
    ):
        with pytest.raises(CoprocessorError, match="offline"):
            use()
    adapters.change([APQN], Change.ONLINE)
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
    files = [Path(__file__), Path(__file__).with_name("drivers") / "test_pkcs11_pin.py"]
    tokens.run_beside_opencryptoki(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *map(str, files)]
    )
