"""Association secrets, the domains that a secure guest binds, and keys bound to their sessions."""

import hashlib
import hmac
import json
import os
import signal
from dataclasses import replace
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fusecrypt.keystore import atomic_file
from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.add_secret_request import make_secret_id
from fusecrypt.keystore.choice import Seen, find_holders
from fusecrypt.keystore.coprocessor import PKEY_DRIVER, Apqn, Register, SeState
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.cross_check import cross_check
from fusecrypt.keystore.envelope import SealMethod
from fusecrypt.keystore.ep11_session import make_session, make_session_id
from fusecrypt.keystore.errors import (
    AccessError,
    BusyError,
    ConfigError,
    CoprocessorError,
    FormatError,
    MapperError,
    MasterKeyChangedError,
    NotFoundError,
    PolicyError,
    UnsupportedError,
)
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.secure_guest import SECRETS_MAX, ListedSecret, read_boot_id
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_pattern
from tests.unit.keystore.samples import FIRST, SECOND, SIZES, clear_key, master_key

PUBLIC = X25519PrivateKey.generate().public_key().public_bytes_raw()
EP11 = KeyType.EP11_AES
BOOT = "0c4e1b5e-3b0c-4a7e-9d6f-1a2b3c4d5e6f"
OTHER_BOOT = "ffffffff-3b0c-4a7e-9d6f-1a2b3c4d5e6f"


@pytest.fixture
def boot():
    return [BOOT]


@pytest.fixture
def guest(directory, boot):
    """Two EP11 adapters with the same wrapping key, and two secrets."""
    made = Coprocessors(directory, read_boot_id=lambda: boot[0])
    made.create(FIRST, "ep11")
    made.create(SECOND, "ep11", with_master_key=False)
    made.leave_imprint(SECOND)
    made.clone(SECOND, FIRST, Register.CURRENT)
    made.commit_new(SECOND)
    made.set_new(SECOND)
    for number, name in enumerate(("one", "two")):
        add(made, name, master_key(number))
    return made


def add(coprocessors, name, secret):
    request, _ = coprocessors.make_request(name, bytearray(secret))
    return coprocessors.add_secret(request)


def associate(coprocessors, apqn, index):
    coprocessors.bind(apqn)
    return coprocessors.associate(apqn, index)


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


def test_a_secret_has_the_id_that_pvsecret_gives_it():
    """From the example in the manual page pvsecret-create(1) of s390-tools."""
    wanted = "94ee059335e587e501cc4bf90613e0814f00a7b08bc7c648fd865a2af6a22cc2"
    assert make_secret_id("TEST").hex() == wanted


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


def test_a_bound_adapter_serves_nothing_until_it_is_associated(guest):
    plain = guest.generate(EP11, 256, is_xts=True, apqns=[FIRST])
    assert guest.bind(FIRST).se_state is SeState.BOUND
    assert [info.se_state for info in guest.list_info()] == ["bound", "unbound"]
    with pytest.raises(CoprocessorError, match=r"03\.0039 is bound, not associated with a secret"):
        guest.generate(EP11, 256, is_xts=True, apqns=[FIRST])
    with pytest.raises(CoprocessorError, match="bound, and not associated"):
        guest.get(FIRST).generate(EP11, 256, is_xts=True)
    assert guest.validate(plain).apqns == (SECOND,)
    (warning,) = cross_check(guest.list_info(), [FIRST, SECOND], EP11).warnings
    assert warning == f"APQN {FIRST}: is bound, and not associated with a secret"
    guest.bind(SECOND)
    with pytest.raises(CoprocessorError, match="is bound, not associated"):
        guest.to_transport(plain, PUBLIC)
    info = guest.associate(FIRST, 0)
    assert (info.se_state, info.association) == (SeState.USABLE, 0)
    assert guest.to_transport(plain, PUBLIC).apqn == FIRST  # the control point allows it


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


