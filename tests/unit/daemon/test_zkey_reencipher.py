"""Command lines of zkey when a master key changes, or a key's type does."""

import shutil

import pytest

from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_mkvp
from tests.product import running
from tests.unit.keystore.independent import unwrap
from tests.unit.keystore.samples import FIRST, REAL_XTS_KEY, master_key, put_adapter

CLEAR = bytes(range(64))
ONE, TWO, THREE = master_key(0), master_key(1), master_key(2)


@pytest.fixture(scope="module")
def running_place(tmp_path_factory):
    with running(tmp_path_factory.mktemp("zkey")) as instance:
        instance.write_file("clear", CLEAR)
        yield instance


@pytest.fixture
def place(running_place):
    """A repository with one key under the first master key."""
    shutil.rmtree(running_place.directory / "zkey", ignore_errors=True)
    registers(running_place, current=ONE)
    zkey(running_place, "gen", "-N", "k", "-x", "-c", "clear", "-l", "a.img:a")
    return running_place


def registers(place, **content):
    """What an administrator loads and sets."""
    put_adapter(place.directory / "state/keystore", FIRST, **content)


def zkey(place, *words, stdin=b""):
    return place.cli("zkey", *words, stdin=stdin)


def stored(place, suffix="skey"):
    return (place.directory / f"zkey/k.{suffix}").read_bytes()


def mkvp(token):
    return SecureKey(token).mkvp


def test_a_master_key_changes_in_two_steps(place):
    before = stored(place)
    registers(place, current=ONE, new=TWO)
    result = zkey(place, "reencipher")
    assert "Re-enciphering key 'k'\n" in result.stdout
    assert "1 keys re-enciphered, 0 keys skipped, 0 keys failed" in result.stdout
    assert "a.img:a" in result.stderr
    assert stored(place) == before
    assert unwrap(stored(place, "renc"), TWO) == CLEAR
    assert "(re-enciphering pending)" in zkey(place, "list").stdout
    early = place.run("zkey", "re", "--complete")
    assert early.status == 1, early
    assert "may yet have to be set" in early.stdout
    assert (stored(place), mkvp(stored(place, "renc"))) == (before, make_mkvp(TWO))

    registers(place, current=TWO, old=ONE)
    shown = zkey(place, "validate").stdout
    assert "OLD master key" in shown
    row = f"03.0039     -                {make_mkvp(TWO).hex()} {make_mkvp(ONE).hex()} CEX8C"
    assert row in shown
    assert "INFO: APQN 03.0039" not in zkey(place, "validate", "--no-apqn-check").stdout
    assert "Completing re-enciphering for key 'k'" in zkey(place, "re", "-p", "-N", "k*").stdout
    assert unwrap(stored(place), TWO) == CLEAR
    assert not (place.directory / "zkey/k.renc").exists()
    assert "Re-enciphered        : 20" in zkey(place, "validate").stdout
    again = zkey(place, "re", "--complete", "--json").json
    assert (again["skipped"], again["failed"]) == (1, 0)


def test_after_a_set_without_staging_the_old_register_helps(place):
    registers(place, current=TWO, old=ONE)
    zkey(place, "re", "-a", "3.39")  # a filter that no key fits: nothing is done
    assert mkvp(stored(place)) == make_mkvp(ONE)
    zkey(place, "reencipher")
    assert unwrap(stored(place), TWO) == CLEAR
    done = zkey(place, "re", "--from-old", "--json").json["keys"]
    assert [(key["outcome"], "already" in key["text"]) for key in done] == [("skipped", True)]


def test_two_changes_too_many_lose_nothing_that_a_copy_cannot_bring_back(place):
    registers(place, current=TWO, new=THREE)
    result = place.run("zkey", "reencipher")
    assert "0 keys re-enciphered, 1 keys skipped, 0 keys failed" in result.stdout
    assert mkvp(stored(place)) == make_mkvp(ONE)


def test_in_place_for_new_is_unusable_until_it_is_set(place):
    registers(place, current=ONE, new=TWO)
    zkey(place, "re", "--to-new", "--in-place")
    assert place.run("zkey", "validate").status == 1
    registers(place, current=TWO, old=ONE)
    zkey(place, "validate")
    assert unwrap(stored(place), TWO) == CLEAR


def test_both_steps_at_once(place):
    registers(place, current=TWO, old=ONE, new=THREE)
    zkey(place, "re", "-o", "-n")
    assert unwrap(stored(place, "renc"), THREE) == CLEAR


