"""Backups of adapters: round trip, wrong passphrases, damage, and what is never overwritten."""

import hashlib
import json
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusecrypt.keystore import backup
from fusecrypt.keystore.backup import SIZE_MAX
from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.errors import BusyError, ConfigError, FormatError, MapperError, NoKeyError
from fusecrypt.keystore.json_object import pack_canonical
from fusecrypt.keystore.tokens import KeyType
from tests.unit.keystore.samples import FIRST, SECOND, master_key, put_adapter


def passphrase():
    return bytearray(b"correct horse")


@pytest.fixture
def elsewhere(tmp_path):
    return Coprocessors(tmp_path / "other machine")


@pytest.fixture
def data(coprocessors, directory):
    put_adapter(directory, FIRST, current=master_key(1), old=master_key(2))
    coprocessors.create(SECOND, with_master_key=False)
    return coprocessors.backup(passphrase())


def alter(data, change):
    """Change members, and make the checksum right again."""
    members = json.loads(data)
    change(members)
    members.pop("checksum", None)
    members["checksum"] = hashlib.sha256(pack_canonical(members)).hexdigest()
    return pack_canonical(members)


def test_what_was_backed_up_works_on_another_machine(coprocessors, elsewhere, data):
    key = coprocessors.generate(KeyType.CCA_AESCIPHER, 256, is_xts=True)
    assert elsewhere.restore(data, passphrase()) == [FIRST, SECOND]
    assert elsewhere.list_info() == coprocessors.list_info()
    assert elsewhere.validate(key) == coprocessors.validate(key)


def test_no_master_key_is_readable_in_a_backup(data):
    for first in (1, 2):
        assert bytes(master_key(first)) not in data
        assert master_key(first).hex().encode() not in data
    assert json.loads(data)["version"] == 3


def test_two_backups_share_neither_salt_nor_ciphertext(coprocessors, data):
    other = coprocessors.backup(passphrase())
    first, second = json.loads(data), json.loads(other)
    assert first["kdf"]["salt"] != second["kdf"]["salt"]
    assert first["master_keys"] != second["master_keys"]


def test_the_caller_s_passphrase_is_not_wiped(data, elsewhere):
    mine = passphrase()
    elsewhere.restore(data, mine)
    assert mine == passphrase()


def test_a_wrong_passphrase_is_told_as_such(elsewhere, data):
    for wrong in (b"wrong horse", b"", b"correct horse\n"):
        with pytest.raises(NoKeyError, match="passphrase"):
            elsewhere.restore(data, bytearray(wrong))
    assert elsewhere.list_info() == ()


def test_an_empty_passphrase_protects_nothing_and_is_refused(coprocessors):
    coprocessors.create(FIRST)
    with pytest.raises(ConfigError, match="empty"):
        coprocessors.backup(bytearray())


def test_where_the_same_master_keys_are_there_is_nothing_to_do(coprocessors, directory, data):
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert coprocessors.restore(data, passphrase()) == []
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_only_what_is_missing_is_restored(coprocessors, data):
    coprocessors.remove(FIRST)
    assert coprocessors.restore(data, passphrase()) == [FIRST]


@pytest.mark.parametrize(
    "registers", [{}, {"current": master_key(3)}, {"current": master_key(1)},
                  {"current": master_key(2), "old": master_key(1)}],
)  # fmt: skip
def test_other_master_keys_are_never_overwritten(elsewhere, tmp_path, data, registers):
    put_adapter(tmp_path / "other machine", SECOND)
    put_adapter(tmp_path / "other machine", FIRST, **registers)
    elsewhere.remove(SECOND)
    before = elsewhere.list_info()
    with pytest.raises(
        BusyError, match=r"adapter 03\.0039: exists with CURRENT.*adapter remove 03"
    ):
        elsewhere.restore(data, passphrase())
    assert elsewhere.list_info() == before


def test_a_restored_domain_takes_the_serial_number_of_its_card(elsewhere, data):
    serial = elsewhere.create(Apqn(3, 1)).serial
    elsewhere.restore(data, passphrase())
    assert {info.serial for info in elsewhere.list_info()} == {serial}


@pytest.mark.parametrize("position", range(0, 1200, 31))
def test_a_damaged_backup_is_told_from_a_wrong_passphrase(data, position):
    damaged = bytearray(data)
    damaged[position % (len(data) - 1)] ^= 1
    with pytest.raises(FormatError, match="backup"):
        backup.parse(bytes(damaged), passphrase())


