"""A PKCS#11 token that is gone, refuses, hangs, or cannot do all that is wanted."""

import ctypes
import os
import sys
import threading
from dataclasses import replace

import pytest

pytest.importorskip("pkcs11")

import pkcs11

from fusecrypt.keystore import tokens as token_formats
from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessor import Apqn, Register, Status
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.drivers import pkcs11_abilities, pkcs11_module, pkcs11_registers
from fusecrypt.keystore.errors import (
    BusyError,
    CoprocessorError,
    FormatError,
    UnsupportedError,
)
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.pkcs11_token import Pkcs11Token, Wrapping
from fusecrypt.keystore.pkcs11_uri import TokenUri
from fusecrypt.keystore.verification import make_pattern
from tests.lab import tokens
from tests.unit.keystore.samples import FIRST as APQN
from tests.unit.keystore.samples import pin

KEY = token_formats.KeyType.PKCS11_AES


def test_nothing_of_an_operation_stays_in_the_token(adapters, session, engine):
    def count():
        return len(list(session.get_objects({})))

    before = count()
    key = adapters.generate(KEY, 256, is_xts=True)
    adapters.import_clear(KEY, bytearray(os.urandom(64)), is_xts=True)
    adapters.to_transport(key, engine.public_key)
    adapters.validate(key)
    token = bytearray(key.token)
    token[41] ^= 1
    with pytest.raises(FormatError):
        adapters.validate(SecureKey.parse(bytes(token)))
    assert count() == before


@pytest.mark.usefixtures("adapters")
def test_the_state_names_the_token_and_hides_its_pin(uri, directory):
    text = (directory / f"{APQN}.adapter").read_bytes()
    assert str(uri).encode() in text
    assert tokens.PIN.encode() not in text
    assert tokens.PIN.encode().hex().encode() not in text
    info = Coprocessors(directory).list_info()[0]
    assert (info.mode, info.type, info.uri, info.problem) == ("pkcs11", "PKCS11", str(uri), "")
    assert info.status is Status.ONLINE
    assert info.level == 0
    assert any("SHA-1" in limit for limit in info.limits)


def test_another_adapter_of_the_same_token_has_the_same_master_key(adapters, uri, engine):
    adapters.create_token(Apqn(4, 0), uri, pin())
    first, second = adapters.list_info()
    assert first.current == second.current
    key = adapters.generate(KEY, 256, is_xts=True, apqns=[APQN])
    adapters.change([APQN], Change.OFFLINE)
    assert adapters.to_transport(key, engine.public_key).apqn == Apqn(4, 0)


def test_what_a_token_has_no_way_for_is_refused_by_name(adapters, coprocessors):
    coprocessors.create(Apqn(5, 0))
    with pytest.raises(UnsupportedError, match="cannot be taken out of it, so none is cloned"):
        adapters.clone(Apqn(5, 0), APQN, Register.CURRENT)
    with pytest.raises(CoprocessorError, match="other master keys than these"):
        adapters.clone(APQN, Apqn(5, 0), Register.CURRENT)
    with (
        pytest.raises(UnsupportedError, match=r"cannot be taken out of it, so none is .* split"),
        adapters.copied(APQN, Register.CURRENT),
    ):
        pass
    with pytest.raises(UnsupportedError, match="commits nothing"):
        adapters.commit_new(APQN)
    with pytest.raises(UnsupportedError, match="says nothing of exports"):
        adapters.generate(KEY, 256, is_xts=True, is_exportable=True)
    key = adapters.generate(KEY, 256, is_xts=True)
    with pytest.raises(UnsupportedError, match="is converted"):
        adapters.convert(key, token_formats.KeyType.CCA_AESCIPHER)
    with pytest.raises(UnsupportedError, match="says nothing of exports"):
        adapters.restrict(key)
    with pytest.raises(BusyError, match="no PKCS11"):
        adapters.create_token(Apqn(5, 1), TokenUri.parse("pkcs11:token=a?module-path=/m"), pin())


