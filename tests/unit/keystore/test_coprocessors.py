"""Adapters: making them, the choice among them, and what is said when none can."""

import re

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fusecrypt.keystore.adapter import Adapter, MasterKeys
from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessor import Apqn, Fill, Register, RegisterState
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import (
    BusyError,
    ConfigError,
    CoprocessorError,
    FormatError,
    MasterKeyChangedError,
    NotFoundError,
    UnsupportedError,
)
from fusecrypt.keystore.key_type import CCA_KEY_TYPES
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_mkvp
from tests.unit.keystore.samples import (
    FIRST,
    REAL_XTS_KEY,
    SECOND,
    SIZES,
    clear_key,
    master_key,
    put_adapter,
    store_of,
)

PUBLIC = X25519PrivateKey.generate().public_key().public_bytes_raw()
MKVPS = {first: make_mkvp(master_key(first)).hex() for first in range(5)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("03.0039", "03.0039"), ("3.39", "03.0039"), ("FF.ffff", "ff.ffff"), ("0.0", "00.0000")],
)
def test_an_apqn_is_hexadecimal_and_has_one_spelling(text, wanted):
    assert str(Apqn.parse(text)) == wanted


@pytest.mark.parametrize(
    "text",
    ["", "3", "3.", ".39", "100.1", "1.10000", "g.1", "0x3.1", "3.39 ", "3.39\n", "-1.1", "3,39"],
)  # fmt: skip
def test_what_is_no_apqn_is_refused(text):
    with pytest.raises(ConfigError, match="wanted CARD"):
        Apqn.parse(text)


def test_a_new_adapter_has_a_random_master_key_and_is_told_as_it_is(coprocessors):
    info = coprocessors.create(FIRST)
    assert info == coprocessors.get(FIRST).info() == coprocessors.list_info()[0]
    assert (info.mode, info.type, info.is_online) == ("cca", "CEX8C", True)
    assert re.fullmatch("[0-9A-Z]{8}", info.serial)
    assert info.created == "2026-01-31T12:00:00Z"
    assert info.new == RegisterState(Fill.EMPTY)
    assert info.old == RegisterState(Fill.INVALID)
    assert info.current.state is Fill.VALID
    other = coprocessors.create(Apqn(4, 0))
    assert other.current.mkvp != info.current.mkvp
    assert other.serial != info.serial


def test_domains_of_one_card_share_its_serial_number(coprocessors):
    assert coprocessors.create(FIRST).serial == coprocessors.create(SECOND).serial


def test_an_adapter_without_master_key_makes_no_key_and_says_so(coprocessors):
    info = coprocessors.create(FIRST, with_master_key=False)
    assert info.current == RegisterState(Fill.INVALID)
    with pytest.raises(CoprocessorError, match=r"no adapter is online with a master key: 03\.0039"):
        coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    with pytest.raises(CoprocessorError, match="no CURRENT"):
        coprocessors.get(FIRST).generate(KeyType.CCA_AESDATA, 256, is_xts=True)


def test_an_adapter_is_not_made_twice(coprocessors):
    info = coprocessors.create(FIRST)
    with pytest.raises(BusyError, match=r"03\.0039: exists"):
        coprocessors.create(FIRST)
    assert coprocessors.list_info() == (info,)


def test_another_mode_is_refused_by_name(coprocessors, directory):
    with pytest.raises(UnsupportedError, match="ep12"):
        coprocessors.create(FIRST, "ep12")
    assert not directory.exists()


def test_a_removed_adapter_is_gone(coprocessors, directory):
    coprocessors.create(FIRST)
    coprocessors.remove(FIRST)
    assert coprocessors.list_info() == ()
    assert not [path for path in directory.iterdir() if "adapter" in path.name]
    with pytest.raises(NotFoundError, match=r"03\.0039"):
        coprocessors.remove(FIRST)
    with pytest.raises(NotFoundError, match=r"03\.0039"):
        coprocessors.get(FIRST)


def test_looking_makes_no_directory(coprocessors, directory):
    assert coprocessors.list_info() == ()
    for look in (coprocessors.remove, coprocessors.get):
        with pytest.raises(NotFoundError):
            look(FIRST)
    assert not directory.exists()


def test_without_any_adapter_the_command_that_makes_one_is_named(coprocessors):
    for use in (
        lambda: coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True),
        lambda: coprocessors.backup(bytearray(b"x")),
    ):
        with pytest.raises(CoprocessorError, match="fusecrypt adapter create"):
            use()


