"""Adapters as administrators meet them: master keys in parts, cards that fail, the listings."""

import hashlib
import os
import signal

import pytest

from tests.lab.swtpm import extend, find_missing, running_tpm
from tests.product import running, wait_for

UNAVAILABLE, WRONG, POLICY, MISSING, DAMAGED, NO_KEY, BUSY = 6, 1, 8, 4, 7, 2, 5


@pytest.fixture
def place(scratch):
    """Directories of an instance, without any daemon."""
    with running(scratch) as instance:
        yield instance


def test_a_master_key_is_changed_with_parts_of_three_people(place):
    parts = [os.urandom(32) for _ in range(3)]
    mkvp = hashlib.sha256(
        b"\1" + bytes(a ^ b ^ c for a, b, c in zip(*parts, strict=True))
    ).hexdigest()[:16]
    place.cli("adapter", "create", "3.39", "--card-type", "cex7")
    place.cli("zkey", "generate", "key", "-x")
    load = ("adapter", "master-key", "load")
    assert place.run(*load, "3.39", "missing", "--part", "first").status == MISSING
    short = place.write_file("short", bytes(31))
    assert place.run(*load, "3.39", short, "--part", "first").status == WRONG
    weak = place.write_file("weak", bytes(32))
    result = place.run(*load, "3.39", weak, "--part", "first")
    assert (result.status, "weak" in result.stderr) == (POLICY, True)
    assert place.run("adapter", "master-key", "set", "3.39").status == UNAVAILABLE

    place.cli(*load, "--part=first", "3.39", place.write_file("one", parts[0]))
    shown = place.cli("adapter", "master-key", "query", "3.39").stdout.splitlines()
    assert shown[0] == "AES NEW:     partial  -"
    place.cli(*load, "3.39", "-", "--part", "middle", stdin=parts[1])
    loaded = place.cli(*load, "3.39", place.write_file("two", parts[2]), "--part", "last")
    assert f"NEW is full, MKVP {mkvp}." in loaded.stdout

    # Another adapter with the same master key, then both change.
    place.cli("adapter", "create", "4.1", "--no-master-key")
    place.cli("adapter", "master-key", "clone", "4.1", "3.39", "--register", "new")
    for apqn in ("3.39", "4.1"):
        done = place.cli("adapter", "master-key", "set", apqn)
        assert ("re-encipher" in done.stderr) == (apqn == "3.39")
    states = place.cli("adapter", "master-key", "query", "4.1", "--json").json
    assert states["current"] == {"state": "valid", "mkvp": mkvp}
    assert states["new"]["state"] == "empty"
    assert "OLD master key" in place.cli("zkey", "validate", "key").stdout
    place.cli("adapter", "master-key", "generate", "3.39")
    lost = place.cli("adapter", "master-key", "set", "3.39").stderr
    assert "no more" in lost
    assert place.run("zkey", "validate", "key").status != 0
    said = (place.runtime_dir / "keystored.log").read_bytes()
    for part in parts:
        assert part not in said
        assert part.hex().encode() not in said
    assert b"NEW " + mkvp.encode() in said


def test_the_listings_tell_types_states_domains_and_requests(place):
    place.cli("adapter", "create", "03.0039", "--card-type", "CEX6")
    place.cli("adapter", "create", "03.0011", "--control-only")
    place.cli("adapter", "create", "0a.0011", "--mode", "accel", "--card-type", "CEX7")
    place.cli("zkey", "generate", "key")
    place.cli("zkey", "validate", "key")
    lines = place.cli("lszcrypt", "-V").stdout.splitlines()
    assert lines[0].split() == [
        "CARD.DOM", "TYPE", "MODE", "STATUS", "REQUESTS", "PENDING", "HWTYPE", "QDEPTH",
        "FUNCTIONS", "DRIVER",
    ]  # fmt: skip
    assert lines[1] == "-" * len(lines[0])
    assert [line.split()[:5] for line in lines[2:]] == [
        ["03", "CEX6C", "CCA-Coproc", "online", "2"],
        ["03.0011", "CEX6C", "CCA-Coproc", "online", "0"],
        ["03.0039", "CEX6C", "CCA-Coproc", "online", "2"],
        ["0a", "CEX7A", "Accelerator", "online", "0"],
        ["0a.0011", "CEX7A", "Accelerator", "online", "0"],
    ]
    assert [line.split()[6] for line in lines[2:]] == ["12", "12", "12", "13", "13"]
    grid = place.cli("lszcrypt", "-d").stdout.splitlines()
    assert grid[0].split() == ["DOMAIN", *(f"{i:02x}" for i in range(16))]
    rows = {line.split()[0]: line.split()[1:] for line in grid[2:18]}
    assert rows["10"] == [".", "B", *["."] * 14]  # administered here, and used as accelerator
    assert rows["30"] == [*["."] * 9, "B", *["."] * 6]
    assert all(set(cells) == {"."} for row, cells in rows.items() if row not in ("10", "30"))
    assert place.cli("lszcrypt", "--accelonly", "--json").json["adapters"][0]["apqn"] == "0a.0011"
    assert "CCA-AESCIPHER" in place.cli("lszcrypt", "-c", "03").stdout
    assert "ap_domain=0x11" in place.cli("lszcrypt", "-b").stdout
    assert "SERIALNR" in place.cli("lszcrypt", "-s").stdout


