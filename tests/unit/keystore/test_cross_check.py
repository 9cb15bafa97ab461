"""What is said of adapters before keys are made or used with them."""

import pytest

from fusecrypt.keystore.adapters import Change
from fusecrypt.keystore.coprocessor import Apqn, Fill, RegisterState
from fusecrypt.keystore.cross_check import cross_check
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_mkvp
from tests.unit.keystore.samples import FIRST, SECOND, master_key, put_adapter

OTHER = Apqn(4, 0)
MKVPS = [make_mkvp(master_key(first)) for first in range(4)]


def said(coprocessors, *apqns, **options):
    findings, able = cross_check(coprocessors.list_info(), apqns, **options)
    texts = [("! " if finding.is_warning else "") + str(finding) for finding in findings]
    return texts, [str(adapter.apqn) for adapter in able]


def test_adapters_that_agree_are_proper(coprocessors, directory):
    for apqn in (FIRST, SECOND):
        put_adapter(directory, apqn, current=master_key(0), old=master_key(1))
    assert said(coprocessors) == ([], ["03.0039", "03.0040"])
    assert said(coprocessors, SECOND, mkvp=MKVPS[0]) == ([], ["03.0040"])


def test_different_master_keys_are_told(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(0), new=master_key(2))
    put_adapter(directory, SECOND, current=master_key(1), new=master_key(3))
    put_adapter(directory, OTHER)
    assert said(coprocessors)[0] == [
        "! 03.0039: others have another NEW master key",
        "! 03.0040: others have another NEW master key",
        "! 04.0000: no master key is set",
        "! the adapters do not have the same CURRENT master key",
    ]
    assert said(coprocessors, FIRST) == ([], ["03.0039"])


def test_what_cannot_be_used_is_told_if_it_was_named(coprocessors, directory):
    put_adapter(directory, FIRST, {"is_control_only": True}, current=master_key(0))
    put_adapter(directory, SECOND, {"type": "CEX5C"}, current=master_key(0))
    coprocessors.create(OTHER, "accel")
    missing = Apqn(9, 9)
    assert said(coprocessors, FIRST, SECOND, OTHER, missing, key_type=KeyType.CCA_AESCIPHER) == (
        [
            "! 09.0009: does not exist",
            "! 03.0039: the domain is administered here, not used",
            "! 03.0040: its card is a CEX5C, wanted a CEX6C or later for CCA-AESCIPHER",
            "! 04.0000: its card is a CEX8A, wanted one in CCA mode",
            "! none of the adapters can be used",
        ],
        [],
    )
    assert said(coprocessors) == ([], ["03.0040"])
    for change, word in ((Change.OFFLINE, "offline"), (Change.DECONFIGURE, "deconfig")):
        coprocessors.change([SECOND], change)
        assert f"! 03.0040: it is {word}" in said(coprocessors, SECOND)[0]
    assert said(coprocessors)[0] == ["! none of the adapters can be used"]


@pytest.mark.parametrize(
    ("registers", "wanted"),
    [
        ({"current": 0}, []),
        ({"current": 1, "old": 0}, ["the key is under the OLD master key: it is to be"]),
        ({"current": 1, "new": 0}, ["the key is under the NEW master key, which is not set"]),
        ({"current": 1}, ["! another master key than the CURRENT one"]),
        ({"current": 0, "old": 0}, ["OLD and CURRENT hold the same"]),
        ({"current": 0, "new": 0}, ["NEW and CURRENT hold the same"]),
        ({"current": 0, "new": 1, "old": 1}, ["NEW and OLD hold the same"]),
    ],
)
def test_a_keys_master_key_is_looked_for(coprocessors, directory, registers, wanted):
    keys = {name: master_key(first) for name, first in registers.items()}
    put_adapter(directory, FIRST, **keys)
    found = said(coprocessors, mkvp=MKVPS[0])[0]
    assert len(found) == len(wanted)
    for text, part in zip(found, wanted, strict=True):
        assert text.startswith("!") == part.startswith("!")
        assert part.removeprefix("! ") in text


def test_a_register_that_waits_for_parts_is_a_note(coprocessors, directory):
    put_adapter(
        directory, FIRST, {"new": RegisterState(Fill.PARTIAL)}, current=master_key(0)
    )  # fmt: skip
    assert said(coprocessors)[0] == ["03.0039: NEW waits for more parts of a master key"]
