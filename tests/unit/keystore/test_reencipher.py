"""Keys that go from one master key to another, or into another kind of token."""

import pytest

from fusecrypt.keystore import aeskw, cca
from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessor import Apqn, Register
from fusecrypt.keystore.errors import (
    CoprocessorError,
    FormatError,
    MasterKeyChangedError,
    UnsupportedError,
)
from fusecrypt.keystore.key_type import CCA_KEY_TYPES
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.tokens import AesCipherToken, KeyType
from fusecrypt.keystore.verification import make_mkvp
from tests.unit.keystore.independent import unwrap
from tests.unit.keystore.samples import (
    FIRST,
    REAL_XTS_KEY,
    SECOND,
    SIZES,
    clear_key,
    master_key,
    put_adapter,
)

PATTERN = "cd6b103236fbd87dba93e9001e29bc3d5e885d6abd1577e3e0e0a5f49e444894"  # XTS-256, 00..3f


def import_xts(coprocessors, key_type=KeyType.CCA_AESDATA, **options):
    return coprocessors.import_clear(key_type, clear_key(256, True), is_xts=True, **options)


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
@pytest.mark.parametrize(("bits", "is_xts"), SIZES)
def test_a_re_enciphered_key_is_the_same_key_by_an_independent_unwrap(key_type, bits, is_xts):
    clear = clear_key(bits, is_xts)
    key = cca.wrap_key(key_type, clear, master_key(0), is_xts=is_xts)
    assert unwrap(key.token, master_key(0)) == clear
    moved = cca.rewrap_key(key, master_key(0), master_key(7))
    assert unwrap(moved.token, master_key(7)) == clear
    assert moved == cca.wrap_key(key_type, clear, master_key(7), is_xts=is_xts)
    assert cca.rewrap_key(moved, master_key(7), master_key(0)) == key


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
def test_from_current_to_new_then_from_old_to_current(coprocessors, directory, key_type):
    put_adapter(directory, FIRST, current=master_key(0), new=master_key(1))
    key = import_xts(coprocessors, key_type)
    staged = coprocessors.reencipher(key, Register.NEW)
    assert staged.mkvp == make_mkvp(master_key(1))
    assert unwrap(staged.token, master_key(1)) == clear_key(256, True)
    with pytest.raises(MasterKeyChangedError, match="not set yet"):
        coprocessors.validate(staged)
    assert coprocessors.reencipher(staged, Register.NEW) == staged

    put_adapter(directory, FIRST, current=master_key(1), old=master_key(0))
    assert coprocessors.validate(staged).pattern == PATTERN
    assert coprocessors.reencipher(key, Register.CURRENT) == staged
    assert coprocessors.reencipher(staged, Register.CURRENT) == staged

    # From OLD straight to NEW, too.
    put_adapter(directory, FIRST, current=master_key(1), old=master_key(0), new=master_key(2))
    moved = coprocessors.reencipher(key, Register.NEW)
    assert moved == coprocessors.reencipher(staged, Register.NEW)
    assert unwrap(moved.token, master_key(2)) == clear_key(256, True)


def test_what_a_key_may_be_used_for_goes_with_it(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0), new=master_key(1))
    # Not for volumes (no CPACF export, cannot encipher), of the payload version that hides sizes.
    mkvp = make_mkvp(master_key(0))
    like = AesCipherToken(mkvp, bytes(80), 1, 0x4000, 0x0000, 0x3040, 0x0018, 0x0512)
    description = like.pack_associated_data()
    payload = aeskw.wrap(clear_key(128, False), description, master_key(0), 80)
    key = SecureKey(AesCipherToken(mkvp, payload, 1, 0x4000, 0, 0x3040, 0x0018, 0x0512).pack())
    with pytest.raises(CoprocessorError, match="XPRTCPAC"):
        coprocessors.validate(key)
    moved = coprocessors.reencipher(key, Register.NEW)
    assert moved.token[30:56] == key.token[30:56] == description
    assert moved.token[:10] == key.token[:10]
    assert unwrap(moved.token, master_key(1)) == clear_key(128, False)


def test_without_a_new_master_key_it_is_said_what_there_is(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0))
    key = import_xts(coprocessors)
    with pytest.raises(CoprocessorError, match=r"no adapter .* NEW .*03\.0039 has NEW empty$"):
        coprocessors.reencipher(key, Register.NEW)
    with pytest.raises(CoprocessorError, match="no NEW master key, it is empty"):
        coprocessors.get(FIRST).reencipher(key, Register.NEW)
    with pytest.raises(UnsupportedError, match="OLD"):
        coprocessors.get(FIRST).reencipher(key, Register.OLD)


def test_a_foreign_key_is_not_re_enciphered(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0), new=master_key(1))
    foreign = SecureKey(REAL_XTS_KEY)
    for target in (Register.NEW, Register.CURRENT):
        with pytest.raises(MasterKeyChangedError, match="71ecf46a35bd8924"):
            coprocessors.reencipher(foreign, target)
    with pytest.raises(MasterKeyChangedError, match="71ecf46a35bd8924"):
        coprocessors.get(FIRST).reencipher(foreign, Register.NEW)
    # And one that is under NEW does not come back to CURRENT.
    staged = coprocessors.reencipher(import_xts(coprocessors), Register.NEW)
    with pytest.raises(MasterKeyChangedError, match="not set yet"):
        coprocessors.reencipher(staged, Register.CURRENT)