def test_a_card_that_fails_is_followed_by_another_and_comes_back(place):
    place.cli("adapter", "create", "03.0039")
    place.cli("adapter", "create", "04.0039", "--no-master-key")
    place.cli("adapter", "master-key", "clone", "4.39", "3.39")
    place.cli("adapter", "master-key", "set", "4.39")
    place.cli("zkey", "generate", "key", "-x")
    place.cli("adapter", "checkstop", "03")
    place.cli("zkey", "validate", "key")
    refused = place.run("chzcrypt", "-e", "3.39")
    assert (refused.status, "chkstop" in refused.stderr) == (UNAVAILABLE, True)
    assert "04.0039 is offline" in place.cli("chzcrypt", "-V", "-d", "04").stdout
    result = place.run("zkey", "validate", "key")
    assert result.status != 0
    assert "03.0039 is chkstop" in result.stderr
    place.cli("adapter", "recover", "03")
    place.cli("chzcrypt", "--config-off", "03")
    assert place.run("zkey", "validate", "key").status != 0
    place.cli("chzcrypt", "--config-on", "-a")
    place.cli("chzcrypt", "-e", "-a")
    assert place.cli("zkey", "validate", "key").status == 0
    assert place.run("chzcrypt", "-d", "05").status == MISSING


def test_the_use_of_keys_is_written_down_and_checked(place):
    place.cli("adapter", "create", "03.0039")
    place.cli("zkey", "generate", "key", "-x")
    place.cli("zkey", "validate", "key")
    found = place.cli("audit", "verify", "--json").json
    assert (found["entries"], found["first"], found["torn_bytes"]) == (3, 1, 0)
    head = f"{found['last']}:{found['head']}"
    end_keystored(place)
    place.cli("zkey", "validate", "key")
    entries = place.cli("audit", "show", "--json").json["entries"]
    assert [entry["method"] for entry in entries] == [
        "CreateAdapter", "GenerateKey", "ValidateKey", "ValidateKey"
    ]  # fmt: skip
    assert {entry["uid"] for entry in entries} == {os.getuid()}
    assert "ValidateKey" in place.cli("audit", "show").stdout
    assert "Lines 1 to 4 are whole" in place.cli("audit", "verify", "--head", head).stdout
    (path,) = (place.directory / "state/keystore").glob("audit.*.log")
    path.write_bytes(path.read_bytes() + b'{"torn')
    assert "crash" in place.cli("audit", "verify").stderr
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    assert place.cli("audit", "verify").status == 0
    assert place.run("audit", "verify", "--head", head).status == MISSING
    path.write_bytes(lines[0] + lines[2])
    result = place.run("audit", "verify")
    assert (result.status, "does not follow" in result.stderr) == (DAMAGED, True)
    path.write_bytes(lines[0] + b"{}\n" + lines[2])
    result = place.run("audit", "show")
    assert (result.status, f"{path}:2" in result.stderr) == (DAMAGED, True)
    shown = result.stdout.splitlines()[1:]
    assert ["CreateAdapter" in shown[0], "BAD: " in shown[1], "ValidateKey" in shown[2]] == [
        True
    ] * 3
    assert place.run("audit", "verify", place.directory / "nowhere").status == MISSING


def end_keystored(place):
    (pid,) = [pid for pid, words in place.pids().items() if "fusecrypt-keystored" in words]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in place.pids(), "killed")


def test_sealed_adapters_open_with_the_passphrase_and_not_without(place):
    place.cli("adapter", "create", "03.0039")
    warned = place.cli("adapter", "list")
    assert "whoever copies both" in warned.stderr
    place.cli("zkey", "generate", "key", "-x")
    state = place.directory / "state/keystore"
    host_key = (state / "host.key").read_bytes()
    secret, wrong = place.write_file("pw", b"a passphrase"), place.write_file("no", b"x")
    sealed = place.cli("adapter", "seal", "--with", "passphrase", "--key-file", secret)
    assert "sealed with passphrase." in sealed.stdout
    assert "whoever copies both" not in place.cli("adapter", "list").stderr
    assert not (state / "host.key").exists()
    content = b"".join(path.read_bytes() for path in state.iterdir())
    assert host_key not in content
    assert b"a passphrase" not in content
    end_keystored(place)
    refused = place.run("adapter", "list")
    assert (refused.status, "adapter unlock" in refused.stderr) == (UNAVAILABLE, True)
    assert place.cli("adapter", "seal", "--json").json == {
        "with": "passphrase", "locked": True, "plain_file": False
    }  # fmt: skip
    assert place.run("adapter", "unlock", "--key-file", wrong).status == NO_KEY
    place.cli("adapter", "unlock", stdin=b"a passphrase\n")
    place.cli("zkey", "validate", "key")
    place.cli("adapter", "lock")
    assert place.run("zkey", "validate", "key").status != 0
    assert place.run("adapter", "seal", "--with", "nothing").status == WRONG
    assert place.run("adapter", "seal", "--with", "host-key-file", "--pcrs", "7").status == WRONG
    said = (place.runtime_dir / "keystored.log").read_bytes()
    assert b"a passphrase" not in said


