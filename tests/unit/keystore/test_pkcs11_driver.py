"""A PKCS#11 token that is gone, refuses, hangs, or cannot do all that is wanted."""

import ctypes
import itertools
import os
import sys
import threading
from dataclasses import replace

import pytest

pytest.importorskip("pkcs11")

import pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from fusecrypt.keystore import tokens as token_formats
from fusecrypt.keystore.coprocessor import Apqn, Fill, Register, Status
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.drivers import pkcs11_abilities, pkcs11_keys, pkcs11_module
from fusecrypt.keystore.errors import (
    BusyError,
    ConfigError,
    CoprocessorError,
    FormatError,
    UnsupportedError,
)
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.pkcs11_token import Pkcs11Token, Wrapping
from fusecrypt.keystore.pkcs11_uri import TokenUri
from fusecrypt.keystore.registers import Part
from fusecrypt.keystore.verification import make_pattern
from tests.lab import tokens
from tests.unit.keystore.test_driver_contract import Engine

APQN = Apqn(3, 0x39)
KEY = token_formats.KeyType.PKCS11_AES
_numbers = itertools.count()


@pytest.fixture(scope="module")
def engine():
    return Engine()


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        hsm = tokens.SoftHsm(tmp_path_factory.mktemp("softhsm"))
        patch.setenv("SOFTHSM2_CONF", hsm.environment["SOFTHSM2_CONF"])
        yield hsm


@pytest.fixture
def uri(softhsm):
    return TokenUri.parse(softhsm.make(f"driver {next(_numbers)}"))


def pin(text=tokens.PIN):
    return bytearray(text.encode())


@pytest.fixture
def adapters(coprocessors, uri):
    coprocessors.create_token(APQN, uri, pin())
    return coprocessors


@pytest.fixture
def session(adapters, uri):
    """Another application's, of which the token knows that it is logged in."""
    adapters.list_info()
    library = pkcs11.lib(uri.module_path)
    # Not closed: that would log all of the process out.
    return library.get_token(token_label=uri.token).open(rw=True)


def test_a_master_key_is_an_object_that_cannot_leave_the_token(adapters, session):
    adapters.load_random(APQN)
    found = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))
    assert sorted(key.label for key in found) == [
        "fusecrypt AES master key CURRENT",
        "fusecrypt AES master key NEW",
    ]
    info = adapters.list_info()[0]
    for key in found:
        assert key[Attribute.SENSITIVE]
        assert key[Attribute.ALWAYS_SENSITIVE]
        assert key[Attribute.NEVER_EXTRACTABLE]
        assert not key[Attribute.DECRYPT]
        assert key[Attribute.VALUE_LEN] == 32
        mkvp = info.find_register(key.id)
        assert mkvp is not None
        assert key.label.endswith(mkvp)
        # PKCS #11 3.0, 4.10.2: of a secret key, the first 3 bytes of zeros enciphered by it.
        assert key[Attribute.CHECK_VALUE] == key.id[:3]
        with pytest.raises(pkcs11.PKCS11Error):
            _ = key[Attribute.VALUE]


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
    adapters.set_online(APQN, is_online=False)
    assert adapters.to_transport(key, engine.public_key).apqn == Apqn(4, 0)


def test_what_a_token_has_no_way_for_is_refused_by_name(adapters, coprocessors):
    with pytest.raises(UnsupportedError, match="made in it"):
        adapters.load_part(APQN, Part.FIRST, bytearray(os.urandom(32)))
    with pytest.raises(UnsupportedError, match="made in it"):
        adapters.load_whole(APQN, bytearray(os.urandom(32)))
    coprocessors.create(Apqn(5, 0))
    with pytest.raises(UnsupportedError, match="made in it"):
        adapters.clone(Apqn(5, 0), APQN, Register.CURRENT)
    with pytest.raises(UnsupportedError, match="says nothing of exports"):
        adapters.generate(KEY, 256, is_xts=True, is_exportable=True)
    key = adapters.generate(KEY, 256, is_xts=True)
    with pytest.raises(UnsupportedError, match="is converted"):
        adapters.convert(key, token_formats.KeyType.CCA_AESCIPHER)
    with pytest.raises(UnsupportedError, match="says nothing of exports"):
        adapters.restrict(key)
    with pytest.raises(BusyError, match="no PKCS11"):
        adapters.create_token(Apqn(5, 1), TokenUri.parse("pkcs11:token=a?module-path=/m"), pin())