def test_a_token_that_is_not_there_is_named_and_others_go_on(adapters, uri, engine):
    missing = replace(uri, token="nowhere")
    with pytest.raises(CoprocessorError, match=r"token=nowhere.*: is not there"):
        adapters.create_token(Apqn(4, 0), missing, pin())
    with pytest.raises(CoprocessorError, match="no-module"):
        adapters.create_token(Apqn(4, 0), replace(uri, module_path="/usr/lib/no-module.so"), pin())
    key = adapters.generate(KEY, 256, is_xts=True)  # the module was looked through anew
    assert engine.open(adapters.to_transport(key, engine.public_key).blob)


def test_a_token_that_went_away_says_so_and_comes_back(adapters, softhsm, uri, engine):
    key = adapters.generate(KEY, 256, is_xts=True)
    adapters.create(Apqn(6, 0))
    away = softhsm.tokens.with_name("away")
    softhsm.tokens.rename(away)
    softhsm.tokens.mkdir()
    try:
        pkcs11.lib(uri.module_path).reinitialize()  # as when a reader is pulled out
        for use in (
            lambda: adapters.to_transport(key, engine.public_key),
            lambda: adapters.generate(KEY, 256, is_xts=True),
        ):
            with pytest.raises(CoprocessorError, match=r"03\.0039 cannot be .*token=token"):
                use()
        token, soft = adapters.list_info()
        assert token.status is Status.OFFLINE
        assert "PKCS#11 token" in token.problem
        assert soft.is_usable
        assert adapters.generate(token_formats.KeyType.CCA_AESDATA, 256, is_xts=True)
    finally:
        softhsm.tokens.rmdir()
        away.rename(softhsm.tokens)
    assert engine.open(adapters.to_transport(key, engine.public_key).blob)
    assert adapters.list_info()[0].problem == ""


