"""Master-key registers: what may be loaded when, what SET moves, and a crash in between."""

import contextlib
import os
from dataclasses import replace

import pytest

from fusecrypt.keystore.adapter import Adapter, MasterKeys, pack_public
from fusecrypt.keystore.coprocessor import Apqn, Fill, Register, RegisterState
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import ConfigError, CoprocessorError, NotFoundError, PolicyError
from fusecrypt.keystore.json_object import pack_canonical
from fusecrypt.keystore.registers import Part
from fusecrypt.keystore.tokens import KeyType
from tests.unit.keystore.samples import FIRST, SECOND, master_key, put_adapter, store_of

ZEROS, ONES = bytearray(32), bytearray(b"\xff" * 32)
EMPTY, INVALID = RegisterState(Fill.EMPTY), RegisterState(Fill.INVALID)
#: The MKVP of 00..1f: computed by another implementation.
KNOWN = bytes.fromhex("491176b0f443c65a")


def xor(*parts):
    return bytearray(a ^ b ^ c for a, b, c in zip(*parts, strict=True))


def read(directory, register, apqn=FIRST):
    with store_of(directory).opened(apqn) as adapter:
        return adapter.master_keys.copy(register)


def test_three_parts_make_a_master_key(coprocessors, directory):
    coprocessors.create(FIRST, with_master_key=False)
    one, two = bytearray(os.urandom(32)), bytearray(os.urandom(32))
    kept = bytearray(one)
    partial = RegisterState(Fill.PARTIAL)
    assert coprocessors.load_part(FIRST, Part.FIRST, one).new == partial
    assert one == kept  # the caller's to wipe
    assert coprocessors.load_part(FIRST, Part.MIDDLE, two).new == partial
    info = coprocessors.load_part(FIRST, Part.LAST, xor(one, two, master_key(0)))
    assert info.new == RegisterState(Fill.FULL, KNOWN)
    assert info == coprocessors.list_info()[0]
    assert read(directory, Register.NEW) == master_key(0)
    assert (info.current, info.old) == (INVALID, INVALID)

    info = coprocessors.set_new(FIRST)
    assert (info.new, info.current, info.old) == (EMPTY, RegisterState(Fill.VALID, KNOWN), INVALID)
    assert not any(read(directory, Register.NEW))
    assert read(directory, Register.CURRENT) == master_key(0)
    assert coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True).mkvp == KNOWN


def test_set_moves_current_to_old_and_what_was_old_is_gone(coprocessors, directory):
    put_adapter(
        directory, FIRST, new=master_key(3), current=master_key(2), old=master_key(1)
    )  # fmt: skip
    before = coprocessors.list_info()[0]
    after = coprocessors.set_new(FIRST)
    assert (after.current.mkvp, after.old.mkvp) == (before.new.mkvp, before.current.mkvp)
    assert after.new == EMPTY
    assert read(directory, Register.CURRENT) == master_key(3)
    assert read(directory, Register.OLD) == master_key(2)
    with pytest.raises(CoprocessorError, match="NEW is empty, wanted full to be set"):
        coprocessors.set_new(FIRST)


def refusals():
    for state in ("empty", "full"):
        for part in (Part.MIDDLE, Part.LAST):
            yield state, part, f"NEW is {state}, wanted partial"
    for state in ("partial", "full"):
        yield state, Part.FIRST, f"NEW is {state}, wanted empty .*clear-new"


@pytest.mark.parametrize(("state", "part", "message"), list(refusals()))
def test_a_part_at_the_wrong_time_changes_nothing(coprocessors, directory, state, part, message):
    coprocessors.create(FIRST)
    if state != "empty":
        coprocessors.load_part(FIRST, Part.FIRST, master_key(5))
    if state == "full":
        coprocessors.load_part(FIRST, Part.LAST, master_key(90))
    before = coprocessors.list_info(), read(directory, Register.NEW)
    with pytest.raises(CoprocessorError, match=message):
        coprocessors.load_part(FIRST, part, master_key(6))
    assert (coprocessors.list_info(), read(directory, Register.NEW)) == before
    if state == "partial":
        with pytest.raises(CoprocessorError, match="NEW is partial, wanted full"):
            coprocessors.set_new(FIRST)
    if state != "empty":
        with pytest.raises(CoprocessorError, match="wanted empty"):
            coprocessors.load_random(FIRST)
        assert coprocessors.clear_new(FIRST).new == EMPTY
        assert not any(read(directory, Register.NEW))
        coprocessors.load_part(FIRST, Part.FIRST, master_key(6))


