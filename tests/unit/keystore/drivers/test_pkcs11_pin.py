"""The PIN of a PKCS#11 token: refused once, never tried again, and a token that locks itself."""

import os
import subprocess
import threading

import pytest

pytest.importorskip("pkcs11")

from fusecrypt.keystore.coprocessor import Apqn, Fill, Status
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.drivers import pkcs11_module
from fusecrypt.keystore.errors import ConfigError, CoprocessorError
from fusecrypt.keystore.pkcs11_uri import TokenUri
from tests.lab import tokens
from tests.unit.keystore.samples import FIRST as APQN
from tests.unit.keystore.samples import pin

OTHER = Apqn(4, 0)
BESIDE_OPENCRYPTOKI = tokens.BESIDE_OPENCRYPTOKI in os.environ


@pytest.fixture
def uri(request):
    """The token of openCryptoki that there is, or a new one of SoftHSM."""
    if BESIDE_OPENCRYPTOKI:
        return TokenUri.parse(tokens.get_opencryptoki_uri())
    return request.getfixturevalue("make_token")()


def put_pin(coprocessors, apqn, text):
    """Seal another PIN, as if the token's had been changed since, and log out of the token."""
    with coprocessors._store.opened(apqn) as adapter:
        adapter.master_keys.content[1 : 1 + len(text)] = text.encode()
        coprocessors._store.replace(adapter)
    uri = TokenUri.parse(adapter.info.uri)
    pkcs11_module.get_module(uri.find_module())._forget(str(uri))


def tell_problem(coprocessors, apqn=APQN):
    (info,) = [info for info in coprocessors.list_info() if info.apqn == apqn]
    assert (info.status is Status.ONLINE) == (not info.problem)
    return info.problem


def test_a_wrong_pin_that_is_kept_is_tried_once_by_all_processes_together(
    coprocessors, uri, directory
):
    coprocessors.create_token(APQN, uri, pin())
    put_pin(coprocessors, APQN, "27182818")
    assert "refuses the PIN: PinIncorrect" in tell_problem(coprocessors)
    for later in (coprocessors, Coprocessors(directory)):
        assert "refused the PIN, which was forgotten" in tell_problem(later)
        with pytest.raises(CoprocessorError, match="create it with the right one"):
            later.clear_new(APQN)
    with coprocessors._store.opened(APQN) as adapter:
        assert not any(adapter.master_keys.content)
    coprocessors.remove(APQN)
    assert coprocessors.create_token(APQN, uri, pin()).current.state is Fill.VALID


def test_a_refusal_that_nobody_waited_for_counts(coprocessors, uri, monkeypatch):
    coprocessors.create_token(APQN, uri, pin())
    put_pin(coprocessors, APQN, "27182818")
    go_on = threading.Event()
    find = pkcs11_module.Module._find
    monkeypatch.setattr(
        pkcs11_module.Module, "_find", lambda *words: go_on.wait(20) and find(*words)
    )
    monkeypatch.setattr(pkcs11_module, "LOOK_TIMEOUT", 0.05)
    assert "does not answer within" in tell_problem(coprocessors)
    go_on.set()
    monkeypatch.undo()
    _, late = pkcs11_module.get_module(uri.find_module())._late
    assert late.exception(20) is not None
    assert "refuses the PIN" in tell_problem(coprocessors)
    assert "was forgotten" in tell_problem(coprocessors)


def test_it_is_forgotten_too_when_a_register_is_to_be_changed(coprocessors, uri):
    coprocessors.create_token(APQN, uri, pin())
    put_pin(coprocessors, APQN, "27182818")
    for said in ("refuses the PIN", "was forgotten"):
        with pytest.raises(CoprocessorError, match=said):
            coprocessors.load_random(APQN)


def test_a_new_pin_is_tried_though_the_token_is_logged_in(coprocessors, uri, directory):
    coprocessors.create_token(APQN, uri, pin())
    with pytest.raises(CoprocessorError, match="refuses the PIN: PinIncorrect"):
        coprocessors.create_token(OTHER, uri, pin("27182818"))
    assert [path.name for path in directory.glob("*.adapter")] == [f"{APQN}.adapter"]
    assert tell_problem(coprocessors) == ""
    coprocessors.create_token(OTHER, uri, pin())
    assert tell_problem(coprocessors) == tell_problem(coprocessors, OTHER) == ""


@pytest.mark.parametrize("size", [0, 96])
def test_a_pin_of_impossible_size_is_refused(coprocessors, uri, size):
    with pytest.raises(ConfigError, match=f"PIN: {size} bytes"):
        coprocessors.create_token(APQN, uri, bytearray(size))


@pytest.mark.skipif(not BESIDE_OPENCRYPTOKI, reason="SoftHSM's tokens do not lock themselves")
def test_the_last_try_is_nobodys_but_the_owners_and_a_locked_token_says_so(coprocessors, uri):
    coprocessors.create_token(APQN, uri, pin())
    with pytest.raises(CoprocessorError, match=r"PinIncorrect\S*$"):
        coprocessors.create_token(OTHER, uri, pin("27182818"))
    with pytest.raises(CoprocessorError, match=r"PinIncorrect.*; one more wrong PIN locks it$"):
        coprocessors.create_token(OTHER, uri, pin("27182818"))
    assert "so the one that is kept is not tried" in tell_problem(coprocessors)
    with pytest.raises(CoprocessorError, match="its user PIN is locked"):
        coprocessors.create_token(OTHER, uri, pin("27182818"))
    with pytest.raises(CoprocessorError, match=r"its user PIN is locked.*security officer"):
        coprocessors.create_token(OTHER, uri, pin())
    assert "its user PIN is locked" in tell_problem(coprocessors)

    # The security officer gives the token the same PIN anew.
    subprocess.run(
        ["pkcsconf", "-u", "-c", "0"],
        input=f"76543210\n{tokens.PIN}\n{tokens.PIN}\n".encode(),
        check=True,
        capture_output=True,
    )
    assert tell_problem(coprocessors) == ""
