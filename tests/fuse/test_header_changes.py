"""Headers changed while their volumes are open and written to."""

import hashlib
from pathlib import Path

import pytest

from tests.lab import cryptsetup
from tests.lab.writer import check, reader, writing

pytestmark = pytest.mark.fuse

HEADER = 2 << 20
SIZE = 8 << 20
LAYOUT = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "1m", "--offset", HEADER // 512)


@pytest.fixture
def keys(instance):
    return {name: instance.write_file(name, name.encode()) for name in ("p1", "p2", "p3")}


def make(instance, keys) -> Path:
    options = [str(word) for word in LAYOUT]
    return cryptsetup.luks_format(instance.directory / "image", keys["p1"], SIZE, *options)


def change(instance, *words):
    result = instance.cli(*words)
    assert result.status == 0, result
    return result


def test_every_change_is_made_under_writes_that_all_arrive(instance, keys):
    instance.start()
    image = make(instance, keys)
    change(instance, "open", "--key-file", keys["p1"], image, "volume")
    device = instance.device("volume")
    backup = instance.directory / "backup"
    quick = cryptsetup.QUICK_PBKDF
    with writing(device, []) as writer:
        writer.wait_acknowledged(5)
        for words in (
            ("luksHeaderBackup", image, "--header-backup-file", backup),
            ("luksAddKey", *quick, "-d", keys["p1"], image, keys["p2"]),
            ("luksChangeKey", *quick, "-d", keys["p1"], image, keys["p3"]),
            ("luksConvertKey", *quick, "--hash", "sha512", "-d", keys["p2"], image),
            ("config", image, "--label", "new", "--priority", "prefer", "-S", "1"),
            ("token", "add", image, "--key-description", "d"),
            ("luksRemoveKey", image, keys["p2"]),
            ("luksHeaderRestore", "-q", image, "--header-backup-file", backup),
            ("header", "restore", image, "1"),
            ("repair", image),
        ):
            change(instance, *words)
            writer.wait_acknowledged(1)
        writer.kill()
        writer.finish()
    check(reader(device), device.stat().st_size, writer.acknowledged)
    plaintext = device.read_bytes()
    change(instance, "close", "volume")
    refused = instance.run("open", "--key-file", keys["p1"], image, "volume")
    assert refused.status == 2, refused
    change(instance, "open", "--key-file", keys["p3"], image, "volume")
    assert device.read_bytes() == plaintext
    change(instance, "close", "volume")
    shown = hashlib.sha256(cryptsetup.decrypt(image, keys["p3"])).digest()
    assert shown == hashlib.sha256(plaintext).digest()


def test_an_open_volume_outlives_its_last_keyslot_and_comes_back(instance, keys):
    instance.start()
    image = make(instance, keys)
    change(instance, "open", "--key-file", keys["p1"], image, "volume")
    device = instance.device("volume")
    change(instance, "erase", "-q", image)
    assert instance.run("open", "--test-passphrase", "-d", keys["p1"], image).status == 1
    text = b"still here" * 1000
    with device.open("r+b") as file:
        file.write(text)
    assert device.read_bytes()[: len(text)] == text
    change(instance, "header", "restore", "-q", image, "1")
    change(instance, "close", "volume")
    change(instance, "open", "--key-file", keys["p1"], image, "volume")
    assert device.read_bytes()[: len(text)] == text


def test_an_open_volume_keeps_what_it_was_opened_with(instance, keys):
    """Its label and UUID in the tree are those of the moment of its opening."""
    instance.start()
    image = make(instance, keys)
    change(instance, "open", "--key-file", keys["p1"], image, "volume")
    before = instance.cli("--json", "status", "volume").json
    number = "01234567-89ab-cdef-0123-456789abcdef"
    change(instance, "luksUUID", "-q", "--uuid", number, image)
    assert instance.cli("--json", "status", "volume").json["uuid"] == before["uuid"]
    change(instance, "close", "volume")
    change(instance, "open", "--key-file", keys["p1"], image, "volume")
    assert instance.cli("--json", "status", "volume").json["uuid"] == number


def test_the_header_remembers_how_it_is_to_be_opened(instance, keys):
    instance.start()
    image = make(instance, keys)

    def flags():
        text = cryptsetup.cryptsetup("luksDump", image).decode()
        return next(line.split(None, 1)[1] for line in text.splitlines() if "Flags:" in line)

    opening = ("open", "--key-file", keys["p1"], image, "volume", "--persistent")
    change(instance, *opening, "--allow-discards", "--perf-no_read_workqueue")
    assert flags().split() == ["allow-discards", "no-read-workqueue"]
    change(instance, "close", "volume")
    change(instance, *opening, "--perf-same_cpu_crypt")
    assert flags().split() == ["same-cpu-crypt"]
    change(instance, "close", "volume")
    change(instance, *opening)
    assert flags() == "(no flags)"
    change(instance, "close", "volume")
    before = image.read_bytes()
    for more in (["--readonly"], ["--test-passphrase"]):
        assert instance.run(*opening, *more).status == 1
    assert instance.run("open", "-d", keys["p2"], image, "volume", "--persistent").status == 2
    assert image.read_bytes() == before
