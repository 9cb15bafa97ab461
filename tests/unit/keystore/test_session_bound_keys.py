"""EP11 keys that are bound to the session of an association secret."""

import hmac
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.choice import Seen, find_holders
from fusecrypt.keystore.coprocessor import PKEY_DRIVER, Register, SeState
from fusecrypt.keystore.ep11_session import make_session, make_session_id
from fusecrypt.keystore.errors import (
    CoprocessorError,
    FormatError,
    MasterKeyChangedError,
)
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_pattern
from tests.unit.keystore.guests import BOOT, associate, make_guest
from tests.unit.keystore.samples import FIRST, SECOND, SIZES, clear_key, master_key

PUBLIC = X25519PrivateKey.generate().public_key().public_bytes_raw()
EP11 = KeyType.EP11_AES


@pytest.fixture
def guest(directory):
    return make_guest(directory, [BOOT])


def expand(key, info):
    """HKDF-SHA-256 of RFC 5869 without salt, its first 64 bytes."""
    pseudorandom = hmac.digest(bytes(32), bytes(key), "sha256")
    first = hmac.digest(pseudorandom, info + b"\1", "sha256")
    return first + hmac.digest(pseudorandom, first + info + b"\2", "sha256")


def open_bound_blob(token, wrapping_key, secret):
    """A second way to the clear key of one token that is bound to a session."""
    blob = token[16:]
    assert blob[:32] == expand(secret, b"fusecrypt EP11 session id 1")[:32]
    session_key = expand(secret, b"fusecrypt EP11 session key 1")[:32]
    keys = expand(bytes(wrapping_key) + session_key, b"fusecrypt EP11 session-bound blob 1")
    assert hmac.digest(keys[32:], blob[:224], "sha256") == blob[224:256]
    ecb = Cipher(algorithms.AES(keys[:32]), modes.ECB())
    iv = ecb.encryptor().update(blob[66:80] + b"\0\0")
    cbc = Cipher(algorithms.AES(keys[:32]), modes.CBC(iv)).decryptor()
    plain = cbc.update(blob[80:224])
    return plain[2 : 2 + int.from_bytes(plain[:2], "big") // 8]


@pytest.mark.parametrize(("bits", "is_xts"), SIZES)
def test_a_key_of_an_associated_adapter_is_what_another_implementation_opens(
    guest, directory, bits, is_xts
):
    associate(guest, FIRST, 1)
    clear = clear_key(bits, is_xts)
    key = guest.import_clear(EP11, clear, is_xts=is_xts, apqns=[FIRST])
    assert key.session == make_session_id(master_key(1)) != make_session_id(master_key(0))
    with guest._store.opened(FIRST) as adapter:
        wrapping_key = bytes(adapter.master_keys.copy(Register.CURRENT))
    halves = [key.token[i : i + 336] for i in range(0, key.size, 336)]
    opened = b"".join(open_bound_blob(half, wrapping_key, master_key(1)) for half in halves)
    assert opened == clear
    assert guest.validate(key).pattern == make_pattern(clear, is_xts=is_xts)
    for file in directory.iterdir():
        assert bytes(master_key(1)[:8]) not in file.read_bytes()
        assert bytes(master_key(1)[:8]).hex().encode() not in file.read_bytes()


def test_a_key_is_used_with_its_association_alone(guest):
    associate(guest, FIRST, 0)
    key = guest.generate(EP11, 256, is_xts=True)
    assert key.session == guest.list_info()[0].session
    pattern = guest.validate(key).pattern
    assert guest.validate(key).apqns == (FIRST,)
    guest.unbind(FIRST)
    for use in (guest.validate, lambda k: guest.to_transport(k, PUBLIC)):
        with pytest.raises(CoprocessorError, match=r"03\.0039 is unbound, not associated"):
            use(key)
    with pytest.raises(CoprocessorError, match=r"bound to EP11 session .*, the adapter has none"):
        guest.get(FIRST).to_transport(key, PUBLIC)
    other = associate(guest, FIRST, 1).session
    with pytest.raises(CoprocessorError, match=f"03.0039 has EP11 session {other[:8].hex()}"):
        guest.validate(key)
    with pytest.raises(CoprocessorError, match=f"the adapter has EP11 session {other[:8].hex()}"):
        guest.get(FIRST).validate(key)
    associate(guest, SECOND, 0)  # the same wrapping key and the same secret
    assert guest.validate(key).pattern == pattern
    assert guest.to_transport(key, PUBLIC).apqn == SECOND
    guest.change([SECOND], Change.OFFLINE)
    with pytest.raises(MasterKeyChangedError, match=r"03\.0040 is offline"):
        guest.validate(key)


def test_what_sessions_a_machines_own_adapter_has_is_not_judged_here(guest):
    info = associate(guest, FIRST, 0)
    key = guest.generate(EP11, 256, is_xts=True, apqns=[FIRST])
    info = replace(info, se_state=SeState.ILLICIT, association=None, session=b"")
    with pytest.raises(CoprocessorError, match="not associated with its secret"):
        find_holders([Seen(FIRST, info)], key)
    real = Seen(FIRST, replace(info, driver=PKEY_DRIVER))
    assert find_holders([real], key) == [(FIRST, Register.CURRENT)]


def test_who_writes_another_session_into_a_key_opens_nothing(guest):
    associate(guest, FIRST, 0)
    key = guest.generate(EP11, 256, is_xts=False)
    guest.unbind(FIRST)
    (half,) = key.halves
    for session in (bytes(32), associate(guest, FIRST, 1).session):
        forged = SecureKey(replace(half, session=session).pack())
        with pytest.raises(FormatError, match="MAC"):
            guest.validate(forged)


def test_halves_of_different_sessions_are_no_pair(guest):
    associate(guest, FIRST, 0)
    one = guest.generate(EP11, 256, is_xts=True, apqns=[FIRST]).halves[0]
    other = guest.generate(EP11, 256, is_xts=True, apqns=[SECOND]).halves[1]
    with pytest.raises(FormatError, match="session of the second half"):
        SecureKey(one.pack() + other.pack())


def test_a_bound_key_is_reenciphered_within_its_session(guest):
    associate(guest, FIRST, 0)
    key = guest.generate(EP11, 256, is_xts=True)
    pattern = guest.validate(key).pattern
    guest.load_random(FIRST)
    guest.commit_new(FIRST)
    staged = guest.reencipher(key, Register.NEW)
    assert staged.session == key.session
    guest.unbind(FIRST)
    with pytest.raises(CoprocessorError, match="not associated with its secret"):
        guest.reencipher(key, Register.NEW)
    with pytest.raises(CoprocessorError, match="the adapter has none"):
        guest.get(FIRST).reencipher(key, Register.NEW)
    associate(guest, FIRST, 0)
    guest.set_new(FIRST)
    assert guest.validate(staged).pattern == pattern


def test_a_session_is_silent_when_printed():
    with make_session(master_key(0)) as session:
        assert session.key.hex() not in repr(session)
        assert "key" not in repr(session)
    assert not any(session.key)
