"""Chapters of a secure key's life as people run them: made, opened at boot, and another master key.

The real cryptsetup formats and adds passphrases; nothing here looks inside but by commands.
"""

import random
from pathlib import Path

import pytest

from tests.lab.cryptsetup import QUICK_PBKDF, cryptsetup, luks_format

pytestmark = pytest.mark.fuse

APQN, OTHER = "03.0039", "04.0007"
SIZE = 8 << 20
LAYOUT = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "5m", "--offset", "12288")
DATA = random.Random(7).randbytes(200_000)


@pytest.fixture
def place(instance):
    instance.cli("adapter", "create", APQN)
    return instance


def make_volume(place, name, *more: str) -> Path:
    """A key in the repository for an image, which the real cryptsetup formats; 2 passphrases."""
    image = place.directory / f"{name}.img"
    place.cli("zkey", "generate", "-N", name, "-x", "-l", f"{image}:{name}", *more)
    words = place.cli("zkey", "cryptsetup", "--format", "-l", image).stdout.splitlines()[0].split()
    key_file = words[words.index("--volume-key-file") + 1].strip("'")
    passphrase, second = (place.write_file(f"{name}-{n}", n.encode()) for n in ("one", "two"))
    luks_format(image, passphrase, SIZE, *LAYOUT, "--cipher", "paes-xts-plain64", "--key-size",
                words[words.index("--key-size") + 1], "--volume-key-file", key_file)  # fmt: skip
    cryptsetup("luksAddKey", "-q", *QUICK_PBKDF, "-d", passphrase, image, second)
    place.cli("zkey-cryptsetup", "setvp", image, "-d", second)
    return image


def write(place, name) -> None:
    with place.device(name).open("r+b") as device:
        device.write(DATA)


def read(place, name) -> bytes:
    with place.device(name).open("rb") as device:
        return device.read(len(DATA))


def make_used_volume(place, name, *more: str) -> Path:
    """Such a volume that has its data, and is closed; the daemon runs."""
    image = make_volume(place, name, *more)
    place.start()
    place.cli("open", image, name, "-d", place.directory / f"{name}-one")
    write(place, name)
    place.cli("close", name)
    return image


def change(place, *words, apqn=APQN) -> None:
    """One whole change of the master key."""
    place.cli("adapter", "master-key", "generate", apqn)
    place.cli("master-key", "stage", *words)
    place.cli("adapter", "master-key", "set", apqn)
    place.cli("master-key", "complete", *words)


def test_volumes_of_the_crypttab_outlive_master_keys_open_and_closed(place):
    luks, plain = make_volume(place, "luks"), place.write_file("plain.img", bytes(1 << 20))
    place.cli("zkey", "generate", "-N", "plain", "-x", "-t", "plain", "-l", f"{plain}:plain")
    lines = place.cli("zkey", "crypttab", "--key-file", place.directory / "luks-one").stdout
    place.start(*lines.splitlines())  # boot
    for name in ("luks", "plain"):
        write(place, name)
    second = ["-d", place.directory / "luks-two"]
    change(place, *second)  # while they are open
    assert read(place, "luks") == read(place, "plain") == DATA
    change(place, *second)  # twice, so that the first master key is gone everywhere
    for name in ("luks", "plain"):
        place.cli("close", name)
        place.cli("open", name)
        assert read(place, name) == DATA
    place.cli("close", "luks")
    place.cli("open", luks, "again", "-d", place.directory / "luks-two")
    assert read(place, "again") == DATA
    assert place.cli("zkey", "validate").stdout.endswith(
        "2 keys are valid, 0 keys are invalid, 0 warnings\n"
    )
    dump = cryptsetup("luksDump", luks).decode()
    assert "paes-verification-pattern" in dump
    assert "paes-reencipher" not in dump


def test_an_archived_volume_is_brought_back_with_the_repositorys_copy(place):
    image = make_used_volume(place, "archive", "-K", "CCA-AESCIPHER")
    away = image.rename(place.directory / "away.img")  # to the archive
    place.cli("zkey", "change", "-N", "archive", "-l", "")
    for _ in range(2):
        change(place)
    image = away
    lost = place.run("open", image, "archive", "-d", place.directory / "archive-one")
    assert lost.status == 6, lost
    assert (
        place.run("master-key", "plan", "-d", place.directory / "archive-one", image).status == 10
    )
    both = [word for n in ("one", "two") for word in ("-d", place.directory / f"archive-{n}")]
    copy = place.directory / "zkey/archive.skey"
    place.cli("zkey-cryptsetup", "setkey", "-m", copy, *both, image)
    place.cli("open", image, "archive", "-d", place.directory / "archive-two")
    assert read(place, "archive") == DATA


def test_an_adapter_is_replaced_by_one_with_another_master_key(place):
    image = make_used_volume(place, "disk")
    place.cli("adapter", "create", OTHER)
    place.cli("adapter", "master-key", "clone", APQN, OTHER)  # NEW: the other one's CURRENT
    both = [word for n in ("one", "two") for word in ("-d", place.directory / f"disk-{n}")]
    place.cli("master-key", "stage", *both)
    # Even before SET: the adapter that is to come has it.
    place.cli("master-key", "complete", *both)
    place.cli("adapter", "remove", "-q", APQN)
    place.cli("open", image, "disk", "-d", place.directory / "disk-two")
    assert read(place, "disk") == DATA


def test_an_adapter_is_replaced_by_one_with_the_same_master_key(place):
    image = make_used_volume(place, "disk")
    place.cli("adapter", "create", OTHER, "--no-master-key")
    place.cli("adapter", "master-key", "clone", OTHER, APQN)
    place.cli("adapter", "master-key", "set", OTHER)
    place.cli("adapter", "remove", "-q", APQN)
    place.cli("open", image, "disk", "-d", place.directory / "disk-two")
    assert read(place, "disk") == DATA
    plan = place.cli("master-key", "plan", "--json", "-d", place.directory / "disk-two").json
    assert {item["state"] for item in plan["items"]} == {"done"}


def test_a_clear_volume_gets_a_secure_key_and_keeps_its_data(place):
    image = place.directory / "clear.img"
    clear, passphrase = place.write_file("vk", bytes(range(64))), place.write_file("one", b"one")
    luks_format(image, passphrase, SIZE, *LAYOUT, "--volume-key-file", clear, "--key-size", "512")
    place.start()
    place.cli("open", image, "disk", "-d", passphrase)
    write(place, "disk")
    place.cli("zkey", "generate", "skey", "-x", "-c", clear)
    clear.unlink()
    # While it is open.
    place.cli("zkey-cryptsetup", "convert", "-q", "-m", "skey", "-d", passphrase, image)
    assert read(place, "disk") == DATA
    place.cli("close", "disk")
    place.cli("open", image, "disk", "-d", passphrase)
    assert read(place, "disk") == DATA
    status = place.cli("status", "disk").stdout
    assert "paes-xts-plain64" in status
