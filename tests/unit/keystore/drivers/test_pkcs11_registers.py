"""The master keys of a PKCS#11 token: made in it, or loaded in parts, and never to be had again."""

import itertools
import os
import subprocess
import sys

import pytest

pytest.importorskip("pkcs11")

import pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass

from fusecrypt.keystore import tokens as token_formats
from fusecrypt.keystore.coprocessor import Apqn, Fill, Register
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.drivers import pkcs11_module
from fusecrypt.keystore.errors import CoprocessorError, PolicyError, UnsupportedError
from fusecrypt.keystore.registers import Part
from tests.lab import tokens
from tests.unit.keystore.memory import read_memory
from tests.unit.keystore.samples import FIRST as APQN
from tests.unit.keystore.samples import pin

KEY = token_formats.KeyType.PKCS11_AES


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


def load_parts(adapters, parts, apqn=APQN):
    for part, content in zip(Part, parts, strict=True):
        info = adapters.load_part(apqn, part, bytearray(content))
    return info


def test_a_lost_token_is_replaced_by_another_with_the_same_parts(make_token, engine, tmp_path):
    parts = [os.urandom(32) for _ in range(3)]
    clear, keys = bytearray(os.urandom(64)), []
    for directory in (tmp_path / "lost", tmp_path / "other"):
        adapters = Coprocessors(directory)
        uri = make_token()
        info = adapters.create_token(APQN, uri, pin(), with_master_key=False)
        assert info.current.state is Fill.INVALID
        load_parts(adapters, parts)
        assert adapters.set_new(APQN).current.state is Fill.VALID
        keys = keys or [adapters.import_clear(KEY, clear, is_xts=True)]
        assert engine.open(adapters.to_transport(keys[0], engine.public_key).blob) == bytes(clear)


PROGRAM = """
import os, sys
from pathlib import Path
from fusecrypt.keystore.clear_bytes import wiped
from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.pkcs11_uri import TokenUri
from fusecrypt.keystore.registers import Part

adapters = Coprocessors(Path(sys.argv[1]))
for part in Part:
    with wiped(bytearray(32)) as content:
        assert os.readv(0, [content]) == 32
        print(adapters.load_part(Apqn(3, 0x39), part, content).new.state, flush=True)
adapters.set_new(Apqn(3, 0x39))
mark = bytearray(range(100, 164))
print("ready", flush=True)
sys.stdin.read()
"""


def test_neither_parts_nor_pin_nor_master_key_stay_in_memory(make_token, directory):
    long_pin = "pin-of-a-token-e5d1f8-93ab71"
    adapters = Coprocessors(directory)
    adapters.create_token(APQN, make_token(long_pin), pin(long_pin))
    parts = [os.urandom(32) for _ in Part]
    whole = bytes(a ^ b ^ c for a, b, c in zip(*parts, strict=True))
    so_far = bytes(a ^ b for a, b in zip(parts[0], parts[1], strict=True))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for content, state in zip(parts, ("partial", "partial", "full"), strict=True):
            child.stdin.write(content)
            assert child.stdout.readline() == f"{state}\n".encode()
        assert child.stdout.readline() == b"ready\n"
        memory = read_memory(child.pid)
        child.kill()
    assert bytes(range(100, 164)) in memory  # the search finds what is there
    secrets = [long_pin.encode(), so_far, whole, *parts]
    assert [secret for secret in secrets if secret[:16] in memory or secret[16:] in memory] == []


def test_parts_wait_for_the_last_one_sealed_and_in_no_token(adapters, session, directory):
    parts = [os.urandom(32) for _ in range(3)]
    assert adapters.load_part(APQN, Part.FIRST, bytearray(parts[0])).new.state is Fill.PARTIAL
    assert Coprocessors(directory).list_info()[0].new.state is Fill.PARTIAL
    assert not list(session.get_objects({Attribute.LABEL: "fusecrypt AES master key NEW"}))
    assert parts[0].hex().encode() not in (directory / f"{APQN}.adapter").read_bytes()
    for refused, message in (
        (lambda: adapters.load_part(APQN, Part.FIRST, bytearray(parts[1])), "wanted empty"),
        (lambda: adapters.load_random(APQN), "NEW is partial, wanted empty"),
        (lambda: adapters.set_new(APQN), "NEW is partial, wanted full"),
    ):
        with pytest.raises(CoprocessorError, match=message):
            refused()
    assert adapters.clear_new(APQN).new.state is Fill.EMPTY
    with pytest.raises(CoprocessorError, match="NEW is empty, wanted partial"):
        adapters.load_part(APQN, Part.LAST, bytearray(parts[1]))
    full = load_parts(adapters, parts)
    (key,) = session.get_objects({Attribute.LABEL: "fusecrypt AES master key NEW"})
    assert key[Attribute.SENSITIVE]
    assert not key[Attribute.EXTRACTABLE]
    assert not key[Attribute.DECRYPT]
    assert key.id == full.new.mkvp
    with adapters._store.opened(APQN) as adapter:
        assert not any(adapter.master_keys.content[1 + len(tokens.PIN) :])
    with pytest.raises(CoprocessorError, match="NEW is full, wanted partial"):
        adapters.load_part(APQN, Part.LAST, bytearray(parts[1]))
    adapters.set_new(APQN)
    load_parts(adapters, [os.urandom(32) for _ in range(3)])
    adapters.clear_new(APQN)
    with pytest.raises(PolicyError, match="would be its CURRENT one"):
        load_parts(adapters, parts)


def test_a_crash_after_the_last_part_leaves_a_whole_key_and_no_parts(adapters, monkeypatch):
    adapters.load_part(APQN, Part.FIRST, bytearray(os.urandom(32)))
    with monkeypatch.context() as patch:
        patch.setattr(adapters, "_keep_parts", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            adapters.load_part(APQN, Part.LAST, bytearray(os.urandom(32)))
    assert adapters.list_info()[0].new.state is Fill.FULL
    assert adapters.set_new(APQN).new.state is Fill.EMPTY


def test_a_key_that_was_arriving_when_the_power_failed_is_in_the_way_of_nobody(adapters, session):
    for _ in range(2):
        session.generate_key(
            KeyType.AES, 256, label="fusecrypt AES master key arriving", store=True
        )
    adapters.load_whole(APQN, bytearray(os.urandom(32)))
    assert not list(session.get_objects({Attribute.LABEL: "fusecrypt AES master key arriving"}))
    assert adapters.set_new(APQN).current.state is Fill.VALID


def test_a_long_pin_leaves_no_room_for_parts_and_none_is_lost(coprocessors, make_token):
    for size, has_room in ((62, True), (95, False)):
        long = "1" * size
        uri = make_token(long)
        apqn = Apqn(7, size)
        coprocessors.create_token(apqn, uri, pin(long))
        if has_room:
            coprocessors.load_part(apqn, Part.FIRST, bytearray(os.urandom(32)))
        else:
            with pytest.raises(UnsupportedError, match=f"PIN of {size} bytes: .* at most 62"):
                coprocessors.load_part(apqn, Part.FIRST, bytearray(os.urandom(32)))
        pkcs11_module.get_module(uri.find_module())._forget(str(uri))
        infos = {info.apqn: info for info in coprocessors.list_info()}
        assert infos[apqn].problem == ""
        assert (infos[apqn].new.state is Fill.PARTIAL) == has_room


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
    assert adapters.clear_new(APQN).problem == ""
