"""EP11 as administrators meet it: imprint mode, wrapping keys, keys, volumes, a change of all."""

import hashlib
import os
import platform
from dataclasses import replace

import pytest

from fusecrypt.keystore.adapter import Adapter, MasterKeys
from fusecrypt.keystore.coprocessor import PKEY_DRIVER, Apqn
from tests.lab import cryptsetup
from tests.product import running
from tests.unit.keystore.samples import put_adapter, store_of

UNAVAILABLE, UNSUPPORTED, WRONG, BUSY = 6, 9, 1, 5
APQN = "05.0011"


@pytest.fixture
def place(scratch):
    """Directories of an instance, without any daemon."""
    with running(scratch) as instance:
        yield instance


@pytest.fixture
def adapter(place):
    place.cli("adapter", "create", APQN, "--mode", "ep11")
    return place


def commit_new(place, command="set"):
    place.cli("adapter", "master-key", "commit", APQN)
    return place.cli("adapter", "master-key", command, APQN)


def test_an_adapter_gets_its_wrapping_key_from_two_people(place):
    created = place.cli("adapter", "create", APQN, "--mode", "ep11", "--no-master-key")
    assert "imprint mode" in created.stdout
    parts = [place.write_file(f"part{i}", os.urandom(32)) for i in range(2)]
    load = ("adapter", "master-key", "load", APQN)
    refused = place.run(*load, parts[0], "--part", "first")
    assert (refused.status, "leave-imprint" in refused.stderr) == (UNAVAILABLE, True)
    place.cli("adapter", "leave-imprint", APQN)
    place.cli(*load, parts[0], "--part", "first")
    loaded = place.cli(*load, parts[1], "--part", "last")
    key = bytes(a ^ b for a, b in zip(*(p.read_bytes() for p in parts), strict=True))
    wkvp = hashlib.sha256(b"\2" + key).hexdigest()[:32]
    assert f"NEW is uncommitted, MKVP {wkvp}." in loaded.stdout
    assert place.run("adapter", "master-key", "set", APQN).status == UNAVAILABLE
    assert commit_new(place).stdout == f"Adapter {APQN}: CURRENT {wkvp}.\n"
    assert place.cli("adapter", "master-key", "query", APQN).stdout.splitlines() == [
        "WK NEW:     empty       -",
        f"WK CURRENT: valid       0x{wkvp}",
    ]
    shown = place.cli("adapter", "show", APQN).stdout
    assert ("CEX8P, in software" in shown, "OLD" in shown) == (True, False)
    lines = [line.split() for line in place.cli("lszcrypt", "--ep11only").stdout.splitlines()]
    assert lines[-1] == [APQN, "CEX8P", "EP11-Coproc", "online", "0"]
    assert "EP11-AES secure keys" in place.cli("lszcrypt", "-c").stdout


def test_each_kind_of_adapter_is_checked_for_itself(adapter):
    adapter.cli("adapter", "create", "03.0039")
    assert adapter.cli("adapter", "check", "--json").json["proper"]
    adapter.cli("adapter", "create", "06.0000", "--mode", "ep11")
    check = adapter.run("adapter", "check")
    assert (check.status, "different CURRENT master keys" in check.stderr) == (WRONG, True)
    assert adapter.run("adapter", "check", APQN, "3.39").status == 0
    assert adapter.run("adapter", "check", APQN, "6.0").status == WRONG
    missing = adapter.run("adapter", "check", APQN, "7.0")
    assert "07.0000: there is no such adapter" in missing.stderr
    adapter.cli("adapter", "remove", "-q", "06.0000")
    adapter.cli("zkey", "generate", "key", "-x", "-K", "ep11-aes")
    adapter.cli("zkey", "generate", "other", "-x")  # its own kind of master key, no question asked


def test_keys_of_the_repository_follow_the_wrapping_key(adapter):
    adapter.cli("zkey", "generate", "-N", "k", "-x", "-K", "EP11-AES", "-l", "/dev/v:v")
    adapter.cli("zkey", "generate", "-N", "late", "-K", "EP11-AES")
    listed = adapter.cli("zkey", "list", "-N", "k").stdout
    assert "Key type             : EP11-AES" in listed
    assert "Secure key size      : 672 bytes" in listed
    assert "--key-size 5376" in adapter.cli("zkey", "cryptsetup", "-l", "/dev/v:v").stdout
    before = adapter.cli("zkey", "validate", "-N", "k", "--json").json
    adapter.cli("adapter", "master-key", "generate", APQN)
    early = adapter.run("zkey", "reencipher", "-N", "k", "--to-new")
    assert (early.status, "uncommitted" in early.stdout + early.stderr) == (1, True), early
    adapter.cli("adapter", "master-key", "commit", APQN)
    adapter.cli("zkey", "reencipher", "-N", "k", "--to-new")
    refused = adapter.run("adapter", "master-key", "set", "-q", APQN)
    assert refused.status == 1
    assert "under the CURRENT master key" in refused.stderr
    assert "key late; wanted" in refused.stderr
    said = adapter.cli("adapter", "master-key", "set", "--force", APQN).stderr
    assert "gone with this SET: key late" in said
    assert "cannot be told, and they may be lost: volume /dev/v;" in said
    assert "no more" in said
    adapter.cli("zkey", "reencipher", "-N", "k", "--complete")
    after = adapter.cli("zkey", "validate", "-N", "k", "--json").json
    assert str(before) != str(after)
    lost = adapter.run("zkey", "validate", "-N", "late")
    assert lost.status != 0