def test_without_any_adapter_a_key_that_is_there_is_not_helped_by_a_new_one(coprocessors):
    key = SecureKey(REAL_XTS_KEY)
    for use in (
        lambda: coprocessors.to_transport(key, PUBLIC),
        lambda: coprocessors.validate(key),
        lambda: coprocessors.reencipher(key, Register.CURRENT),
    ):
        with pytest.raises(CoprocessorError, match="fusecrypt adapter restore") as caught:
            use()
        assert "adapter create" not in str(caught.value)


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
@pytest.mark.parametrize(("bits", "is_xts"), SIZES)
def test_a_generated_key_is_valid_and_like_no_other(coprocessors, key_type, bits, is_xts):
    mkvp = coprocessors.create(FIRST).current.mkvp
    key = coprocessors.generate(key_type, bits, is_xts=is_xts)
    found = coprocessors.validate(key)
    assert (found.key_type, found.is_xts, found.mkvp) == (key_type, is_xts, mkvp)
    assert found.clear_bits == bits * (2 if is_xts else 1)
    assert found.register is Register.CURRENT
    assert found.apqns == (FIRST,)
    other = coprocessors.generate(key_type, bits, is_xts=is_xts)
    assert coprocessors.validate(other).pattern != found.pattern


@pytest.mark.parametrize(("bits", "is_xts"), [(192, True), (512, False), (0, False), (512, True)])
def test_a_size_that_no_key_has_is_refused(coprocessors, bits, is_xts):
    coprocessors.create(FIRST)
    with pytest.raises(UnsupportedError, match=f"{bits} bits"):
        coprocessors.generate(KeyType.CCA_AESCIPHER, bits, is_xts=is_xts)


@pytest.mark.parametrize("key_type", CCA_KEY_TYPES)
def test_an_imported_key_has_the_pattern_of_the_clear_one(coprocessors, key_type):
    coprocessors.create(FIRST)
    clear = clear_key(256, is_xts=True)
    found = coprocessors.validate(coprocessors.import_clear(key_type, clear, is_xts=True))
    assert found.pattern == "cd6b103236fbd87dba93e9001e29bc3d5e885d6abd1577e3e0e0a5f49e444894"
    assert clear == clear_key(256, is_xts=True)


def test_the_clear_key_of_a_token_is_wiped_after_use(coprocessors, monkeypatch):
    coprocessors.create(FIRST)
    key = coprocessors.import_clear(KeyType.CCA_AESDATA, clear_key(256, False), is_xts=False)
    seen = []

    def look(clear, public_key):
        assert public_key == PUBLIC
        assert clear == clear_key(256, is_xts=False)
        seen.append(clear)
        return b"blob"

    monkeypatch.setattr("fusecrypt.keystore.transport.seal", look)
    coprocessors.to_transport(key, PUBLIC)
    assert seen == [bytearray(32)]


def test_a_key_of_the_old_master_key_is_usable_and_told_as_such(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0))
    key = coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    pattern = coprocessors.validate(key).pattern
    put_adapter(directory, FIRST, current=master_key(1), old=master_key(0))
    assert coprocessors.get(FIRST).find_register(key) is Register.OLD
    found = coprocessors.validate(key)
    assert (found.register, found.pattern) == (Register.OLD, pattern)
    made = coprocessors.to_transport(key, PUBLIC)
    assert (made.register, made.apqn, made.pattern) == (Register.OLD, FIRST, pattern)
    # CURRENT, as soon as one adapter has it there; that one is asked.
    put_adapter(directory, SECOND, current=master_key(0))
    found = coprocessors.validate(key)
    assert (found.register, found.apqns) == (Register.CURRENT, (FIRST, SECOND))
    assert coprocessors.to_transport(key, PUBLIC).apqn == SECOND


def test_a_key_of_another_master_key_is_told_with_all_that_is_to_know(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0), old=master_key(1))
    put_adapter(directory, SECOND)
    put_adapter(directory, Apqn(4, 0), current=master_key(2))
    coprocessors.change([Apqn(4, 0)], Change.OFFLINE)
    wanted = (
        "key wrapped by master key MKVP 71ecf46a35bd8924 (CCA-AESDATA); adapters: "
        f"03.0039 has CURRENT {MKVPS[0]}, OLD {MKVPS[1]}; 03.0040 has CURRENT -, OLD -; "
        f"04.0000 is offline and has CURRENT {MKVPS[2]}, OLD -"
    )
    for use in (
        lambda key: coprocessors.to_transport(key, PUBLIC),
        lambda key: coprocessors.validate(key),
    ):
        with pytest.raises(MasterKeyChangedError) as refusal:
            use(SecureKey(REAL_XTS_KEY))
        assert str(refusal.value) == wanted
    with pytest.raises(MasterKeyChangedError, match=f"71ecf46a35bd8924.*CURRENT {MKVPS[0]}"):
        coprocessors.get(FIRST).validate(SecureKey(REAL_XTS_KEY))
    assert coprocessors.get(FIRST).find_register(SecureKey(REAL_XTS_KEY)) is None


