"""Cards: their types and states, what a domain may be used for, and how often it was."""

import pytest

from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessor import Apqn, Register, Status
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import (
    BusyError,
    CoprocessorError,
    MasterKeyChangedError,
    NotFoundError,
    UnsupportedError,
)
from fusecrypt.keystore.tokens import KeyType
from tests.unit.keystore.samples import FIRST, SECOND, clear_key, master_key, put_adapter

OTHER = Apqn(4, 0x39)
DATA, CIPHER = KeyType.CCA_AESDATA, KeyType.CCA_AESCIPHER


def status(coprocessors):
    return {str(info.apqn): str(info.status) for info in coprocessors.list_info()}


@pytest.mark.parametrize("level", [5, 6, 7, 8])
@pytest.mark.parametrize(("mode", "letter"), [("cca", "C"), ("accel", "A")])
def test_cards_have_types(coprocessors, level, mode, letter):
    info = coprocessors.create(FIRST, mode, level=level)
    assert (info.type, info.mode, info.level) == (f"CEX{level}{letter}", mode, level)
    assert coprocessors.list_info() == (info,)
    assert coprocessors.create(SECOND, mode).type == info.type  # of the same card


@pytest.mark.parametrize("level", [0, 4, 9, 80])
def test_a_card_that_does_not_exist_is_refused(coprocessors, level):
    with pytest.raises(UnsupportedError, match="wanted CEX5 to CEX8"):
        coprocessors.create(FIRST, level=level)
    assert coprocessors.list_info() == ()


def test_a_card_is_of_one_type(coprocessors):
    coprocessors.create(FIRST, level=7)
    for wrong in ({"level": 8}, {"mode": "accel"}):
        with pytest.raises(CoprocessorError, match="but the card is CEX7C"):
            coprocessors.create(SECOND, **wrong)
    backup = coprocessors.backup(bytearray(b"pw"))
    coprocessors.remove(FIRST)
    coprocessors.create(SECOND, level=8)
    with pytest.raises(BusyError, match="CEX7C in the backup, but the card is CEX8C"):
        coprocessors.restore(backup, bytearray(b"pw"))
    assert [info.apqn for info in coprocessors.list_info()] == [SECOND]


def test_a_card_before_cex6_knows_no_aescipher_keys(coprocessors, directory):
    put_adapter(directory, FIRST, {"type": "CEX5C"}, current=master_key(0))
    with pytest.raises(CoprocessorError, match=r"from CEX6C on: 03\.0039 is a CEX5C"):
        coprocessors.generate(CIPHER, 256, is_xts=True)
    coprocessors.generate(DATA, 256, is_xts=True)
    put_adapter(directory, OTHER, {"type": "CEX6C"}, current=master_key(0))
    key = coprocessors.generate(CIPHER, 256, is_xts=True)
    assert coprocessors.validate(key).apqns == (OTHER,)
    with pytest.raises(CoprocessorError, match="CEX5C"):
        coprocessors.generate(CIPHER, 256, is_xts=True, apqns=[FIRST, OTHER])
    coprocessors.change([OTHER], Change.OFFLINE)
    with pytest.raises(MasterKeyChangedError):
        coprocessors.validate(key)


def test_a_change_of_a_card_is_of_all_its_domains(coprocessors):
    for apqn in (FIRST, SECOND, OTHER):
        coprocessors.create(apqn)
    assert status(coprocessors) == dict.fromkeys(["03.0039", "03.0040", "04.0039"], "online")
    coprocessors.change([FIRST], Change.OFFLINE)
    assert status(coprocessors) == {"03.0039": "offline", "03.0040": "online", "04.0039": "online"}
    for change, undo, wanted in (
        (Change.DECONFIGURE, Change.CONFIGURE, "deconfig"),
        (Change.CHECKSTOP, Change.RECOVER, "chkstop"),
    ):
        coprocessors.change([SECOND], change)
        assert status(coprocessors) == {
            "03.0039": wanted, "03.0040": wanted, "04.0039": "online"
        }  # fmt: skip
        with pytest.raises(CoprocessorError, match=f"cannot go online, it is {wanted}"):
            coprocessors.change([FIRST], Change.ONLINE)
        assert coprocessors.create(Apqn(3, 1)).status == wanted  # a new domain of the card
        coprocessors.remove(Apqn(3, 1))
        coprocessors.change([FIRST], undo)
        assert status(coprocessors)["03.0039"] == "offline"  # as it was
    coprocessors.change([FIRST], Change.ONLINE)
    assert set(status(coprocessors).values()) == {"online"}


def test_a_change_of_one_that_is_not_there_changes_none(coprocessors, directory):
    with pytest.raises(NotFoundError):
        coprocessors.change([FIRST], Change.OFFLINE)
    assert not directory.exists()
    coprocessors.create(FIRST)
    with pytest.raises(NotFoundError, match=r"03\.0040"):
        coprocessors.change([FIRST, SECOND], Change.OFFLINE)
    assert status(coprocessors) == {"03.0039": "online"}
    coprocessors.change([], Change.OFFLINE)


@pytest.mark.parametrize(
    ("change", "word"),
    [(Change.OFFLINE, "offline"), (Change.DECONFIGURE, "deconfig"), (Change.CHECKSTOP, "chkstop")],
)
def test_an_adapter_out_of_service_is_followed_by_one_with_the_same_master_key(
    coprocessors, directory, change, word
):
    for apqn in (FIRST, OTHER):
        put_adapter(directory, apqn, current=master_key(0), new=master_key(1))
    key = coprocessors.import_clear(DATA, clear_key(256, True), is_xts=True)
    before = {info.apqn: info.requests for info in coprocessors.list_info()}
    assert before == {FIRST: 1, OTHER: 0}
    coprocessors.change([FIRST], change)
    assert coprocessors.validate(key).apqns == (OTHER,)
    coprocessors.generate(DATA, 256, is_xts=True)
    coprocessors.reencipher(key, Register.NEW)
    assert [info.requests for info in coprocessors.list_info()] == [1, 3]
    coprocessors.change([OTHER], change)
    with pytest.raises(MasterKeyChangedError, match=f"is {word} and has CURRENT 491176b0f443c65a"):
        coprocessors.validate(key)
    with pytest.raises(CoprocessorError, match=word):
        coprocessors.get(OTHER).validate(key)
    # Its registers are administered all the same.
    coprocessors.clear_new(OTHER)


def test_a_control_domain_is_administered_and_not_used(coprocessors):
    info = coprocessors.create(FIRST, is_control_only=True)
    assert info.status is Status.ONLINE
    with pytest.raises(CoprocessorError, match=r"03\.0039 is administered only and has"):
        coprocessors.generate(DATA, 256, is_xts=True)
    with pytest.raises(CoprocessorError, match="administered only, it serves no keys"):
        coprocessors.get(FIRST).generate(DATA, 256, is_xts=True)
    coprocessors.load_random(FIRST)
    assert coprocessors.set_new(FIRST).old == info.current


def test_requests_are_counted_since_the_start(coprocessors, directory):
    coprocessors.create(FIRST)
    key = coprocessors.generate(DATA, 256, is_xts=True)
    coprocessors.validate(key)
    assert coprocessors.list_info()[0].requests == 2
    assert Coprocessors(directory).list_info()[0].requests == 0