def test_from_old_may_be_staged(place):
    registers(place, current=TWO, old=ONE)
    zkey(place, "re", "-o", "-s")
    assert mkvp(stored(place)) == make_mkvp(ONE)
    zkey(place, "re", "-p")
    assert unwrap(stored(place), TWO) == CLEAR


def test_another_key_that_waits_is_not_completed(place):
    (place.directory / "zkey/k.renc").write_bytes(stored(place))
    place.write_file("other", bytes(range(1, 65)))
    zkey(place, "gen", "-N", "o", "-x", "-c", "other")
    (place.directory / "zkey/o.skey").rename(place.directory / "zkey/k.renc")
    (place.directory / "zkey/o.info").unlink()
    before = stored(place)
    result = place.run("zkey", "re", "--complete")
    assert result.status == 1, result
    assert "it is another key" in result.stdout
    assert stored(place) == before


def test_without_new_master_key_nothing_is_done(place):
    result = place.run("zkey", "reencipher")
    assert result.status == 1, result
    assert "1 keys failed" in result.stdout
    assert not (place.directory / "zkey/k.renc").exists()


def test_a_key_in_a_file(place):
    for name in ("file", "out"):
        (place.directory / name).unlink(missing_ok=True)
    zkey(place, "export", "-N", "k", "file")
    registers(place, current=ONE, new=TWO)
    zkey(place, "reencipher", "file", "-f", "out")
    assert unwrap((place.directory / "out").read_bytes(), TWO) == CLEAR
    link = place.directory / "link"
    link.unlink(missing_ok=True)
    link.symlink_to("file")
    (place.directory / "file").chmod(0o640)
    registers(place, current=TWO, old=ONE)
    zkey(place, "reencipher", "link")
    assert link.is_symlink()
    assert unwrap((place.directory / "file").read_bytes(), TWO) == CLEAR
    assert (place.directory / "file").stat().st_mode & 0o777 == 0o640
    result = place.run("zkey", "re", "--from-old", "file")
    assert (result.status, "CURRENT master key already" in result.stderr) == (1, True), result
    place.write_file("strange", REAL_XTS_KEY)
    assert place.run("zkey", "re", "strange").status == 6


@pytest.mark.parametrize(
    "words",
    [["-i", "-s"], ["-p", "-n"], ["-p", "-i"], ["file", "-s"], ["file", "-N", "k"], ["-f", "x"]],
)
def test_options_that_exclude_each_other(place, words):
    assert place.run("zkey", "reencipher", *words).status == 1


def test_a_key_becomes_one_of_another_type(place):
    words = ("con", "-K", "CCA-AESCIPHER", "-N", "k")
    assert place.run("zkey", *words, stdin=b"n\n").status == 2
    assert SecureKey(stored(place)).key_type is KeyType.CCA_AESDATA
    assert "setkey" in zkey(place, *words, stdin=b"y\n").stderr
    assert SecureKey(stored(place)).key_type is KeyType.CCA_AESCIPHER
    assert unwrap(stored(place), ONE) == CLEAR
    assert "Key type             : CCA-AESCIPHER" in zkey(place, "list").stdout
    assert "already" in zkey(place, *words).stderr
    (place.directory / "data").unlink(missing_ok=True)
    zkey(place, "gen", "-x", "-c", "clear", "data")
    zkey(place, "convert", "-F", "-K", "CCA-AESCIPHER", "data")
    assert (place.directory / "data").stat().st_size == 272
    assert place.run("zkey", "convert", "-F", "-K", "CCA-AESCIPHER", "data").status == 1
    assert place.run("zkey", "convert", "-N", "k", "-K", "EP11-AES").status == 9


def test_a_key_whose_change_is_pending_is_not_converted(place):
    registers(place, current=ONE, new=TWO)
    zkey(place, "re")
    assert place.run("zkey", "con", "-F", "-K", "CCA-AESCIPHER", "-N", "k").status == 5
    assert (place.directory / "zkey/k.renc").exists()


def test_without_an_adapter_nothing_is_tried(place, tmp_path):
    with running(tmp_path) as other:
        shutil.copytree(place.directory / "zkey", other.directory / "zkey")
        for words in (["re"], ["re", "-p"], ["validate"]):
            assert other.run("zkey", *words).status == 6, words