@pytest.mark.parametrize("weak", [ZEROS, ONES, bytearray(b"\x5a" * 32)])
def test_weak_parts_are_refused(coprocessors, weak):
    coprocessors.create(FIRST)
    with pytest.raises(PolicyError, match="weak"):
        coprocessors.load_part(FIRST, Part.FIRST, weak)
    coprocessors.load_part(FIRST, Part.FIRST, master_key(5))
    for part in (Part.MIDDLE, Part.LAST):
        with pytest.raises(PolicyError, match="weak"):
            coprocessors.load_part(FIRST, part, weak)
    # Parts that cancel each other out.
    with pytest.raises(PolicyError, match="weak master key"):
        coprocessors.load_part(FIRST, Part.LAST, master_key(5))
    assert coprocessors.list_info()[0].new.state is Fill.PARTIAL


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_a_part_of_another_size_is_refused(coprocessors, size):
    coprocessors.create(FIRST)
    with pytest.raises(ConfigError, match=f"{size} bytes, wanted 32"):
        coprocessors.load_part(FIRST, Part.FIRST, bytearray(range(size)))


@pytest.mark.parametrize("register", ["current", "old"])
def test_a_master_key_that_is_there_already_is_refused(coprocessors, directory, register):
    put_adapter(directory, FIRST, **{register: master_key(0)})
    put_adapter(directory, SECOND, current=master_key(0))
    one = bytearray(os.urandom(32))
    coprocessors.load_part(FIRST, Part.FIRST, one)
    with pytest.raises(PolicyError, match=f"{register.upper()} one, MKVP 491176b0f443c65a"):
        coprocessors.load_part(FIRST, Part.LAST, xor(one, ZEROS, master_key(0)))
    assert coprocessors.list_info()[0].new.state is Fill.PARTIAL
    coprocessors.clear_new(FIRST)
    with pytest.raises(PolicyError, match=f"{register.upper()} one"):
        coprocessors.clone(FIRST, SECOND, Register.CURRENT)


def test_a_random_master_key_is_like_no_other(coprocessors):
    coprocessors.create(FIRST)
    coprocessors.create(SECOND)
    first, second = coprocessors.load_random(FIRST).new, coprocessors.load_random(SECOND).new
    assert first.state is second.state is Fill.FULL
    assert first.mkvp != second.mkvp


def test_a_clone_serves_the_same_keys(coprocessors, directory):
    coprocessors.create(FIRST)
    key = coprocessors.generate(KeyType.CCA_AESCIPHER, 256, is_xts=True)
    info = coprocessors.create(SECOND, with_master_key=False)
    with pytest.raises(CoprocessorError, match=r"03\.0039: no NEW master key, it is empty"):
        coprocessors.clone(SECOND, FIRST, Register.NEW)
    with pytest.raises(NotFoundError, match=r"05\.0000"):
        coprocessors.clone(SECOND, Apqn(5, 0), Register.CURRENT)
    info = coprocessors.clone(SECOND, FIRST, Register.CURRENT)
    assert (info.new.state, info.new.mkvp) == (Fill.FULL, key.mkvp)
    coprocessors.set_new(SECOND)
    assert coprocessors.validate(key).apqns == (FIRST, SECOND)
    # The other one's NEW master key goes along, for a change of all of them.
    new = coprocessors.load_random(FIRST).new
    assert coprocessors.clone(SECOND, FIRST, Register.NEW).new == new
    assert read(directory, Register.NEW) == read(directory, Register.NEW, SECOND)


