"""Association secrets, and the domains that a secure guest binds."""

import hashlib
import json
import os
import signal
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fusecrypt.keystore import atomic_file
from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.add_secret_request import make_secret_id
from fusecrypt.keystore.coprocessor import Apqn, SeState
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.cross_check import cross_check
from fusecrypt.keystore.ep11_session import make_session_id
from fusecrypt.keystore.errors import (
    AccessError,
    BusyError,
    ConfigError,
    CoprocessorError,
    FormatError,
    MapperError,
    NotFoundError,
    PolicyError,
    UnsupportedError,
)
from fusecrypt.keystore.seal_state import SealMethod
from fusecrypt.keystore.secret_list import ListedSecret
from fusecrypt.keystore.secure_guest import SECRETS_MAX, read_boot_id
from fusecrypt.keystore.tokens import KeyType
from tests.unit.keystore.guests import BOOT, add_secret, associate, make_guest
from tests.unit.keystore.samples import FIRST, SECOND, master_key

PUBLIC = X25519PrivateKey.generate().public_key().public_bytes_raw()
EP11 = KeyType.EP11_AES
OTHER_BOOT = "ffffffff-3b0c-4a7e-9d6f-1a2b3c4d5e6f"


@pytest.fixture
def boot():
    return [BOOT]


@pytest.fixture
def guest(directory, boot):
    return make_guest(directory, boot)


def test_a_secret_has_the_id_that_pvsecret_gives_it():
    """From the example in the manual page pvsecret-create(1) of s390-tools."""
    wanted = "94ee059335e587e501cc4bf90613e0814f00a7b08bc7c648fd865a2af6a22cc2"
    assert make_secret_id("TEST").hex() == wanted


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
        add_secret(guest, "one", master_key(7))
    request, _ = guest.make_request("three", master_key(7))
    assert guest.lock_secrets().is_locked
    with pytest.raises(PolicyError, match="locked until the next boot"):
        guest.add_secret(request)
    assert guest.list_secrets().secrets == listed.secrets
    associate(guest, FIRST, 1)  # what is there goes on


def test_there_is_room_for_so_many_secrets(coprocessors):
    for number in range(SECRETS_MAX):
        add_secret(coprocessors, f"secret {number}", master_key(number))
    with pytest.raises(CoprocessorError, match="no room for more"):
        add_secret(coprocessors, "one more", master_key(99))


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
        lambda guest: add_secret(guest, "three", master_key(7)),
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
