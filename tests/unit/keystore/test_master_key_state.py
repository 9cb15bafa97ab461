"""Where a key is on its way to another master key, for every place of both keys."""

import pytest

from fusecrypt.keystore import cca
from fusecrypt.keystore.coprocessor import AdapterInfo, Fill, Register, RegisterState
from fusecrypt.keystore.errors import ConfigError
from fusecrypt.keystore.master_key_state import Registers, State
from fusecrypt.keystore.reencipher import Plan, Wish
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_mkvp
from tests.unit.keystore.samples import FIRST, clear_key, master_key

MASTERS = {name: master_key(i) for i, name in enumerate("abcd")}
KEYS = {
    name: cca.wrap_key(KeyType.CCA_AESDATA, clear_key(256, True), master, is_xts=True)
    for name, master in MASTERS.items()
}


def registers(new: str, current: str, old: str, *, is_online: bool = True) -> Registers:
    def state(name, fill):
        if name == "-":
            return RegisterState(Fill.EMPTY)
        return RegisterState(fill, make_mkvp(MASTERS[name]))

    info = AdapterInfo(FIRST, "93AADFK7", is_online, state(new, Fill.FULL),
                       state(current, Fill.VALID), state(old, Fill.VALID), "")  # fmt: skip
    return Registers([info])


@pytest.mark.parametrize(
    ("holds", "key", "waits", "state"),
    [
        ("-a-", "a", None, State.DONE),
        ("ba-", "a", None, State.UNSTAGED),
        ("ba-", "a", "b", State.STAGED),
        ("-ba", "a", "b", State.READY),
        ("-ba", "a", None, State.UNSTAGED),
        ("-ba", "b", None, State.DONE),
        ("-cb", "a", "b", State.READY),  # two SETs: what waits is all there is
        ("-cb", "b", "b", State.UNSTAGED),
        ("-cb", "a", None, State.LOST),
        ("-cb", "a", "d", State.LOST),
        ("cba", "a", "b", State.READY),
        ("cba", "b", "a", State.UNSTAGED),  # what waits is older
        ("ba-", "b", None, State.STAGED),  # in place
        ("ca-", "a", "b", State.UNSTAGED),  # staged for a master key that was cleared
        ("-a-", "a", "b", State.DONE),
    ],
)
def test_states(holds, key, waits, state):
    pending = None if waits is None else KEYS[waits]
    assert registers(*holds).classify(KEYS[key], pending).state is state


def test_offline_adapters_do_not_count():
    away = registers("b", "a", "-", is_online=False)
    assert away.is_empty
    assert away.classify(KEYS["a"], None).state is State.LOST


@pytest.mark.parametrize(
    ("holds", "key", "waits", "is_left"),
    [
        ("cba", "a", None, False),  # OLD is gone
        ("cba", "a", "c", True),
        ("cba", "b", None, True),
        ("cba", "a", "b", True),
        ("cab", "d", "b", False),  # what waits is under OLD itself
    ],
)
def test_what_the_next_set_leaves(holds, key, waits, is_left):
    before = registers(*holds)
    finding = before.classify(KEYS[key], None if waits is None else KEYS[waits])
    assert before.has_any(finding.mkvps)
    assert before.set_new(FIRST).has_any(finding.mkvps) is is_left


def test_what_is_unstaged_tells_where_it_can_go():
    assert registers("-", "b", "a").classify(KEYS["a"], None).target is Register.CURRENT
    assert registers("c", "b", "a").classify(KEYS["a"], None).target is Register.NEW
    assert registers("-", "b", "a").classify(KEYS["b"], None).target is None


def test_the_target_is_new_where_one_is_loaded():
    assert registers("b", "a", "-").choose_target(KEYS["a"]) is Register.NEW
    assert registers("-", "b", "a").choose_target(KEYS["a"]) is Register.CURRENT


@pytest.mark.parametrize(
    ("wish", "register", "plan"),
    [
        (Wish(), Register.CURRENT, Plan(Register.NEW, True)),
        (Wish(), Register.OLD, Plan(Register.CURRENT, False)),
        (Wish(staged=True), Register.OLD, Plan(Register.CURRENT, True)),
        (Wish(in_place=True), Register.CURRENT, Plan(Register.NEW, False)),
        (Wish(to_new=True), Register.OLD, Plan(Register.NEW, True)),
        (Wish(from_old=True), Register.OLD, Plan(Register.CURRENT, False)),
        (Wish(from_old=True, to_new=True), Register.CURRENT, Plan(Register.NEW, True)),
    ],
)
def test_what_is_done_with_one_key(wish, register, plan):
    assert wish.plan(register) == plan


def test_what_cannot_be_wished_for():
    with pytest.raises(ConfigError, match="one of them"):
        Wish(in_place=True, staged=True)
    with pytest.raises(ConfigError, match="CURRENT master key already"):
        Wish(from_old=True).plan(Register.CURRENT)