def test_a_token_that_hangs_is_not_waited_for(adapters, uri, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(pkcs11_module, "LOOK_TIMEOUT", 0.05)
    monkeypatch.setattr(pkcs11_registers, "read_registers", lambda _: go_on.wait(20) and {})
    assert "does not answer within" in adapters.list_info()[0].problem
    assert "an earlier call still waits" in adapters.list_info()[0].problem
    monkeypatch.undo()
    go_on.set()
    _, late = pkcs11_module.get_module(uri.find_module())._late
    assert late.exception(20) is not None  # no registers: of no use to anybody any more
    assert adapters.list_info()[0].problem == ""


def test_without_python_pkcs11_it_is_said_what_is_missing(adapters, monkeypatch):
    for name in [name for name in sys.modules if "drivers.pkcs11" in name]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("pkcs11", "pkcs11.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'fusecrypt[pkcs11]'" in adapters.list_info()[0].problem
    with pytest.raises(CoprocessorError, match="no python-pkcs11"):
        adapters.generate(KEY, 256, is_xts=True, apqns=[APQN])


def test_a_module_that_was_uninstalled_is_that_adapters_problem_alone(adapters, softhsm, uri):
    with adapters._store.opened(APQN) as adapter:
        gone = replace(uri, module_path="", module_name="no-such-module")
        adapters._store.replace(replace(adapter, info=replace(adapter.info, uri=str(gone))))
    adapters.create(Apqn(6, 0))
    token, soft = adapters.list_info()
    assert "PKCS#11 module no-such-module" in token.problem
    assert soft.is_usable
    assert softhsm.tokens.exists()


def test_a_lost_session_is_opened_again(adapters, uri, engine):
    key = adapters.generate(KEY, 256, is_xts=True)
    pkcs11.lib(uri.module_path).reinitialize()
    assert engine.open(adapters.to_transport(key, engine.public_key).blob)


def limit(monkeypatch, **missing):
    """Have the token do less than it does."""
    found = pkcs11_abilities.find_abilities
    monkeypatch.setattr(
        pkcs11_abilities, "find_abilities", lambda session: replace(found(session), **missing)
    )


def test_without_oaep_no_key_leaves_unless_it_may_be_clear_in_keystored(
    coprocessors, uri, engine, monkeypatch
):
    limit(monkeypatch, oaep=None)
    info = coprocessors.create_token(APQN, uri, pin())
    assert info.limits == (
        "no RSA-OAEP wrap: no key gets from it into an engine without --allow-clear-in-keystored",
    )
    key = coprocessors.generate(KEY, 256, is_xts=True)
    with pytest.raises(CoprocessorError, match="without --allow-clear-in-keystored"):
        coprocessors.to_transport(key, engine.public_key)
    coprocessors.remove(APQN)
    info = coprocessors.create_token(APQN, uri, pin(), is_clear_allowed=True)
    assert info.is_clear_allowed
    assert "its keys are clear in fusecrypt-keystored for a moment" in info.limits[-1]
    transport = coprocessors.to_transport(key, engine.public_key)
    assert transport.blob[0] == 1
    clear = bytearray(engine.open(transport.blob))
    assert make_pattern(clear, is_xts=True) == transport.pattern


def test_what_may_be_clear_is_not_while_there_is_oaep(coprocessors, uri, engine):
    coprocessors.create_token(APQN, uri, pin(), is_clear_allowed=True)
    key = coprocessors.generate(KEY, 256, is_xts=True)
    assert coprocessors.to_transport(key, engine.public_key).blob[0] == 2
    with pytest.raises(FormatError, match="wanted one of RSA"):
        coprocessors.to_transport(key, engine.public_key[:32])


def test_other_limits_are_named(coprocessors, uri, monkeypatch):
    limit(monkeypatch, can_import=False)
    info = coprocessors.create_token(APQN, uri, pin())
    missing = "no RSA key pair that unwraps: no clear key can be imported, no master key loaded"
    assert missing in info.limits
    with pytest.raises(CoprocessorError, match="no clear key can be imported"):
        coprocessors.import_clear(KEY, bytearray(os.urandom(32)), is_xts=False)
    with pytest.raises(CoprocessorError, match="no master key loaded"):
        coprocessors.load_whole(APQN, bytearray(os.urandom(32)))
    coprocessors.remove(APQN)
    monkeypatch.undo()
    limit(monkeypatch, can_keep=False)
    info = coprocessors.create_token(APQN, uri, pin())
    assert "what it unwraps can be taken out again: no master key can be loaded" in info.limits
    with pytest.raises(CoprocessorError, match="no master key can be loaded"):
        coprocessors.load_whole(APQN, bytearray(os.urandom(32)))
    coprocessors.remove(APQN)
    monkeypatch.undo()
    limit(monkeypatch, wrapping=None)
    with pytest.raises(CoprocessorError, match="it serves no keys"):
        coprocessors.create_token(APQN, uri, pin())


def test_the_other_key_wrap_serves_too(coprocessors, uri, engine, monkeypatch):
    limit(monkeypatch, wrapping=Wrapping.KEY_WRAP_PAD)
    coprocessors.create_token(APQN, uri, pin())
    clear = bytearray(os.urandom(24))
    key = coprocessors.import_clear(KEY, clear, is_xts=False)
    assert isinstance(key.halves[0], Pkcs11Token)
    assert key.halves[0].wrapping is Wrapping.KEY_WRAP_PAD
    assert engine.open(coprocessors.to_transport(key, engine.public_key).blob) == bytes(clear)


def test_a_backup_of_a_token_is_its_uri_and_pin(adapters, tmp_path, uri, engine):
    key = adapters.generate(KEY, 256, is_xts=True)
    data = adapters.backup(bytearray(b"passphrase"))
    assert tokens.PIN.encode() not in data
    other = Coprocessors(tmp_path / "other")
    assert other.restore(data, bytearray(b"passphrase")) == [APQN]
    assert other.list_info()[0].uri == str(uri)
    assert engine.open(other.to_transport(key, engine.public_key).blob)


@pytest.mark.usefixtures("adapters")
def test_the_pin_is_wiped(uri):
    seen = []

    def read():
        content = pin()
        seen.append((content, ctypes.addressof(ctypes.c_char.from_buffer(content))))
        return content

    module = pkcs11_module.get_module(uri.find_module())
    module._forget(str(uri))
    assert module.run(uri, read, lambda token: token.where).endswith("libsofthsm2.so")
    content, address = seen[0]
    assert not any(content)
    assert ctypes.string_at(address, len(content)) == bytes(len(content))