def test_an_altered_key_is_not_re_enciphered_even_if_nothing_has_to_be_done(
    coprocessors, directory
):
    put_adapter(directory, FIRST, current=master_key(0), new=master_key(1))
    token = bytearray(import_xts(coprocessors, KeyType.CCA_AESCIPHER).token)
    token[60] ^= 1
    for target in (Register.NEW, Register.CURRENT):
        with pytest.raises(FormatError, match="altered"):
            coprocessors.reencipher(SecureKey(bytes(token)), target)


def test_different_new_master_keys_are_reported_before_use(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0), new=master_key(1))
    put_adapter(directory, SECOND, current=master_key(0), new=master_key(2))
    key = import_xts(coprocessors)
    with pytest.raises(CoprocessorError, match=r"different NEW .*03\.0039 .*; 03\.0040 "):
        coprocessors.reencipher(key, Register.NEW)
    moved = coprocessors.reencipher(key, Register.NEW, [SECOND])
    assert moved.mkvp == make_mkvp(master_key(2))
    with pytest.raises(CoprocessorError, match=r"05\.0000: does not exist"):
        coprocessors.reencipher(key, Register.NEW, [Apqn(5, 0)])


def test_an_adapter_with_both_master_keys_is_found_among_others(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0))
    put_adapter(directory, SECOND, current=master_key(3), new=master_key(1), old=master_key(0))
    key = import_xts(coprocessors, apqns=[FIRST])
    assert coprocessors.reencipher(key, Register.NEW).mkvp == make_mkvp(master_key(1))
    assert coprocessors.reencipher(key, Register.CURRENT) == key  # as it is at the first
    moved = coprocessors.reencipher(key, Register.CURRENT, [SECOND])
    assert moved.mkvp == make_mkvp(master_key(3))
    coprocessors.change([SECOND], Change.OFFLINE)
    with pytest.raises(CoprocessorError, match="NEW empty"):
        coprocessors.reencipher(key, Register.NEW)


def test_an_adapter_that_fails_is_followed_by_the_next(coprocessors, directory, monkeypatch):
    from fusecrypt.keystore.drivers.soft import SoftCoprocessor

    for apqn in (FIRST, SECOND):
        put_adapter(directory, apqn, current=master_key(0))
    key = import_xts(coprocessors)
    asked = []
    validate = SoftCoprocessor.validate

    def fail_first(self, secure_key):
        asked.append(self._apqn)
        if len(asked) == 1:
            raise CoprocessorError("went offline just now")
        return validate(self, secure_key)

    monkeypatch.setattr(SoftCoprocessor, "validate", fail_first)
    assert coprocessors.validate(key).pattern == PATTERN
    assert asked == [FIRST, SECOND]


@pytest.mark.parametrize("is_exportable", [False, True])
def test_an_aesdata_key_becomes_an_aescipher_key(coprocessors, directory, is_exportable):
    put_adapter(directory, FIRST, current=master_key(0))
    key = import_xts(coprocessors)
    made = coprocessors.convert(key, KeyType.CCA_AESCIPHER, is_exportable=is_exportable)
    assert (made.key_type, made.is_xts, made.mkvp) == (KeyType.CCA_AESCIPHER, True, key.mkvp)
    assert unwrap(made.token, master_key(0)) == clear_key(256, True)
    assert coprocessors.validate(made).pattern == PATTERN
    # KMF1 to KMF3: exports, no attributes before, converted without export control.
    assert made.token[50:56].hex() == ("f800" if is_exportable else "08c8") + "00080012"
    for wrong in (lambda: coprocessors.convert(made, KeyType.CCA_AESCIPHER),
                  lambda: coprocessors.convert(key, KeyType.CCA_AESDATA)):  # fmt: skip
        with pytest.raises(UnsupportedError, match="converted"):
            wrong()


def test_a_key_is_converted_under_the_master_key_that_it_has(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0))
    key = import_xts(coprocessors)
    put_adapter(directory, FIRST, current=master_key(1), old=master_key(0))
    assert coprocessors.convert(key, KeyType.CCA_AESCIPHER).mkvp == key.mkvp


def test_an_exportable_key_can_be_restricted_and_stays_the_same_key(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0))
    key = import_xts(coprocessors, KeyType.CCA_AESCIPHER, is_exportable=True)
    assert key.token[50:52].hex() == "f800"
    made = coprocessors.restrict(key)
    assert made.token[50:52].hex() == "08c8"
    assert unwrap(made.token, master_key(0)) == clear_key(256, True)
    assert coprocessors.restrict(made) == made
    assert coprocessors.generate(
        KeyType.CCA_AESCIPHER, 256, is_xts=False, is_exportable=True
    ).token[50:52].hex() == "f800"  # fmt: skip
    for wrong in (
        lambda: coprocessors.restrict(import_xts(coprocessors)),
        lambda: import_xts(coprocessors, is_exportable=True),
    ):
        with pytest.raises(UnsupportedError, match="says nothing of exports"):
            wrong()


def test_a_key_without_cpacf_export_gets_none_by_being_restricted():
    key = cca.wrap_key(KeyType.CCA_AESCIPHER, clear_key(256, False), master_key(0), is_xts=False)
    token = AesCipherToken(key.mkvp, bytes(80), management1=0x7000)
    payload = aeskw.wrap(
        clear_key(256, False), token.pack_associated_data(), master_key(0), 80
    )  # fmt: skip
    given = SecureKey(AesCipherToken(key.mkvp, payload, management1=0x7000).pack())
    assert cca.restrict_key(given, master_key(0)).token[50:52].hex() == "00c8"