def test_adapters_sealed_by_the_tpm_open_with_it_only(place):
    if find_missing():
        pytest.skip(f"{find_missing()} is not installed")
    place.cli("adapter", "create", "03.0039")
    place.cli("zkey", "generate", "key", "-x")
    end_keystored(place)
    with running_tpm(place.directory / "tpm") as tcti:
        place.environment["TPM2TOOLS_TCTI"] = tcti
        place.cli("adapter", "seal", "--with", "tpm2", "--pcrs", "16")
        end_keystored(place)
        place.cli("zkey", "validate", "key")
        end_keystored(place)
        extend(tcti, 16)
        refused = place.run("adapter", "list")
    assert (refused.status, "TPM" in refused.stderr) == (UNAVAILABLE, True)
    refused = place.run("adapter", "list")
    assert (refused.status, "TPM" in refused.stderr) == (UNAVAILABLE, True)


def test_adapters_are_checked_against_each_other(place):
    assert place.run("adapter", "check").status == UNAVAILABLE
    place.cli("adapter", "create", "03.0039")
    assert place.cli("adapter", "check", "--json").json["proper"] is True
    place.cli("adapter", "create", "04.0039")
    place.cli("adapter", "master-key", "generate", "04.0039")
    result = place.run("adapter", "check")
    assert (result.status, "different CURRENT master keys" in result.stderr) == (WRONG, True)
    assert "CARD.DOMAIN NEW MK " in result.stdout
    assert place.run("adapter", "check", "04.0039").status == 0
    assert place.run("adapter", "check", "05.0000").status == WRONG


def test_a_lost_master_key_is_put_together_by_its_keepers(place):
    pytest.importorskip("shamir_mnemonic")
    made = place.cli("adapter", "create", "03.0039", "--json").json
    place.cli("zkey", "generate", "key", "-x")
    split = ("adapter", "master-key", "split", "--shares", "3", "--threshold")
    assert place.run(*split, "4", "3.39", place.directory).status == WRONG
    assert place.run(*split, "2", "4.39", place.directory).status == MISSING
    assert not list(place.directory.glob("*share*"))
    done = place.cli(*split, "2", "3.39", place.directory, "--json").json
    assert done["mkvp"] == made["current"]["mkvp"]
    files = done["files"]
    assert [os.stat(path).st_mode & 0o777 for path in files] == [0o600] * 3
    assert place.run(*split, "2", "3.39", place.directory).status == BUSY
    combine = ("adapter", "master-key", "combine")
    assert done["mkvp"] in place.cli(*combine, "--dry-run", *files).stdout
    assert place.run(*combine, "--dry-run", files[0]).status == DAMAGED

    place.cli("adapter", "remove", "-q", "03.0039")
    place.cli("adapter", "create", "04.0001", "--no-master-key")
    assert place.run("zkey", "validate", "key").status != 0
    loaded = place.cli(*combine, "4.1", files[2], files[0])
    assert f"NEW is full, MKVP {done['mkvp']}" in loaded.stdout
    place.cli("adapter", "master-key", "set", "4.1")
    place.cli("zkey", "validate", "key")
    with open(files[1], "rb") as file:
        words = file.read().split(b"\n")[-2].split()
    said = (place.runtime_dir / "keystored.log").read_bytes()
    said += b"".join(path.read_bytes() for path in (place.directory / "state").rglob("audit.*"))
    assert b" ".join(words[:4]) not in said
    assert b"3 shares, 2 wanted" in said


def test_adapters_sealed_by_a_credential_open_where_systemd_gives_it(place):
    credentials = place.directory / "credentials"
    credentials.mkdir()
    (credentials / "fusecrypt-keystore").write_bytes(os.urandom(32))
    (credentials / "fusecrypt-keystore").chmod(0o400)
    place.environment["CREDENTIALS_DIRECTORY"] = str(credentials)
    place.cli("adapter", "create", "03.0039")
    place.cli("zkey", "generate", "key", "-x")
    place.cli("adapter", "seal", "--with", "systemd-credential")
    end_keystored(place)
    place.cli("zkey", "validate", "key")
    end_keystored(place)
    del place.environment["CREDENTIALS_DIRECTORY"]
    refused = place.run("adapter", "list")
    assert (refused.status, "credential" in refused.stderr) == (UNAVAILABLE, True)
