"""Headers that people have and nobody plans: empty passphrases, hashes in capitals, 4 GiB."""

import os
import shutil
from pathlib import Path

import pytest

from fusecrypt.dmcrypt.luks2.key_change import NewKeyslot
from fusecrypt.dmcrypt.pbkdf import PbkdfParams
from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_session import header_session, running_engine
from tests.lab.header_volume import Lab

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

ARGON2 = ("--pbkdf-memory", "100", "--pbkdf-parallel", "3", "--pbkdf-force-iterations", "4")
PBKDF2 = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
FOUR_GIB = 4 << 20  # KiB


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    return lab


@pytest.mark.parametrize("kdf", ["argon2id", "argon2i", "pbkdf2"])
def test_an_empty_passphrase(lab: Lab, kdf: str) -> None:
    """As systemd-repart makes images, where it is given no key."""
    costs = PBKDF2 if kdf == "pbkdf2" else ("--pbkdf", kdf, *ARGON2)
    trial = ("open", "--test-passphrase", "--key-file", "empty")
    theirs = lab.image("theirs")
    lab.real_ok("luksAddKey", *costs, "--new-key-slot", 3, "-d", lab.key("p1"), theirs, "empty")
    lab.ours_ok(*trial, theirs)
    assert lab.ours(*trial, "-S", 0, theirs).code == 2
    ours = lab.directory / "ours"
    ours.touch()
    os.truncate(ours, 20 << 20)
    lab.ours_ok("luksFormat", "-q", *costs, ours, "empty")
    lab.real_ok(*trial, ours)
    lab.ours_ok("luksAddKey", *QUICK_PBKDF, "-d", "empty", ours, lab.key("p2"))
    assert lab.opens(ours, "p2")


@pytest.mark.parametrize("version", ["luks1", "luks2"])
def test_hashes_in_capitals(lab: Lab, version: str) -> None:
    """LUKS2 headers keep them; of LUKS1 the header is given them here."""
    words = ("luksFormat", "-q", "--type", version, *PBKDF2, "-h", "SHA512", "-d", lab.key("p1"))
    words += ("--sector-size", "512")
    theirs, ours = lab.directory / "theirs", lab.directory / "ours"
    for image in (theirs, ours):
        image.touch()
        os.truncate(image, 20 << 20)
    lab.real_ok(*words, theirs)
    lab.ours_ok(*words, ours)
    if version == "luks1":
        with theirs.open("r+b") as file:
            file.seek(72)
            file.write(b"SHA512")
    for image in (theirs, ours):
        assert lab.opens(image, "p1")
        lab.ours_ok("open", "--test-passphrase", "-d", lab.key("p1"), image)
    more = (*PBKDF2, "-h", "Sha512", "-d", lab.key("p1"), theirs, lab.key("p2"))
    lab.ours_ok("luksAddKey", *more)
    other = "luks2" if version == "luks1" else "luks1"
    lab.ours_ok("convert", "-q", "--type", other, theirs)
    assert lab.opens(theirs, "p1")
    assert lab.opens(theirs, "p2")


def available_kib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


@pytest.mark.skipif(available_kib() < 2 * FOUR_GIB, reason="less than 8 GiB of memory are free")
def test_argon2_with_the_most_memory_that_there_may_be(lab: Lab) -> None:
    image = lab.image()
    pbkdf = PbkdfParams(iterations=4, memory_kib=FOUR_GIB, parallel=4)
    # Neither tool gives anybody a single pass, but a header may say so: four would take too long.
    object.__setattr__(pbkdf, "iterations", 1)
    with running_engine() as engine, header_session(engine, image) as session:
        assert session.add("p1", "p2", NewKeyslot(pbkdf)) == 1
        assert engine.status().kdf_memory == 0
    kdf = lab.metadata(image)["keyslots"]["1"]["kdf"]
    assert (kdf["type"], kdf["memory"], kdf["time"], kdf["cpus"]) == ("argon2id", FOUR_GIB, 1, 4)
    assert lab.opens(image, "p2", 1)
    assert not lab.opens(image, "p3", 0)
