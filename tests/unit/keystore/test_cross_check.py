"""What is said of adapters whose master keys do not fit together, or not a key."""

import pytest

from fusecrypt.keystore.coprocessor import AdapterInfo, Apqn, Fill, RegisterState
from fusecrypt.keystore.cross_check import cross_check
from fusecrypt.keystore.tokens import KeyType

A, B, C = (bytes([n]) * 8 for n in (0xAA, 0xBB, 0xCC))
FIRST, SECOND = Apqn(3, 0x39), Apqn(4, 1)
DATA = KeyType.CCA_AESDATA


def adapter(apqn=FIRST, new=None, current=A, old=None, *, partial=False, **fields):
    def state(mkvp, fill):
        return RegisterState(Fill.EMPTY) if mkvp is None else RegisterState(fill, mkvp)

    filled = RegisterState(Fill.PARTIAL) if partial else state(new, Fill.FULL)
    words = {"serial": "93AADFK7", "is_online": True, "created": "", **fields}
    return AdapterInfo(apqn, new=filled, current=state(current, Fill.VALID),
                       old=state(old, Fill.VALID), **words)  # fmt: skip


def test_nothing_is_said_where_all_is_well():
    found = cross_check([adapter(), adapter(SECOND)], [], DATA, A)
    assert found.lines == []


@pytest.mark.parametrize(
    ("adapters", "note"),
    [
        ([adapter(partial=True)], "only in part"),
        ([adapter(old=A)], "the OLD master key is the same as the CURRENT"),
        ([adapter(current=B, old=A)], "not re-enciphered yet"),
        ([adapter(current=B, new=A)], "not set yet"),
    ],
)
def test_what_may_be_for_a_while_is_a_note(adapters, note):
    found = cross_check(adapters, [], DATA, A)
    assert [note in text for text in found.notes] == [True]
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("adapters", "apqns", "warning"),
    [
        ([adapter()], [FIRST, SECOND], "04.0001: there is no such adapter"),
        ([adapter(), adapter(SECOND, is_online=False)], [FIRST, SECOND], "04.0001: is offline"),
        ([adapter(), adapter(SECOND, is_checkstopped=True)], [SECOND, FIRST], "is chkstop"),
        ([adapter(), adapter(SECOND, is_configured=False)], [SECOND, FIRST], "is deconfig"),
        ([adapter(), adapter(SECOND, is_control_only=True)], [SECOND, FIRST], "used elsewhere"),
        ([adapter(current=None)], [], "no master key is set"),
        ([adapter(current=B)], [], "another one than the key's"),
        ([adapter(), adapter(SECOND, current=B, old=A)], [], "different CURRENT master keys"),
        ([adapter(new=B), adapter(SECOND, new=C)], [], "different NEW master keys"),
        ([], [], "None of the adapters can be used"),
    ],
)
def test_what_should_not_be_is_a_warning(adapters, apqns, warning):
    found = cross_check(adapters, apqns, DATA, A)
    assert [warning in text for text in found.warnings] == [True], found


def test_an_old_card_cannot_use_every_key():
    old = [adapter(type="CEX5C")]
    assert cross_check(old, [], DATA, A).warnings == ()
    (text,) = cross_check(old, [], KeyType.CCA_AESCIPHER, A).warnings
    assert "CEX5C is too old" in text


def test_the_table_is_zkeys():
    found = cross_check([adapter(old=A, partial=True)], [], DATA, A)
    assert found.lines[-4:] == [
        "CARD.DOMAIN NEW MK           CURRENT MK       OLD MK           TYPE  ",
        "---------------------------------------------------------------------",
        "03.0039     partially loaded aaaaaaaaaaaaaaaa aaaaaaaaaaaaaaaa CEX8C ",
        "",
    ]