def test_an_adapter_that_is_not_there_is_named(coprocessors, directory):
    for use in (
        lambda: coprocessors.load_part(FIRST, Part.FIRST, master_key(0)),
        lambda: coprocessors.set_new(FIRST),
    ):
        with pytest.raises(NotFoundError, match=r"03\.0039"):
            use()
    assert not directory.exists()


def test_a_part_stands_in_no_file(coprocessors, directory):
    coprocessors.create(FIRST)
    part = bytearray(os.urandom(32))
    coprocessors.load_part(FIRST, Part.FIRST, part)
    content = b"".join(path.read_bytes() for path in directory.iterdir())
    assert bytes(part) not in content
    assert part.hex().encode() not in content


class Crash(BaseException):
    """The power goes."""


CALLS = ["fchmod", "write", "fsync", "rename"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("is_after", [False, True])
def test_a_crash_leaves_the_registers_of_before_or_after(
    coprocessors, directory, monkeypatch, call, is_after
):
    real = getattr(os, call)

    def crash(*arguments, **options):
        if is_after:
            real(*arguments, **options)
        raise Crash

    put_adapter(directory, FIRST, current=master_key(1), old=master_key(2))
    before = coprocessors.list_info()[0]
    steps = [
        lambda: coprocessors.load_part(FIRST, Part.FIRST, master_key(30)),
        lambda: coprocessors.load_part(FIRST, Part.LAST, master_key(90)),
        lambda: coprocessors.set_new(FIRST),
    ]
    for step in steps:
        before = coprocessors.list_info()[0]
        with monkeypatch.context() as patch, contextlib.suppress(Crash):
            patch.setattr(f"os.{call}", crash)
            step()
        now = coprocessors.list_info()[0]  # and it opens, so that states and keys agree
        if now == before:
            step()
        assert coprocessors.list_info()[0] != before
    final = coprocessors.list_info()[0]
    wanted = [a ^ b for a, b in zip(master_key(30), master_key(90), strict=True)]
    assert read(directory, Register.CURRENT) == bytearray(wanted)
    assert read(directory, Register.OLD) == master_key(1)
    assert final.new == EMPTY


def test_what_an_earlier_version_stored_is_read_and_goes_on(coprocessors, directory):
    """Version 1 had no state of the card."""
    store = store_of(directory)
    info = put_adapter(directory, FIRST, current=master_key(0))
    with store.opened(FIRST) as adapter:
        public = pack_public(adapter.info, adapter.driver, 1)
        assert public.keys().isdisjoint({"configured", "checkstop", "control_only"})
        members = {"format": "fusecrypt adapter", "version": 1, "adapter": public}
        sealed = store.host_key.seal(adapter.master_keys.content, pack_canonical(members))
    members["sealed"] = {
        "host_key": sealed.host_key_id.hex(),
        "salt": sealed.salt.hex(),
        "master_keys": sealed.ciphertext.hex(),
    }
    (directory / "03.0039.adapter").write_bytes(pack_canonical(members))
    assert coprocessors.list_info() == (info,)
    coprocessors.load_random(FIRST)
    assert b'"version":3' in (directory / "03.0039.adapter").read_bytes()
    assert Coprocessors(directory).list_info()[0].current == info.current


def test_an_accelerator_has_no_master_keys(coprocessors, directory):
    info = coprocessors.create(FIRST, "accel")
    assert (info.type, info.current, info.new) == ("CEX8A", INVALID, EMPTY)
    with pytest.raises(CoprocessorError, match="an accelerator has no master keys"):
        coprocessors.load_random(FIRST)
    with pytest.raises(CoprocessorError, match=r"no adapter is online .*03\.0039 is an accel"):
        coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    with pytest.raises(CoprocessorError, match="accelerator, it serves no keys"):
        coprocessors.get(FIRST).generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    keys = MasterKeys()
    keys.put(Register.CURRENT, master_key(0))
    given = replace(info, current=RegisterState(Fill.VALID, KNOWN))
    store_of(directory).replace(Adapter(given, "soft", keys))
    with pytest.raises(Exception, match="an accelerator with master keys"):
        coprocessors.list_info()
