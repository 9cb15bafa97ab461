"""EP11: virtual adapters and their wrapping keys."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessor import Apqn, Fill, Register, RegisterState, Status
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.cross_check import cross_check
from fusecrypt.keystore.ep11_token import (
    VERSION_OVERLAID,
)
from fusecrypt.keystore.errors import (
    CoprocessorError,
    MasterKeyChangedError,
    PolicyError,
    UnsupportedError,
)
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.registers import Part
from fusecrypt.keystore.token_shape import TokenShape, describe_token
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_pattern, make_wkvp
from tests.unit.keystore.samples import FIRST, SECOND, SIZES, clear_key, master_key

PUBLIC = X25519PrivateKey.generate().public_key().public_bytes_raw()
EP11 = KeyType.EP11_AES


def with_form(key, version):
    """The same key in another form."""
    return SecureKey(b"".join(replace(half, version=version).pack() for half in key.halves))


@pytest.fixture
def adapter(coprocessors):
    coprocessors.create(FIRST, "ep11")
    return coprocessors


def test_a_new_adapter_has_a_wrapping_key_and_no_old_register(adapter):
    (info,) = adapter.list_info()
    assert (info.mode, info.type, info.is_imprint) == ("ep11", "CEX8P", False)
    assert (info.current.state, len(info.current.mkvp)) == (Fill.VALID, 16)
    assert info.old == RegisterState(Fill.INVALID)


@pytest.mark.parametrize(("bits", "is_xts"), SIZES)
def test_keys_are_generated_imported_and_validated(adapter, bits, is_xts):
    key = adapter.generate(EP11, bits, is_xts=is_xts)
    found = adapter.validate(key)
    assert (found.key_type, found.clear_bits) == (EP11, bits * (2 if is_xts else 1))
    assert (found.register, found.apqns) == (Register.CURRENT, (FIRST,))
    clear = clear_key(bits, is_xts)
    imported = adapter.import_clear(EP11, clear, is_xts=is_xts)
    assert adapter.validate(imported).pattern == make_pattern(clear, is_xts=is_xts)
    old_form = with_form(imported, VERSION_OVERLAID)
    assert adapter.to_transport(old_form, PUBLIC).pattern == make_pattern(clear, is_xts=is_xts)


def test_imprint_mode_comes_before_wrapping_keys(coprocessors):
    info = coprocessors.create(FIRST, "ep11", with_master_key=False)
    assert (info.is_imprint, info.is_usable, info.status) == (True, False, Status.ONLINE)
    assert coprocessors.list_info()[0].is_imprint
    for use in (
        lambda: coprocessors.load_random(FIRST),
        lambda: coprocessors.load_part(FIRST, Part.FIRST, master_key(0)),
        lambda: coprocessors.commit_new(FIRST),
        lambda: coprocessors.set_new(FIRST),
    ):
        with pytest.raises(CoprocessorError, match="imprint mode"):
            use()
    (warning, *_) = cross_check(coprocessors.list_info(), [FIRST], EP11).warnings
    assert "is in imprint mode" in warning
    assert not coprocessors.leave_imprint(FIRST).is_imprint
    with pytest.raises(CoprocessorError, match="has left imprint mode already"):
        coprocessors.leave_imprint(FIRST)


def test_a_wrapping_key_is_loaded_committed_and_set(coprocessors):
    coprocessors.create(FIRST, "ep11", with_master_key=False)
    coprocessors.leave_imprint(FIRST)
    coprocessors.load_part(FIRST, Part.FIRST, master_key(0))
    with pytest.raises(CoprocessorError, match="NEW is partial, wanted uncommitted"):
        coprocessors.commit_new(FIRST)
    info = coprocessors.load_part(FIRST, Part.LAST, bytearray(b"\xff" * 31 + b"\1"))
    assert info.new.state is Fill.UNCOMMITTED
    assert not info.new.is_usable
    with pytest.raises(CoprocessorError, match="NEW is uncommitted, wanted committed to be set"):
        coprocessors.set_new(FIRST)
    assert coprocessors.commit_new(FIRST).new.state is Fill.COMMITTED
    wrapping_key = bytearray(a ^ 0xFF for a in master_key(0))
    wrapping_key[31] = master_key(0)[31] ^ 1
    info = coprocessors.set_new(FIRST)
    assert info.current == RegisterState(Fill.VALID, make_wkvp(wrapping_key))
    assert (info.new, info.old) == (RegisterState(Fill.EMPTY), RegisterState(Fill.INVALID))
    coprocessors.load_part(FIRST, Part.FIRST, master_key(7))
    last = bytearray(a ^ b for a, b in zip(master_key(7), wrapping_key, strict=True))
    with pytest.raises(PolicyError, match="CURRENT"):
        coprocessors.load_part(FIRST, Part.LAST, last)


def test_a_key_is_staged_for_a_committed_wrapping_key_and_lost_without(adapter):
    key = adapter.generate(EP11, 256, is_xts=True)
    pattern = adapter.validate(key).pattern
    new = adapter.load_random(FIRST).new
    with pytest.raises(CoprocessorError, match="NEW uncommitted"):
        adapter.reencipher(key, Register.NEW)
    with pytest.raises(CoprocessorError, match="it is uncommitted"):
        adapter.get(FIRST).reencipher(key, Register.NEW)
    adapter.commit_new(FIRST)
    staged = adapter.reencipher(key, Register.NEW)
    assert staged.mkvp == new.mkvp
    with pytest.raises(MasterKeyChangedError, match="not set yet"):
        adapter.validate(staged)
    adapter.set_new(FIRST)
    assert adapter.validate(staged).pattern == pattern
    with pytest.raises(MasterKeyChangedError, match=key.mkvp.hex()):  # there is no OLD
        adapter.validate(key)


def test_only_ep11_commits_and_has_imprint_mode(coprocessors):
    coprocessors.create(FIRST)
    coprocessors.load_random(FIRST)
    with pytest.raises(UnsupportedError, match="commits nothing"):
        coprocessors.commit_new(FIRST)
    with pytest.raises(UnsupportedError, match="EP11 mode"):
        coprocessors.leave_imprint(FIRST)


def test_each_type_of_key_finds_its_kind_of_adapter(coprocessors):
    coprocessors.create(Apqn(1, 0))
    coprocessors.create(Apqn(2, 0), "ep11")
    coprocessors.create(Apqn(4, 0), "ep11", level=6)
    cca = coprocessors.generate(KeyType.CCA_AESCIPHER, 256, is_xts=True)
    blob = coprocessors.generate(EP11, 256, is_xts=True)
    assert coprocessors.validate(cca).apqns == (Apqn(1, 0),)
    assert coprocessors.validate(blob).apqns == (Apqn(2, 0),)
    for key_type, apqn, text in (
        (EP11, Apqn(1, 0), "wanted an EP11 card from CEX7 on: 01.0000 is a CEX8C"),
        (EP11, Apqn(4, 0), "wanted an EP11 card from CEX7 on: 04.0000 is a CEX6P"),
        (KeyType.CCA_AESDATA, Apqn(2, 0), "02.0000 is a CEX8P"),
    ):
        with pytest.raises(CoprocessorError, match=text):
            coprocessors.generate(key_type, 256, is_xts=True, apqns=[apqn])
    with pytest.raises(UnsupportedError, match="no key of EP11"):
        coprocessors.get(Apqn(2, 0)).generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    with pytest.raises(UnsupportedError, match="no key of CCA"):
        coprocessors.get(Apqn(1, 0)).generate(EP11, 256, is_xts=True)
    with pytest.raises(CoprocessorError, match=r"mode cca, and 02\.0000 is of mode ep11"):
        coprocessors.clone(Apqn(1, 0), Apqn(2, 0), Register.CURRENT)
    with pytest.raises(UnsupportedError, match="cannot be converted"):
        coprocessors.convert(blob, KeyType.CCA_AESCIPHER)
    with pytest.raises(UnsupportedError, match="says nothing of exports"):
        coprocessors.restrict(blob)


def test_adapters_with_one_wrapping_key_serve_one_key(coprocessors):
    coprocessors.create(FIRST, "ep11")
    coprocessors.create(SECOND, "ep11", with_master_key=False)
    coprocessors.leave_imprint(SECOND)
    coprocessors.clone(SECOND, FIRST, Register.CURRENT)
    coprocessors.commit_new(SECOND)
    coprocessors.set_new(SECOND)
    key = coprocessors.generate(EP11, 256, is_xts=True)
    assert coprocessors.validate(key).apqns == (FIRST, SECOND)
    coprocessors.change([FIRST], Change.OFFLINE)
    assert coprocessors.to_transport(key, PUBLIC).apqn == SECOND


def test_a_backup_brings_wrapping_keys_back(adapter, tmp_path):
    key = adapter.generate(EP11, 256, is_xts=True)
    adapter.load_random(FIRST)
    saved = adapter.backup(bytearray(b"passphrase"))
    other = Coprocessors(tmp_path / "other")
    assert other.restore(saved, bytearray(b"passphrase")) == [FIRST]
    assert other.list_info()[0].new == adapter.list_info()[0].new
    assert other.validate(key).pattern == adapter.validate(key).pattern


def test_the_cross_check_has_a_wider_table_without_old(adapter):
    adapter.load_random(FIRST)
    (info,) = adapter.list_info()
    check = cross_check([info], [], EP11)
    assert check.notes == (f"APQN {FIRST}: the NEW master key is loaded, and not committed yet",)
    head, rule, row = check.table
    assert head == f"CARD.DOMAIN {'NEW MK':<32} {'CURRENT MK':<32} TYPE  "
    assert (rule, row.split()[1]) == ("-" * 84, "uncommitted")
    assert row.split()[2] == info.current.mkvp.hex()


def test_a_key_is_described_as_zkey_does(adapter):
    key = adapter.generate(EP11, 256, is_xts=True)
    assert describe_token(key.token) == TokenShape("EP11-AES", 672, True, 512, key.mkvp)
    assert describe_token(with_form(key, 3).token).size == 640
