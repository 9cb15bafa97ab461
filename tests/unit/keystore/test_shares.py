"""A master key in shares: SLIP-39 by its published vectors, and what is altered is told."""

import itertools
import os
import re
import sys

import pytest

from fusecrypt.keystore import shares
from fusecrypt.keystore.errors import ConfigError, FormatError, UnsupportedError
from fusecrypt.keystore.shares import ShareFile, check_counts, combine, split
from fusecrypt.keystore.verification import make_mkvp
from tests.unit.keystore.samples import master_key

#: Of the vectors that are published with SLIP-0039 (python-shamir-mnemonic, vectors.json): 2 shares
#: of 3 of a secret of 256 bits, under the passphrase TREZOR.
VECTOR = (
    """humidity disease academic always aluminum jewelry energy woman receiver strategy amuse
    duckling lying evidence network walnut tactics forget hairy rebound impulse brother survive
    clothes stadium mailman rival ocean reward venture always armed unwrap""",
    """humidity disease academic agency actress jacket gross physics cylinder solution fake mortgage
    benefit public busy prepare sharp friar change work slow purchase ruler again tricycle involve
    viral wireless mixture anatomy desert cargo upgrade""",
)
VECTOR_SECRET = "c938b319067687e990e05e0da0ecce1278f75ff58d9853f19dcaeed5de104aae"


def parse(contents):
    return [ShareFile.parse(content, "test") for content in contents]


def test_the_published_vector_comes_out():
    import shamir_mnemonic

    words = [" ".join(mnemonic.split()) for mnemonic in VECTOR]
    assert shamir_mnemonic.combine_mnemonics(words, b"TREZOR").hex() == VECTOR_SECRET


@pytest.mark.parametrize(("threshold", "count"), [(2, 2), (2, 3), (3, 5), (8, 8)])
def test_any_threshold_of_the_shares_make_the_master_key(threshold, count):
    key = master_key(0)
    contents = split(key, threshold, count)
    assert key == master_key(0)  # the caller's to wipe
    assert len(set(contents)) == count
    for content in contents:
        assert b"MKVP: 491176b0f443c65a\n" in content
        assert bytes(key) not in content
        assert key.hex().encode() not in content
    files = parse(contents)
    for chosen in itertools.islice(itertools.combinations(files, threshold), 4):
        assert combine(chosen) == key
    assert combine(files) == combine(files[::-1]) == key  # more than are wanted: all are tried
    for few in (files[: threshold - 1], [files[0]] * threshold, []):
        with pytest.raises(FormatError):
            combine(few)


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (1, 3), (3, 2), (2, 9), (0, 0), (9, 9)])
def test_other_numbers_of_shares_are_refused(threshold, count):
    with pytest.raises(ConfigError, match="shares; wanted"):
        check_counts(threshold, count)
    with pytest.raises(ConfigError):
        split(master_key(0), threshold, count)


def test_shares_of_different_splits_do_not_go_together():
    first, second = parse(split(master_key(0), 2, 3)), parse(split(master_key(0), 2, 3))
    with pytest.raises(FormatError, match="do not belong together"):
        combine([first[0], second[1]])
    other = parse(split(master_key(1), 2, 3))
    with pytest.raises(FormatError, match="different master keys"):
        combine([first[0], other[1]])
    # A stranger's share among those that would do.
    with pytest.raises(FormatError, match="do not belong together"):
        combine([first[0], first[1], second[2]])


def test_an_altered_word_is_found_and_not_shown():
    contents = split(master_key(0), 2, 2)
    words = contents[1].split(b"\n")[-2].split()
    words[20] = b"academic" if words[20] != b"academic" else b"acid"
    lines = contents[1].split(b"\n")
    files = parse([contents[0], b"\n".join([*lines[:-2], b" ".join(words), b""])])
    with pytest.raises(FormatError, match="share 2: its words were altered") as refusal:
        combine(files)
    assert not {word.decode() for word in words} & set(re.findall("[a-z]+", str(refusal.value))) - {
        "share", "were",
    }  # fmt: skip


def test_a_master_key_other_than_the_file_tells_is_refused():
    contents = [
        content.replace(make_mkvp(master_key(0)).hex().encode(), b"00" * 8)
        for content in split(master_key(0), 2, 2)
    ]
    with pytest.raises(FormatError, match="another master key than they tell"):
        combine(parse(contents))


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 99, b"academic " * 33, b"fusecrypt master key share (SLIP-39)\n"]
)
def test_what_is_no_share_is_refused(content):
    with pytest.raises(FormatError, match="not a share"):
        ShareFile.parse(content, "test")


def test_without_the_package_it_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "shamir_mnemonic", None)
    with pytest.raises(UnsupportedError, match="package shamir-mnemonic"):
        split(master_key(0), 2, 3)
    with pytest.raises(UnsupportedError, match="package shamir-mnemonic"):
        combine([])


def test_random_master_keys_survive_it():
    for _ in range(3):
        key = bytearray(os.urandom(32))
        assert combine(parse(split(key, 2, 2))) == key
    assert shares.SHARES_MAX == 8  # what one message of the control socket carries
