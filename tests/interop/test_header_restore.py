"""Headers saved, put back and mended, and the old ones that were kept."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_volume import LAYOUT, SIZE, Lab

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

HEADER = 2 * 16384 + (1 << 20)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def add(lab: Lab, image: Path, key: str) -> None:
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "-d", lab.key("p1"), image, lab.key(key))


def damage(image: Path, at: int) -> None:
    with image.open("r+b") as file:
        file.seek(at)
        file.write(b"damaged")


def test_a_backup_is_the_real_tools_byte_for_byte(lab: Lab) -> None:
    image = lab.image()
    ours, theirs = lab.directory / "ours", lab.directory / "theirs"
    lab.ours_ok("luksHeaderBackup", image, "--header-backup-file", ours)
    lab.real_ok("luksHeaderBackup", image, "--header-backup-file", theirs)
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.stat().st_mode & 0o777 == 0o400
    again = lab.ours("luksHeaderBackup", image, "--header-backup-file", ours)
    assert again.code == lab.real("luksHeaderBackup", image, "--header-backup-file", theirs).code
    assert lab.ours("luksHeaderBackup", image).code == lab.real("luksHeaderBackup", image).code


def test_a_damaged_header_is_saved_whole_and_mended_by_repair(lab: Lab) -> None:
    image = lab.image()
    damage(image, 4200)
    assert lab.ours("luksDump", image).err.count("fusecrypt repair mends it") == 1
    backup = lab.directory / "backup"
    before = image.read_bytes()
    lab.ours_ok("luksHeaderBackup", image, "--header-backup-file", backup)
    assert lab.ours_ok("luksDump", backup) == lab.ours_ok("luksDump", image)
    assert lab.ours("luksDump", backup).err == ""
    lab.ours_ok("repair", "--dry-run", image)
    assert image.read_bytes() == before
    assert "Mended: primary header is damaged" in lab.ours_ok("repair", "-v", image)
    assert lab.ours("luksDump", image).err == ""
    mended = image.read_bytes()
    assert mended[16384:] == before[16384:]
    assert "No known problems detected" in lab.ours_ok("repair", "-v", image)
    assert image.read_bytes() == mended
    assert lab.opens(image, "p1")


def test_where_no_copy_is_good_nothing_is_repaired(lab: Lab) -> None:
    image = lab.image()
    damage(image, 4200)
    damage(image, 16384 + 4200)
    before = image.read_bytes()
    assert lab.ours("repair", image).code == 7
    assert image.read_bytes() == before


def test_either_tool_restores_the_others_backup(lab: Lab) -> None:
    image, backup = lab.image(), lab.directory / "backup"
    add(lab, image, "p2")
    lab.real_ok("luksHeaderBackup", image, "--header-backup-file", backup)
    with_two = lab.metadata(image)
    lab.ours_ok("luksChangeKey", *QUICK_PBKDF, "-d", lab.key("p2"), image, lab.key("p3"))
    assert not lab.opens(image, "p2")
    data = image.read_bytes()[2 << 20 :]
    lab.ours_ok("luksHeaderRestore", image, "--header-backup-file", backup)
    assert [lab.opens(image, key) for key in ("p1", "p2", "p3")] == [True, True, False]
    assert image.read_bytes()[2 << 20 :] == data
    assert lab.metadata(image)["digests"] == with_two["digests"]
    # the epoch goes on, so that no older copy of the header counts
    epochs = [lab.ours_ok("luksDump", path).split("\n")[2].split()[1] for path in (image, backup)]
    assert int(epochs[0]) > int(epochs[1])
    ours = lab.directory / "ours"
    lab.ours_ok("luksHeaderBackup", image, "--header-backup-file", ours)
    lab.real_ok("luksRemoveKey", image, lab.key("p2"))
    lab.real_ok("luksHeaderRestore", "-q", image, "--header-backup-file", ours)
    assert lab.opens(image, "p2")


def test_material_that_is_replaced_is_gone_and_what_is_there_is_not_written(lab: Lab) -> None:
    image, backup = lab.image(), lab.directory / "backup"
    lab.real_ok("luksHeaderBackup", image, "--header-backup-file", backup)
    add(lab, image, "p2")
    area = lab.metadata(image)["keyslots"]["1"]["area"]
    at, size = int(area["offset"]), int(area["size"])
    before = image.read_bytes()
    lab.ours_ok("luksHeaderRestore", image, "--header-backup-file", backup)
    after = image.read_bytes()
    assert not any(before[i : i + 512] == after[i : i + 512] for i in range(at, at + size, 512))
    assert before[32768:at] == after[32768:at]
    assert lab.opens(image, "p1")


def test_where_there_is_no_room_old_areas_are_overwritten(lab: Lab) -> None:
    image, backup = lab.image(), lab.directory / "backup"
    for key in ("p2", "p3", "p4"):
        add(lab, image, key)
    lab.real_ok("luksHeaderBackup", image, "--header-backup-file", backup)
    lab.real_ok("luksChangeKey", "-q", "-S", "2", "--pbkdf-force-iterations", "1000",
                "--pbkdf", "pbkdf2", "-d", lab.key("p3"), image, lab.key("p5"))  # fmt: skip
    done = lab.ours("luksHeaderRestore", image, "--header-backup-file", backup)
    assert (done.code, "no room" in done.err) == (0, True)
    opening = [lab.opens(image, key) for key in ("p1", "p2", "p3", "p4", "p5")]
    assert opening == [True, True, True, True, False]


def test_a_header_that_is_lost_comes_back(lab: Lab) -> None:
    image, backup = lab.image(), lab.directory / "backup"
    lab.real_ok("luksHeaderBackup", image, "--header-backup-file", backup)
    whole = image.read_bytes()
    with image.open("r+b") as file:
        file.write(bytes(HEADER))
    lab.ours_ok("luksHeaderRestore", image, "--header-backup-file", backup, "--dry-run")
    assert not any(image.read_bytes()[:HEADER])
    lab.ours_ok("luksHeaderRestore", image, "--header-backup-file", backup)
    assert lab.opens(image, "p1")
    assert image.read_bytes()[32768:] == whole[32768:]
    detached = lab.directory / "detached"
    detached.touch()
    lab.ours_ok("luksHeaderRestore", "--header", detached, image, "--header-backup-file", backup)
    assert lab.opens(detached, "p1")


def test_what_does_not_fit_is_refused_as_by_the_real_tool(lab: Lab) -> None:
    image, backup = lab.image(), lab.directory / "backup"
    lab.real_ok("luksHeaderBackup", image, "--header-backup-file", backup)
    others = [
        lab.image("offset", "p1", *LAYOUT[:4], "--offset", "5120", size=SIZE),
        lab.image("sizes", "p1", "--luks2-metadata-size", "32k", "--luks2-keyslots-size", "1m",
                  "--offset", "4096"),
    ]  # fmt: skip
    for other in others:
        words = ("luksHeaderRestore", "-q", "--header-backup-file", backup, "IMAGE")
        copy, ours, _ = lab.both(other, *words)
        assert (ours.code, copy.read_bytes()) == (1, other.read_bytes())
    for words in (
        ("luksHeaderRestore", "-q", "--header-backup-file", lab.key("p1"), "IMAGE"),
        ("luksHeaderRestore", "-q", "IMAGE"),
    ):
        assert lab.both(image, *words)[1].code == 1


def test_each_change_keeps_the_old_header_and_it_can_be_had_back(lab: Lab) -> None:
    image = lab.image()
    assert json.loads(lab.ours_ok("header", "history", "--json", image))["headers"] == []
    lab.ours_ok("luksChangeKey", *QUICK_PBKDF, "-d", lab.key("p1"), image, lab.key("p2"))
    lab.ours_ok("config", image, "--label", "new")
    rows = lab.ours_ok("header", "history", image).splitlines()
    assert [row.split()[5] for row in rows[1:]] == ["config", "luksChangeKey"]
    listed = json.loads(lab.ours_ok("header", "history", "--json", image))
    paths = [Path(each["path"]) for each in listed["headers"]]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    assert all(path.parent.stat().st_mode & 0o777 == 0o700 for path in paths)
    assert lab.opens(paths[1], "p1")  # it is a header for the real tool
    assert "+Label:         \tnew" in lab.ours_ok("header", "diff", image)
    assert "p1" not in lab.ours_ok("header", "diff", image, 2)
    before = image.read_bytes()
    lab.ours_ok("header", "restore", image, 2, "--dry-run")
    assert image.read_bytes() == before
    lab.ours_ok("header", "restore", image, 2)
    assert (lab.opens(image, "p1"), lab.opens(image, "p2")) == (True, False)
    assert lab.ours("header", "restore", image, 9).code == 4
    assert lab.ours("header", "restore", image, "x").code == 1


def test_a_forgotten_header_is_overwritten(lab: Lab) -> None:
    image = lab.image()
    lab.ours_ok("config", image, "--label", "one")
    lab.ours_ok("config", image, "--label", "two")
    listed = json.loads(lab.ours_ok("header", "history", "--json", image))
    newest, oldest = (Path(each["path"]) for each in listed["headers"])
    link = lab.directory / "link"
    os.link(oldest, link)
    lab.ours_ok("header", "forget", image, 2, "--dry-run")
    assert oldest.exists()
    lab.ours_ok("header", "forget", image, 2)
    assert (oldest.exists(), newest.exists()) == (False, True)
    assert not any(link.read_bytes())
    lab.ours_ok("header", "forget", image)
    assert not newest.exists()


def test_where_the_header_is_lost_the_uuid_names_the_volume(lab: Lab) -> None:
    image = lab.image()
    uuid = lab.real_ok("luksUUID", image).strip()
    lab.ours_ok("config", image, "--label", "one")
    damage(image, 4200)
    damage(image, 16384 + 4200)
    refused = lab.ours("header", "restore", image, 1)
    assert (refused.code, "--uuid" in refused.err) == (7, True)
    lab.ours_ok("header", "restore", image, 1, "--uuid", uuid)
    assert lab.opens(image, "p1")


def test_without_room_for_the_backup_nothing_is_changed(lab: Lab) -> None:
    image = lab.image()
    before = image.read_bytes()
    (lab.directory / "state").touch()
    result = lab.ours("config", image, "--label", "one")
    assert (result.code, "without one no header is changed" in result.err) == (4, True)
    assert image.read_bytes() == before
