"""Volume keys that are changed when the power goes: every state opens with every passphrase."""

import hashlib
import os
import shutil

import pytest

from fusecrypt.dmcrypt.backing import pread_of
from fusecrypt.dmcrypt.luks2 import digest, keyslot, read_header
from tests.lab.cryptsetup import QUICK_PBKDF, cryptsetup
from tests.lab.header_session import opens, running_engine
from tests.lab.write_log import MARKS, record
from tests.product import command, running
from tests.unit.keystore.samples import FIRST, master_key, put_adapter

pytestmark = MARKS

ONE, TWO, THREE = master_key(0), master_key(1), master_key(2)
SIZE = 4 << 20
#: Two keyslots of 512000 bytes, and room for four more.
LAYOUT = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "3072k", "--offset", "6208")
PASSPHRASES = ("a", "b")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with running(tmp_path_factory.mktemp("cuts")) as instance:
        put_adapter(instance.directory / "state/keystore", FIRST, current=ONE)
        instance.cli("zkey", "generate", "skey", "-x")
        image = instance.directory / "base"
        image.touch()
        os.truncate(image, SIZE)
        key = instance.write_file("a", b"a")
        cryptsetup("luksFormat", "-q", "--type", "luks2", *LAYOUT, *QUICK_PBKDF, "-c",
                   "paes-xts-plain64", "-s", "1024", "--volume-key-file",
                   instance.directory / "skey", "-d", key, image)  # fmt: skip
        cryptsetup("luksAddKey", "-q", *QUICK_PBKDF, "-d", key, image,
                   instance.write_file("b", b"b"))  # fmt: skip
        yield instance


@pytest.fixture(scope="module")
def judge():
    """Which keyslots of a state open with which passphrase, with a memory of what was tried."""
    with running_engine() as engine:
        known = {}

        def verdict(state):
            header = read_header(pread_of(state), len(state))
            found = set()
            for slot in header.metadata.keyslots:
                of = next(each for each in header.metadata.digests if slot.id in each.keyslots)
                specs = keyslot.make_spec(slot), digest.make_spec(of)
                extent = slot.area.extent
                material = hashlib.sha256(state[extent.offset : extent.end]).digest()
                for passphrase in PASSPHRASES:
                    case = (str(slot), material, passphrase)
                    if case not in known:
                        known[case] = opens(engine, state, passphrase, *specs)
                    if known[case]:
                        found.add((slot.id, passphrase))
            return header.root, found

        yield verdict


def check_all(place, judge, image, cases) -> None:
    """Run the commands one after the other; what is on the disk meanwhile is the old or the new."""
    files = ["-d", place.directory / "a", "-d", place.directory / "b"]
    for words, content, before, after in cases:
        put_adapter(place.directory / "state/keystore", FIRST, **content)
        place.cli("lszcrypt")  # the keystored runs, and is not traced
        run = [*command("fusecrypt"), "zkey-cryptsetup", *words, *files, image]
        log = record(image, list(map(str, run)), place.environment)
        assert not log.epochs[-1], "what was written last was not synced"
        states = list(log.states())
        old, new = judge(log.base), judge(states[-1][1])
        assert (old[1], new[1]) == (before, after)
        tried = 0
        for name, state in log.different_states():
            tried += 1
            assert judge(state) in (old, new), (words, name)
        assert tried > 5


BOTH = {(0, "a"), (1, "b")}


def test_every_state_of_a_staged_change_opens_with_every_passphrase(place, judge):
    image = place.directory / "image"
    shutil.copyfile(place.directory / "base", image)
    waiting = BOTH | {(2, "a"), (3, "b")}
    staged = ["reencipher", "--staged"]
    check_all(place, judge, image, (
        (staged, {"current": ONE, "new": TWO}, BOTH, waiting),
        ([*staged, "-q"], {"current": ONE, "new": THREE}, waiting, waiting),  # instead of the first
        (["reencipher", "--complete"], {"current": THREE, "old": ONE}, waiting, BOTH),
        (["reencipher", "--in-place", "--to-new"], {"current": THREE, "new": ONE}, BOTH, BOTH),
    ))  # fmt: skip


def test_every_state_while_a_key_is_set_opens_with_every_passphrase(place, judge):
    image = place.directory / "image"
    shutil.copyfile(place.directory / "base", image)
    put_adapter(place.directory / "state/keystore", FIRST, current=ONE, new=TWO)
    copy = place.directory / "copy"
    copy.unlink(missing_ok=True)
    place.cli("zkey", "reencipher", "--to-new", "--output", copy, "skey")
    check_all(place, judge, image, (
        (["setvp"], {"current": ONE}, BOTH, BOTH),
        (["setkey", "-m", copy], {"current": TWO}, BOTH, BOTH),  # ONE is lost
    ))  # fmt: skip


def test_every_state_while_a_clear_key_becomes_a_secure_one_opens(place, judge):
    image = place.directory / "image"
    image.unlink(missing_ok=True)
    image.touch()
    os.truncate(image, SIZE)
    clear, (one, two) = (
        place.write_file("clear", bytes(range(64))),
        (place.directory / n for n in "ab"),
    )
    cryptsetup("luksFormat", "-q", "--type", "luks2", *LAYOUT, *QUICK_PBKDF, "-c",
               "aes-xts-plain64", "-s", "512", "--volume-key-file", clear, "-d", one,
               image)  # fmt: skip
    cryptsetup("luksAddKey", "-q", *QUICK_PBKDF, "-d", one, image, two)
    put_adapter(place.directory / "state/keystore", FIRST, current=ONE)
    place.cli("zkey", "generate", "secure", "-x", "-c", clear)
    words = ["convert", "-q", "-m", place.directory / "secure"]
    check_all(place, judge, image, ((words, {"current": ONE}, BOTH, BOTH),))