def test_a_key_of_a_master_key_that_is_not_set_yet_is_told_so(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(1))
    key = coprocessors.generate(KeyType.CCA_AESCIPHER, 256, is_xts=True)
    put_adapter(directory, FIRST, new=master_key(1), current=master_key(0))
    assert coprocessors.get(FIRST).find_register(key) is Register.NEW
    with pytest.raises(MasterKeyChangedError, match=r"in NEW of 03\.0039, not set yet$"):
        coprocessors.validate(key)
    with pytest.raises(MasterKeyChangedError):
        coprocessors.get(FIRST).to_transport(key, PUBLIC)


def test_an_adapter_that_is_offline_is_not_used(coprocessors):
    coprocessors.create(FIRST)
    key = coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    coprocessors.change([FIRST], Change.OFFLINE)
    assert not coprocessors.list_info()[0].is_online
    with pytest.raises(MasterKeyChangedError, match=r"03\.0039 is offline"):
        coprocessors.validate(key)
    with pytest.raises(CoprocessorError, match=r"03\.0039 is offline"):
        coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    with pytest.raises(CoprocessorError, match="offline"):
        coprocessors.get(FIRST).validate(key)
    coprocessors.change([FIRST], Change.ONLINE)
    assert coprocessors.validate(key).apqns == (FIRST,)


def test_named_adapters_are_used_and_must_agree(coprocessors):
    coprocessors.create(FIRST)
    mkvp = coprocessors.create(SECOND).current.mkvp
    key = coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True, apqns=[SECOND])
    assert key.mkvp == mkvp
    with pytest.raises(CoprocessorError, match=r"different master keys: 03\.0039 .*03\.0040"):
        coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True, apqns=[FIRST, SECOND])
    with pytest.raises(CoprocessorError, match=r"05\.0000: does not exist"):
        coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True, apqns=[FIRST, Apqn(5, 0)])


def test_a_damaged_adapter_keeps_no_other_from_working(coprocessors, directory):
    coprocessors.create(FIRST)
    coprocessors.create(SECOND)
    key = coprocessors.generate(KeyType.CCA_AESDATA, 256, is_xts=True, apqns=[SECOND])
    (directory / "03.0039.adapter").write_bytes(b"{}")
    assert coprocessors.validate(key).apqns == (SECOND,)
    assert coprocessors.to_transport(key, PUBLIC).apqn == SECOND
    with pytest.raises(MasterKeyChangedError, match=r"03\.0039 cannot be read .*03\.0039\.adapter"):
        coprocessors.validate(SecureKey(REAL_XTS_KEY))
    with pytest.raises(FormatError, match=r"03\.0039\.adapter"):
        coprocessors.list_info()
    coprocessors.remove(FIRST)
    assert len(coprocessors.list_info()) == 1


def test_a_token_that_was_altered_is_told(coprocessors):
    coprocessors.create(FIRST)
    token = bytearray(coprocessors.generate(KeyType.CCA_AESCIPHER, 256, is_xts=False).token)
    token[60] ^= 1
    for use in (
        lambda key: coprocessors.to_transport(key, PUBLIC),
        lambda key: coprocessors.validate(key),
    ):
        with pytest.raises(FormatError, match="altered"):
            use(SecureKey(bytes(token)))


def test_an_unknown_driver_is_refused_by_name(coprocessors, directory):
    info = coprocessors.create(FIRST, with_master_key=False)
    store_of(directory).replace(Adapter(info, "pkcs12", MasterKeys()))
    with pytest.raises(UnsupportedError, match="pkcs12"):
        coprocessors.list_info()


def test_several_processes_see_each_others_adapters(coprocessors, directory):
    other = Coprocessors(directory)
    coprocessors.create(FIRST)
    assert other.list_info() == coprocessors.list_info()
    key = other.generate(KeyType.CCA_AESDATA, 256, is_xts=True)
    assert coprocessors.validate(key) == other.validate(key)