def test_what_stands_in_the_clear_is_vouched_for(data):
    for change in (
        lambda m: m["adapters"][0].update(serial="AAAAAAAA"),
        lambda m: m["adapters"][0].update(online=False),
        lambda m: m["adapters"].reverse(),
        lambda m: m["adapters"].pop(),
        lambda m: m["kdf"].update(n=1 << 14),
    ):
        with pytest.raises((NoKeyError, FormatError)):
            backup.parse(alter(data, change), passphrase())


@pytest.mark.parametrize(
    "cost",
    [{"n": 1 << 24}, {"n": 1 << 24, "r": 64}, {"n": 1 << 19, "r": 8}, {"r": 64, "n": 1 << 16},
     {"p": 64}, {"p": 0}, {"r": 0}, {"n": 1}, {"n": 0}, {"n": 3}, {"n": 32769}, {"n": -1},
     {"n": 1 << 40}, {"n": 1e4}, {"n": True}, {"r": 1 << 30}, {"n": 1 << 17, "r": 1},
     {"type": "argon2id"}, {"salt": ""}, {"salt": "00" * 31}],
)  # fmt: skip
def test_a_hostile_backup_takes_neither_memory_nor_time(data, cost):
    hostile = alter(data, lambda m: m["kdf"].update(cost))
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(FormatError, match="backup"):
        backup.parse(hostile, passphrase())
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 1
    assert after.ru_maxrss - before.ru_maxrss < 64 << 10  # KiB


def test_a_backup_beyond_the_bound_is_refused_unread():
    with pytest.raises(FormatError, match="at most"):
        backup.parse(b" " * (SIZE_MAX + 1), passphrase())


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b"null", b"[" * 5000])
def test_what_is_no_backup_is_refused(content):
    with pytest.raises(FormatError, match="backup"):
        backup.parse(content, passphrase())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
NAMES = ["format", "version", "kdf", "cipher", "adapters", "master_keys", "checksum"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(NAMES), JSON)
def test_hostile_members_are_refused(name, value):
    members = {
        "format": "fusecrypt adapter backup",
        "version": 1,
        "kdf": {"type": "scrypt", "n": 2, "r": 1, "p": 1, "salt": "00" * 32},
        "cipher": {"type": "aes-256-gcm", "nonce": "00" * 12},
        "adapters": [],
        "master_keys": "",
    }
    members[name] = value
    with pytest.raises(MapperError):
        backup.parse(json.dumps(members).encode(), passphrase())


#: Made by the version before cards had states, of the master key 00..1f, passphrase "passphrase".
OF_VERSION_1 = (
    '{"adapters":[{"apqn":"03.0039","created":"2026-01-31T12:00:00Z","driver":"soft","mode":"cca",'
    '"online":true,"registers":{"current":{"mkvp":"491176b0f443c65a","state":"valid"},"new":'
    '{"mkvp":"","state":"empty"},"old":{"mkvp":"","state":"invalid"}},"serial":"93AADFK7","type":'
    '"CEX8C"}],"checksum":"f9977635c65c6c504f4f1ca89c36e600c31a6307fa58b33ff24fc0dfa0844731",'
    '"cipher":{"nonce":"0955af7bdf18c906f0ce0467","type":"aes-256-gcm"},"format":"fusecrypt adapter'
    ' backup","kdf":{"n":32768,"p":3,"r":8,"salt":"b8c83dd4a67410d1b90efe6d0f88d1e9b0dedfdc6ae8ce99'
    'b779a82cdc3ea800","type":"scrypt"},"master_keys":"dac4a869eb52ba1d488451b9398dcf760d817d3a7509'
    "3f07dd4b6e580979936b33e5cfebf8d768e6cb1a66ab50fe8e4efebdab8947bece87b968e6d93c087f42d34f1a3b03"
    '871d42b2f55a6c641b4d88145588bf881b1e639b86a96675ef68f781d0ceb9e744bd8d878f15314c9ac839",'
    '"version":1}\n'
)


def test_a_backup_of_an_earlier_version_is_restored(coprocessors):
    assert coprocessors.restore(OF_VERSION_1.encode(), bytearray(b"passphrase")) == [FIRST]
    (info,) = coprocessors.list_info()
    assert (info.serial, info.current.mkvp.hex()) == ("93AADFK7", "491176b0f443c65a")
    assert (info.is_configured, info.is_checkstopped, info.is_control_only) == (True, False, False)