def test_steps_out_of_order_change_nothing(guest):
    guest.create(Apqn(5, 1), "ep11", with_master_key=False)
    guest.create(Apqn(6, 1), "ep11", is_control_only=True)
    guest.create(Apqn(7, 1))
    guest.create(Apqn(8, 1), "accel")
    associate(guest, SECOND, 0)
    before = guest.list_info()
    for step, error, text in (
        (lambda: guest.associate(FIRST, 0), CoprocessorError, "is not bound; 'chzcrypt --se-bind"),
        (lambda: guest.unbind(FIRST), CoprocessorError, "is not bound"),
        (lambda: guest.bind(SECOND), CoprocessorError, "is bound already"),
        (lambda: guest.associate(SECOND, 1), CoprocessorError, "is associated with secret 0"),
        (lambda: guest.bind(Apqn(5, 1)), CoprocessorError, "it is in imprint mode"),
        (lambda: guest.bind(Apqn(6, 1)), CoprocessorError, "it is administered here"),
        (lambda: guest.bind(Apqn(7, 1)), UnsupportedError, "a CEX8C is not bound here"),
        (lambda: guest.bind(Apqn(8, 1)), UnsupportedError, "a CEX8A is not bound here"),
        (lambda: guest.bind(Apqn(9, 1)), NotFoundError, "does not exist"),
    ):
        with pytest.raises(error, match=text):
            step()
    assert guest.list_info() == before
    guest.bind(FIRST)
    for index in (2, 99):
        with pytest.raises(NotFoundError, match=f"association secret {index}: .* there are 2"):
            guest.associate(FIRST, index)


def test_secrets_are_listed_by_their_ids_and_locked(guest):
    listed = guest.list_secrets()
    assert listed.secrets == tuple(
        ListedSecret(hashlib.sha256(name).digest(), make_session_id(master_key(number)))
        for number, name in enumerate((b"one", b"two"))
    )
    assert not listed.is_locked
    with pytest.raises(BusyError, match="is there already"):
        add(guest, "one", master_key(7))
    request, _ = guest.make_request("three", master_key(7))
    assert guest.lock_secrets().is_locked
    with pytest.raises(PolicyError, match="locked until the next boot"):
        guest.add_secret(request)
    assert guest.list_secrets().secrets == listed.secrets
    associate(guest, FIRST, 1)  # what is there goes on


def test_there_is_room_for_so_many_secrets(coprocessors):
    for number in range(SECRETS_MAX):
        add(coprocessors, f"secret {number}", master_key(number))
    with pytest.raises(CoprocessorError, match="no room for more"):
        add(coprocessors, "one more", master_key(99))


def test_a_boot_ends_it_all_and_the_request_brings_the_session_back(guest, directory, boot):
    request, _ = guest.make_request("one", master_key(0))
    associate(guest, FIRST, 0)
    key = guest.generate(EP11, 256, is_xts=True, apqns=[FIRST])
    pattern = guest.validate(key).pattern
    again = Coprocessors(directory, read_boot_id=lambda: boot[0].replace("-", "") + "\n")
    assert again.validate(key).pattern == pattern  # another process, the same boot
    boot[0] = OTHER_BOOT
    assert guest.list_secrets().secrets == ()
    assert [info.se_state for info in guest.list_info()] == ["unbound", "unbound"]
    with pytest.raises(CoprocessorError, match="not associated with its secret"):
        guest.validate(key)
    guest.add_secret(request)
    associate(guest, SECOND, 0)
    assert guest.validate(key).pattern == pattern
    boot[0] = "no boot id"
    with pytest.raises(ConfigError, match="wanted: 32 hexadecimal digits"):
        guest.list_info()


def test_the_kernel_tells_its_boot():
    assert len(read_boot_id().strip()) == 36


def test_a_request_is_for_one_state_directory(guest, tmp_path):
    request, secret_id = guest.make_request("three", master_key(7))
    assert json.loads(request)["id"] == secret_id.hex()
    assert bytes(master_key(7)[:8]).hex().encode() not in request
    stranger = Coprocessors(tmp_path / "other", read_boot_id=lambda: BOOT)
    stranger.create(FIRST, "ep11")
    with pytest.raises(FormatError, match="sealed by host key"):
        stranger.add_secret(request)
    for forged, text in (
        (request.replace(secret_id.hex().encode(), b"00" * 32), "altered since it was sealed"),
        (request[:-3], "no JSON"),
        (request + bytes(5000), "over 4096 bytes"),
        (b'{"format":"fusecrypt adapter"}', "format is"),
    ):
        with pytest.raises(FormatError, match=text):
            guest.add_secret(forged)
    assert len(guest.list_secrets().secrets) == 2
    guest.add_secret(request)


