"""Control points: what an EP11 domain lets be done with keys."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fusecrypt.keystore.adapter import pack_public, take_public
from fusecrypt.keystore.control_points import DEFAULT, ControlPoint, parse_control_point
from fusecrypt.keystore.coprocessor import Register
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import (
    ConfigError,
    CoprocessorError,
    FormatError,
    NotFoundError,
    UnsupportedError,
)
from fusecrypt.keystore.json_object import JsonObject
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.tokens import KeyType
from tests.unit.keystore.samples import FIRST, SECOND, clear_key, master_key

PUBLIC = X25519PrivateKey.generate().public_key().public_bytes_raw()
EP11 = KeyType.EP11_AES
Point = ControlPoint


@pytest.fixture
def adapter(coprocessors):
    coprocessors.create(FIRST, "ep11")
    return coprocessors


def off(coprocessors, *points):
    return coprocessors.change_control_points(FIRST, [], points)


def test_numbers_are_the_published_ones():
    """XCP_CPB_* of ep11.h."""
    assert {point.name: int(point) for point in Point} == {
        "ADD_CPBS": 0, "DELETE_CPBS": 1, "ENCRYPT_SYMM": 5, "UNWRAP_SYMM": 11, "KEYGEN_SYMM": 13,
        "KEYSZ_128BIT": 26, "KEYSZ_192BIT": 27, "KEYSZ_256BIT": 28, "ALLOW_NONSESSION": 48,
        "CPACF_PK": 64, "ALLOW_COMBINED_EXTRACT": 75,
    }  # fmt: skip


def test_names_are_taken_in_any_spelling_and_others_are_refused():
    for text in ("KEYGEN_SYMM", "xcp_cpb_keygen_symm", "Keygen_Symm"):
        assert parse_control_point(text) is Point.KEYGEN_SYMM
    assert str(Point.KEYGEN_SYMM) == "XCP_CPB_KEYGEN_SYMM"
    with pytest.raises(UnsupportedError, match="XCP_CPB_ALG_RSA: virtual adapters do not have it"):
        parse_control_point("ALG_RSA")
    with pytest.raises(ConfigError, match="unknown; wanted: ADD_CPBS, DELETE_CPBS"):
        parse_control_point("ALLOW_EVERYTHING")


@pytest.mark.parametrize("with_master_key", [True, False])
def test_a_new_domain_has_all_on(coprocessors, with_master_key):
    info = coprocessors.create(FIRST, "ep11", with_master_key=with_master_key)
    assert info.control_points == DEFAULT == frozenset(Point)
    assert coprocessors.create(SECOND, "ep11").control_points == DEFAULT


def test_a_change_stays_with_the_adapter_and_in_its_backup(adapter, directory, tmp_path):
    assert off(adapter, Point.KEYGEN_SYMM).control_points == DEFAULT - {Point.KEYGEN_SYMM}
    again = Coprocessors(directory)
    assert again.list_info()[0].control_points == DEFAULT - {Point.KEYGEN_SYMM}
    restored = Coprocessors(tmp_path / "other")
    restored.restore(adapter.backup(bytearray(b"passphrase")), bytearray(b"passphrase"))
    assert restored.list_info()[0].control_points == DEFAULT - {Point.KEYGEN_SYMM}
    info = adapter.change_control_points(FIRST, [Point.KEYGEN_SYMM], [Point.CPACF_PK])
    assert info.control_points == DEFAULT - {Point.CPACF_PK}


def test_a_file_from_before_has_all_on_and_one_with_unknown_ones_is_refused(adapter):
    with adapter._store.opened(FIRST) as stored:
        public = pack_public(stored.info, stored.driver, 2)
        present = pack_public(stored.info, stored.driver)
    assert "control_points" not in public
    text = json.dumps(public).encode()
    assert take_public(JsonObject.parse(text, "file"), "file", 2)[0].control_points == DEFAULT
    present["control_points"] = f"{1 << 30:032x}"  # ALG_RSA
    with pytest.raises(FormatError, match="some mean nothing here"):
        take_public(JsonObject.parse(json.dumps(present).encode(), "file"), "file")


@pytest.mark.parametrize(
    ("point", "bits"),
    [
        (Point.KEYGEN_SYMM, 256), (Point.CPACF_PK, 256), (Point.ALLOW_NONSESSION, 256),
        (Point.KEYSZ_128BIT, 128), (Point.KEYSZ_192BIT, 192), (Point.KEYSZ_256BIT, 256),
    ],
)  # fmt: skip
def test_without_it_no_key_is_made(adapter, point, bits):
    clear = clear_key(bits, False)
    adapter.generate(EP11, bits, is_xts=False)
    off(adapter, point)
    with pytest.raises(CoprocessorError, match=f"adapter 03.0039: refused, .* {point} is off"):
        adapter.generate(EP11, bits, is_xts=False)
    with pytest.raises(CoprocessorError, match=f"{point} is off"):
        adapter.import_clear(EP11, clear, is_xts=False)
    adapter.change_control_points(FIRST, [point], [])
    adapter.import_clear(EP11, clear, is_xts=False)


@pytest.mark.parametrize("point", [Point.ENCRYPT_SYMM, Point.UNWRAP_SYMM])
def test_without_it_no_clear_key_comes_in(adapter, point):
    off(adapter, point)
    with pytest.raises(CoprocessorError, match=f"{point} is off"):
        adapter.import_clear(EP11, clear_key(256, True), is_xts=True)
    adapter.generate(EP11, 256, is_xts=True)


@pytest.mark.parametrize(
    ("point", "options"),
    [
        (Point.CPACF_PK, {}), (Point.ALLOW_NONSESSION, {}), (Point.KEYSZ_256BIT, {}),
        (Point.ALLOW_COMBINED_EXTRACT, {"is_exportable": True}),
    ],
)  # fmt: skip
def test_without_it_no_such_key_is_used_and_it_may_be_reenciphered(adapter, point, options):
    key = adapter.generate(EP11, 256, is_xts=True, **options)
    off(adapter, point)
    for use in (adapter.validate, lambda k: adapter.to_transport(k, PUBLIC)):
        with pytest.raises(CoprocessorError, match=f"{point} is off"):
            use(key)
    adapter.load_random(FIRST)
    adapter.commit_new(FIRST)
    adapter.reencipher(key, Register.NEW)


def test_other_keys_go_on(adapter):
    small, large = (adapter.generate(EP11, bits, is_xts=True) for bits in (128, 256))
    off(adapter, Point.KEYSZ_128BIT, Point.ALLOW_COMBINED_EXTRACT, Point.KEYGEN_SYMM)
    assert adapter.validate(large).clear_bits == 512
    with pytest.raises(CoprocessorError, match="KEYSZ_128BIT is off"):
        adapter.validate(small)


def test_the_size_counts_that_is_inside_the_key(adapter):
    """A token need not tell it."""
    (half,) = adapter.generate(EP11, 128, is_xts=False).halves
    silent = SecureKey(replace(half, clear_bits=None).pack())
    adapter.validate(silent)
    off(adapter, Point.KEYSZ_128BIT)
    with pytest.raises(CoprocessorError, match="KEYSZ_128BIT is off"):
        adapter.validate(silent)


def test_keys_of_a_session_go_on_where_others_are_forbidden(adapter):
    plain = adapter.generate(EP11, 256, is_xts=True)
    request, _ = adapter.make_request("one", master_key(0))
    adapter.add_secret(request)
    adapter.bind(FIRST)
    adapter.associate(FIRST, 0)
    off(adapter, Point.ALLOW_NONSESSION)
    bound = adapter.generate(EP11, 256, is_xts=True)
    assert adapter.validate(bound).apqns == (FIRST,)
    with pytest.raises(CoprocessorError, match="ALLOW_NONSESSION is off"):
        adapter.validate(plain)


def test_another_adapter_is_asked_when_one_forbids_it(adapter):
    adapter.create(SECOND, "ep11", with_master_key=False)
    adapter.leave_imprint(SECOND)
    adapter.clone(SECOND, FIRST, Register.CURRENT)
    adapter.commit_new(SECOND)
    adapter.set_new(SECOND)
    off(adapter, Point.KEYGEN_SYMM, Point.CPACF_PK)
    key = adapter.generate(EP11, 256, is_xts=True)
    assert adapter.to_transport(key, PUBLIC).apqn == SECOND


def test_what_forbids_changes_is_final(adapter):
    with pytest.raises(ConfigError, match="XCP_CPB_CPACF_PK: to be turned on and off"):
        adapter.change_control_points(FIRST, [Point.CPACF_PK], [Point.CPACF_PK])
    off(adapter, Point.KEYGEN_SYMM, Point.ADD_CPBS)
    with pytest.raises(CoprocessorError, match="ADD_CPBS is off"):
        adapter.change_control_points(FIRST, [Point.KEYGEN_SYMM], [])
    assert adapter.change_control_points(FIRST, [Point.CPACF_PK], []).control_points  # is on
    off(adapter, Point.DELETE_CPBS)
    with pytest.raises(CoprocessorError, match="DELETE_CPBS is off"):
        off(adapter, Point.CPACF_PK)
    assert adapter.list_info()[0].control_points == DEFAULT - {
        Point.KEYGEN_SYMM, Point.ADD_CPBS, Point.DELETE_CPBS
    }  # fmt: skip


def test_only_ep11_adapters_have_them(coprocessors):
    assert coprocessors.create(FIRST).control_points == frozenset()
    with pytest.raises(UnsupportedError, match="no virtual adapter in EP11 mode"):
        coprocessors.change_control_points(FIRST, [Point.CPACF_PK], [])
    with pytest.raises(NotFoundError):
        coprocessors.change_control_points(SECOND, [], [])