def test_a_volume_of_cryptsetup_follows_the_wrapping_key(adapter):
    key = adapter.directory / "key"
    adapter.cli("zkey", "generate", key, "-x", "-K", "EP11-AES")
    passphrase = adapter.write_file("passphrase", b"a passphrase")
    image = cryptsetup.luks_format(
        *(adapter.directory / "image", passphrase, 17 << 20, "--cipher", "paes-xts-plain64"),
        *("--volume-key-file", key, "--key-size", "5376", "--offset", "32768"),
    )
    tool = ("zkey-cryptsetup",)
    adapter.cli(*tool, "setvp", image, "--key-file", passphrase)
    adapter.cli("adapter", "master-key", "generate", APQN)
    adapter.cli("adapter", "master-key", "commit", APQN)
    adapter.cli(*tool, "reencipher", "--staged", "--to-new", image, "--key-file", passphrase)
    adapter.cli("adapter", "master-key", "set", APQN)
    gone = adapter.run(*tool, "validate", image, "--key-file", passphrase)
    assert gone.status != 0
    adapter.cli(*tool, "reencipher", "--complete", "-q", image, "--key-file", passphrase)
    shown = adapter.cli(*tool, "validate", image, "--key-file", passphrase).stdout
    assert "EP11-AES" in shown
    assert "CURRENT" in shown
    made = cryptsetup.volume_key(image, "--key-file", passphrase)
    assert (len(made), made != key.read_bytes()) == (672, True)


@pytest.mark.skipif(platform.machine() == "s390x", reason="here it may be")
def test_adapters_of_the_machine_are_ibm_zs(place):
    refused = place.run("adapter", "add", "03.0039")
    assert (refused.status, "for IBM Z (s390x)" in refused.stderr) == (UNSUPPORTED, True)
    assert place.cli("adapter", "list").stdout == ""
    # The state directory of such a machine, or a backup of it, may come here.
    directory = place.directory / "state" / "keystore"
    info = replace(put_adapter(directory, Apqn(3, 0x39)), is_online=True)
    store_of(directory).replace(Adapter(info, PKEY_DRIVER, MasterKeys()))
    shown = place.cli("adapter", "show", "03.0039").stdout
    assert "CEX8C, of the machine" in shown
    assert "deconfig" in shown
    row = place.cli("lszcrypt", "-V", "03.0039").stdout.splitlines()[-1].split()
    assert (row[3], row[-1]) == ("deconfig", "pkey")
    place.cli("adapter", "create", "04.0000")
    place.cli("zkey", "generate", "key", "-x")  # by the virtual one
    refused = place.run("adapter", "master-key", "generate", "03.0039")
    assert (refused.status, "Trusted Key Entry" in refused.stderr) == (UNSUPPORTED, True)
    place.cli("adapter", "remove", "03.0039")  # nobody is asked: there is nothing to lose


def test_a_change_of_all_keys_and_volumes_knows_that_there_is_no_old(adapter):
    """plan, stage, SET, complete; a NEW wrapping key that is not committed asks for nothing yet."""
    passphrase = adapter.write_file("passphrase", b"a passphrase")
    adapter.cli("zkey", "generate", "-N", "k", "-x", "-K", "EP11-AES")
    key = adapter.directory / "key"
    adapter.cli("zkey", "export", "-N", "k", key)
    image = cryptsetup.luks_format(
        *(adapter.directory / "image", passphrase, 17 << 20, "--cipher", "paes-xts-plain64"),
        *("--volume-key-file", key, "--key-size", "5376", "--offset", "32768"),
    )
    adapter.cli("zkey-cryptsetup", "setvp", image, "--key-file", passphrase)
    words = ("-d", passphrase, image)

    def plan():
        return {
            item["state"]
            for item in adapter.run("master-key", "plan", "--json", *words).json["items"]
        }

    adapter.cli("adapter", "master-key", "generate", APQN)
    assert plan() == {"done"}
    adapter.cli("adapter", "master-key", "commit", APQN)
    assert plan() == {"unstaged"}
    adapter.cli("master-key", "stage", *words)
    assert plan() == {"staged"}
    adapter.cli("adapter", "master-key", "set", APQN)
    assert plan() == {"ready"}
    adapter.cli("master-key", "complete", *words)
    assert plan() == {"done"}
    adapter.cli("zkey", "validate", "-N", "k")
    assert "CURRENT" in adapter.cli("zkey-cryptsetup", "validate", image, "-d", passphrase).stdout
    adapter.cli("adapter", "master-key", "generate", APQN)
    adapter.cli("adapter", "master-key", "commit", APQN)
    adapter.cli("adapter", "master-key", "set", "--force", APQN)
    assert plan() == {"lost"}


def test_a_key_of_an_ep11_session_is_listed_and_refused_by_name(adapter):
    adapter.cli("zkey", "generate", "key", "-K", "EP11-AES")
    path = adapter.directory / "key"
    token = bytearray(path.read_bytes())
    token[16:48] = os.urandom(32)
    path.write_bytes(token)
    refused = adapter.run("zkey", "validate", "key")
    assert refused.status == UNAVAILABLE
    assert f"bound to EP11 session {token[16:24].hex()}" in refused.stderr
