"""What the volume key of a paes volume stands for; coprocessor and engine are the real ones."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fusecrypt.dmcrypt.cipher_spec import CipherSpec
from fusecrypt.dmcrypt.effective_key import derive_key, get_effective_key
from fusecrypt.dmcrypt.engine.messages import DigestSpec, PkeyType
from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import (
    ConfigError,
    MasterKeyChangedError,
    PolicyError,
    UnlockError,
)
from fusecrypt.keystore.key_type import CCA_KEY_TYPES
from fusecrypt.keystore.pkcs11_uri import TokenUri
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_pattern
from tests.lab.tokens import PIN, SoftHsm

XTS = CipherSpec.parse("paes-xts-plain64")
CBC = CipherSpec.parse("paes-cbc-plain64")
CLEAR = bytes(range(64))


@pytest.fixture
def adapters(tmp_path: Path):
    coprocessors = Coprocessors(tmp_path / "keystore")
    coprocessors.create(Apqn.parse("03.0039"))
    return coprocessors


class Service:
    """What keystored does, without its process."""

    def __init__(self, coprocessors):
        self.coprocessors = coprocessors

    def make_transport(self, key, public_key):
        return self.coprocessors.to_transport(key, public_key)


@pytest.fixture
def load_key(engine, open_file):
    """Bytes of a key file to a volume key."""
    return lambda data: engine.load_key(open_file(data), len(data), xts=False)


def digest(engine, key):
    """What tells two keys in the engine apart without showing either."""
    return engine.make_digest(key, DigestSpec("sha256", 1000, bytes(32), b"", 32))


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
@pytest.mark.parametrize(("spec", "clear"), [(XTS, CLEAR), (XTS, CLEAR[:32]), (CBC, CLEAR[:24])])
def test_a_secure_key_becomes_the_key_that_it_was_made_of(
    engine, load_key, adapters, key_type, spec, clear
):
    secure = adapters.import_clear(key_type, bytearray(clear), is_xts=spec.is_xts)
    pattern = make_pattern(bytearray(clear), is_xts=spec.is_xts)
    volume_key = load_key(secure.token)
    effective = get_effective_key(engine, volume_key, spec, Service(adapters), pattern=pattern)
    assert digest(engine, effective.key) == digest(engine, load_key(clear))
    assert effective.origin == f"{key_type} by adapter 03.0039"
    assert clear[:16] not in effective.key.token


def test_the_key_of_another_volume_is_told_by_its_pattern(engine, load_key, adapters):
    secure = adapters.import_clear(KeyType.CCA_AESDATA, bytearray(CLEAR), is_xts=True)
    volume_key = load_key(secure.token)
    with pytest.raises(UnlockError, match=r"cd6b1032.* is not the one in the header, 0000"):
        get_effective_key(engine, volume_key, XTS, Service(adapters), pattern="0" * 64)


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
@pytest.mark.parametrize("size", [32, 64])
def test_the_beginning_of_a_secure_key_is_no_key(engine, load_key, adapters, key_type, size):
    secure = adapters.generate(key_type, 256, is_xts=True)
    with pytest.raises(PolicyError, match="only the beginning of a secure key"):
        get_effective_key(engine, load_key(secure.token[:size]), XTS, Service(adapters))


def test_a_pair_is_no_key_for_cbc(engine, load_key, adapters):
    secure = adapters.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    with pytest.raises(ConfigError, match="takes one secure key"):
        get_effective_key(engine, load_key(secure.token), CBC, Service(adapters))


def test_a_key_of_another_master_key_names_both(engine, load_key, adapters, tmp_path):
    others = Coprocessors(tmp_path / "others")
    others.create(Apqn.parse("03.0039"))
    secure = others.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    with pytest.raises(MasterKeyChangedError, match=secure.mkvp.hex()) as refusal:
        get_effective_key(engine, load_key(secure.token), XTS, Service(adapters))
    assert adapters.list_info()[0].current.mkvp.hex() in str(refusal.value)


def test_a_clear_key_is_taken_as_the_kernel_takes_it_with_a_note(engine, load_key):
    key = load_key(CLEAR)
    effective = get_effective_key(engine, key, XTS, None)
    assert effective.key == key
    assert "clear key" in effective.notes[0]


def test_protected_keys_of_this_session_are_joined(engine, load_key):
    first, second = (engine.make_pkey_token(PkeyType.AES_256) for _ in range(2))
    effective = get_effective_key(engine, load_key(first + second), XTS, None)
    assert effective.origin == "protected key of this session"
    other = get_effective_key(engine, load_key(second + first), XTS, None)
    assert digest(engine, effective.key) != digest(engine, other.key)


def test_an_aes_volume_asks_nobody(engine, load_key):
    key = load_key(os.urandom(64))
    assert get_effective_key(engine, key, CipherSpec.parse("aes-xts-plain64"), None).key == key


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        hsm = SoftHsm(tmp_path_factory.mktemp("softhsm"))
        patch.setenv("SOFTHSM2_CONF", hsm.environment["SOFTHSM2_CONF"])
        yield hsm


@pytest.fixture(params=["by RSA", "in the clear"])
def token(request, softhsm, tmp_path, monkeypatch):
    """Adapters that are one token, and what is said of where its keys have been."""
    is_clear = request.param == "in the clear"
    if is_clear:
        from fusecrypt.keystore.drivers import pkcs11_abilities

        find = pkcs11_abilities.find_abilities
        monkeypatch.setattr(
            pkcs11_abilities, "find_abilities", lambda session: replace(find(session), oaep=None)
        )
    made = Coprocessors(tmp_path / "keystore")
    made.create_token(
        Apqn.parse("03.0039"),
        TokenUri.parse(softhsm.make(request.param.replace(" ", "-"))),
        bytearray(PIN.encode()),
        is_clear_allowed=is_clear,
    )
    return made, ", clear in fusecrypt-keystored" if is_clear else ""


@pytest.mark.parametrize("spec", [XTS, CBC])
def test_the_key_of_a_token_gets_into_the_engine_and_it_is_said_how(engine, load_key, token, spec):
    adapters, said = token
    secure = adapters.generate(KeyType.PKCS11_AES, 256, is_xts=spec is XTS)
    pattern = adapters.validate(secure).pattern
    volume_key = load_key(secure.token)
    effective = get_effective_key(engine, volume_key, spec, Service(adapters), pattern=pattern)
    assert effective.origin == f"PKCS11-AES by adapter 03.0039{said}"
    assert digest(engine, effective.key) != digest(engine, volume_key)
    again = get_effective_key(engine, volume_key, spec, Service(adapters))
    assert digest(engine, effective.key) == digest(engine, again.key)
    with pytest.raises(UnlockError, match="is not the one in the header"):
        get_effective_key(engine, volume_key, spec, Service(adapters), pattern="0" * 64)
    for size in (16, 32, 64) if spec is XTS else (16, 32):
        with pytest.raises(PolicyError, match="1536 for PKCS11-AES"):
            get_effective_key(engine, load_key(secure.token[:size]), spec, Service(adapters))


def test_a_session_that_begins_while_a_key_is_derived_is_noticed(engine, adapters):
    secure = adapters.import_clear(KeyType.CCA_AESDATA, bytearray(CLEAR), is_xts=True)

    class Slow(Service):
        asked = 0

        def make_transport(self, key, public_key):
            transport = super().make_transport(key, public_key)
            if self.asked == 0:
                engine.bump_session()
            self.asked += 1
            return transport

    service = Slow(adapters)
    effective = derive_key(engine, secure, service, pattern=None)
    assert service.asked == 2
    assert engine.export_key(effective.key)
    with pytest.raises(UnlockError, match="verification pattern"):
        derive_key(engine, secure, Service(adapters), pattern="ab" * 32)


def test_a_key_pair_that_keystored_finds_no_engine_for_may_be_followed_by_another(engine, adapters):
    secure = adapters.import_clear(KeyType.CCA_AESDATA, bytearray(CLEAR), is_xts=True)

    class Strict(Service):
        def make_transport(self, key, public_key):
            if public_key != engine.status().public_key:
                raise PolicyError("no engine has it")
            return super().make_transport(key, public_key)

    before = engine.hello
    engine.bump_session()
    engine.hello = before  # the daemon has not heard of it yet
    effective = derive_key(engine, secure, Strict(adapters), pattern=None)
    assert engine.export_key(effective.key)
    assert engine.hello.public_key != before.public_key

    class Refusing(Service):
        def make_transport(self, *_):
            raise PolicyError("no engine has it")

    with pytest.raises(PolicyError):
        derive_key(engine, secure, Refusing(adapters), pattern=None)