def test_a_file_that_was_altered_is_refused(guest, directory):
    associate(guest, FIRST, 0)
    path = directory / "guest.secrets"
    content = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    members = json.loads(content)
    members["queues"][0]["association"] = 1
    for forged in (
        json.dumps(members, sort_keys=True, separators=(",", ":")).encode(),
        content.replace(b'"locked":false', b'"locked":true'),
        content.replace(b'"association":0', b'"association":2'),
        content[:100],
    ):
        path.write_bytes(forged)
        with pytest.raises(FormatError, match=r"guest\.secrets"):
            guest.list_info()
        with pytest.raises(MapperError):
            guest.generate(EP11, 256, is_xts=True)
    path.write_bytes(content)
    assert guest.list_info()[0].se_state is SeState.USABLE


def test_an_adapter_that_is_removed_is_unbound(guest):
    associate(guest, FIRST, 0)
    guest.remove(FIRST)
    assert guest.create(FIRST, "ep11").se_state is SeState.UNBOUND


def test_another_host_key_seals_the_secrets_too(guest):
    associate(guest, FIRST, 0)
    key = guest.generate(EP11, 256, is_xts=True)
    old, _ = guest.make_request("three", master_key(7))
    guest.reseal(SealMethod.PASSPHRASE, bytearray(b"a passphrase"))
    assert guest.validate(key).apqns == (FIRST,)
    with pytest.raises(FormatError, match="sealed by host key"):
        guest.add_secret(old)
    guest.host_key.lock()
    with pytest.raises(CoprocessorError, match="locked"):
        guest.list_secrets()


def test_states_of_the_card_are_apart_from_the_guest(guest):
    associate(guest, FIRST, 0)
    guest.change([FIRST], Change.DECONFIGURE)
    assert guest.list_info()[0].se_state is SeState.USABLE
    with pytest.raises(CoprocessorError, match="deconfig"):
        guest.generate(EP11, 256, is_xts=True)


@pytest.mark.parametrize(
    ("cut", "calls"), [("mkstemp", 1), ("fsync", 1), ("rename", 1), ("fsync", 2)]
)
@pytest.mark.parametrize(
    "change",
    [
        lambda guest: add(guest, "three", master_key(7)),
        lambda guest: guest.bind(SECOND),
        lambda guest: guest.unbind(FIRST),
    ],
)
def test_a_kill_in_a_change_leaves_what_was_or_shall_be(guest, directory, cut, calls, change):
    """The process dies right before the call; the second fsync comes after the rename."""
    associate(guest, FIRST, 0)
    key = guest.generate(EP11, 256, is_xts=True)
    before = (directory / "guest.secrets").read_bytes()
    pid = os.fork()
    if pid == 0:
        module = atomic_file.tempfile if cut == "mkstemp" else os
        done = iter([getattr(module, cut)] * (calls - 1))
        die = partial(os.kill, os.getpid(), signal.SIGKILL)
        setattr(module, cut, lambda *given: next(done, lambda *_: die())(*given))
        change(guest)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    is_old = (directory / "guest.secrets").read_bytes() == before
    assert is_old == (calls == 1)
    if is_old:
        assert guest.validate(key).apqns == (FIRST,)
        change(guest)  # it can be done again
    with pytest.raises(MapperError):
        change(guest)  # it is done


def test_a_disk_that_refuses_changes_nothing(guest, monkeypatch):
    associate(guest, FIRST, 0)

    def refuse(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_file.os, "rename", refuse)
    with pytest.raises(AccessError, match="No space"):
        guest.unbind(FIRST)
    monkeypatch.undo()
    assert guest.list_info()[0].se_state is SeState.USABLE


def test_a_session_is_silent_when_printed():
    with make_session(master_key(0)) as session:
        assert session.key.hex() not in repr(session)
        assert "key" not in repr(session)
    assert not any(session.key)