def test_a_wrong_pin_is_tried_once_and_the_token_stays_unlocked(coprocessors, uri, directory):
    for _ in range(2):
        with pytest.raises(CoprocessorError, match="refuses the PIN: PinIncorrect"):
            coprocessors.create_token(APQN, uri, pin("27182818"))
        assert not list(directory.glob("*.adapter"))
    coprocessors.create_token(APQN, uri, pin())
    module = pkcs11_module.get_module(uri.find_module())
    module._forget(str(uri))
    with coprocessors._store.opened(APQN) as adapter:
        adapter.master_keys.content[1] ^= 1
        coprocessors._store.replace(adapter)
    for said in ("refuses the PIN", "not tried again", "not tried again"):
        assert said in coprocessors.list_info()[0].problem
    coprocessors.remove(APQN)
    assert coprocessors.create_token(APQN, uri, pin()).current.state is Fill.VALID


@pytest.mark.parametrize("size", [0, 96])
def test_a_pin_of_impossible_size_is_refused(coprocessors, uri, size):
    with pytest.raises(ConfigError, match=f"PIN: {size} bytes"):
        coprocessors.create_token(APQN, uri, bytearray(size))


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
            with pytest.raises(CoprocessorError, match=r"03\.0039 cannot be .*token=driver"):
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
    monkeypatch.setattr(pkcs11_keys, "read_registers", lambda _: go_on.wait(20) and {})
    assert "does not answer within" in adapters.list_info()[0].problem
    assert "an earlier call still waits" in adapters.list_info()[0].problem
    monkeypatch.undo()
    go_on.set()
    late = pkcs11_module.get_module(uri.find_module())._late
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


def test_set_goes_on_where_it_was_cut_short(adapters, engine, monkeypatch):
    clear = bytearray(os.urandom(64))
    key = adapters.import_clear(KEY, clear, is_xts=True)
    for steps in (1, 2, 3):
        adapters.load_random(APQN)
        staged = adapters.reencipher(key, Register.NEW)
        done = itertools.count(1)

        def stop(step, *arguments, done=done, steps=steps):
            if next(done) == steps:
                raise CoprocessorError("cut short")
            return step(*arguments)

        with monkeypatch.context() as patch:
            for name in ("__setitem__", "destroy"):
                whole = getattr(pkcs11._pkcs11.Object, name)
                patch.setattr(
                    pkcs11._pkcs11.Object,
                    name,
                    lambda *a, whole=whole: stop(whole, *a),
                )
            with pytest.raises(CoprocessorError, match="cut short"):
                adapters.set_new(APQN)
        states = adapters.list_info()[0]
        assert key.mkvp in (states.current.mkvp, states.old.mkvp)
        assert staged.mkvp in (states.current.mkvp, states.new.mkvp)
        if states.new.mkvp == staged.mkvp:
            adapters.set_new(APQN)
        assert engine.open(adapters.to_transport(staged, engine.public_key).blob) == bytes(clear)
        assert engine.open(adapters.to_transport(key, engine.public_key).blob) == bytes(clear)
        key = staged


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
    assert "no RSA key pair that unwraps: no clear key can be imported" in info.limits
    with pytest.raises(CoprocessorError, match="no clear key can be imported"):
        coprocessors.import_clear(KEY, bytearray(os.urandom(32)), is_xts=False)
    coprocessors.remove(APQN)
    pkcs11_module.get_module(uri.find_module())._forget(str(uri))
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


def test_a_master_key_that_could_leave_is_not_used(adapters, session):
    session.generate_key(
        KeyType.AES,
        256,
        label="fusecrypt AES master key NEW",
        store=True,
        capabilities=MechanismFlag.ENCRYPT | MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        template={Attribute.EXTRACTABLE: True},
    )
    assert "can be read or taken out" in adapters.list_info()[0].problem


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
