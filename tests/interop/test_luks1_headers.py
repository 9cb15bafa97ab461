"""LUKS1 headers changed: the same words for us and for the real cryptsetup."""

import re
import shutil
import struct
from pathlib import Path

import pytest

from tests.lab.header_volume import Lab, Result

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

QUICK = ("--pbkdf-force-iterations", "1000")
SIZE = (2 << 20) + 4096
UUID = "01234567-89ab-cdef-0123-456789abcdef"
ENABLED = 0x00AC71F3
KEYS = ("p1", "p2", "p3", "bad")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """one: p1; two: p1, p2; full: p1 to p8, so that all keyslots are in use; luks2; nothing."""
    lab = Lab(tmp_path_factory.mktemp("luks1"))
    for name in KEYS:
        lab.key(name)
    one = lab.directory / "one"
    one.write_bytes(bytes(SIZE))
    lab.real_ok("luksFormat", "-q", "--type", "luks1", "-s", "256", *QUICK, one, lab.key("p1"))
    two, full = lab.directory / "two", lab.directory / "full"
    add = ("luksAddKey", *QUICK, "-d", lab.key("p1"))
    shutil.copyfile(one, two)
    lab.real_ok(*add, two, lab.key("p2"))
    shutil.copyfile(two, full)
    for number in range(3, 9):
        lab.real_ok(*add, full, lab.key(f"p{number}"))
    lab.image("luks2")
    (lab.directory / "nothing").write_bytes(bytes(SIZE))
    key = lab.directory / "vk"
    lab.real_ok("luksDump", "-q", "--dump-volume-key", "--volume-key-file", key,
                "-d", lab.key("p1"), one)  # fmt: skip
    return lab


def shape(lab: Lab, image: Path) -> str:
    """What the real tool says of a header, without what is random."""
    shown = lab.real("luksDump", image).out.replace(str(image), "")
    kept = [
        line
        for line in shown.splitlines()
        if not re.match(r"MK (digest|salt)|\s+Salt:|\s+([0-9a-f]{2} )+$", line)
    ]
    return "\n".join(kept)


def both(lab: Lab, base: str, line: str, stdin: bytes = b"") -> tuple[Path, Result, Result]:
    """Our copy of ``base`` after the words of ``line``, and what we and the real tool said."""
    copies, said = [], []
    for who, run in (("ours", lab.ours), ("theirs", lab.real)):
        copy = lab.directory / f"{base}-{who}"
        shutil.copyfile(lab.directory / base, copy)
        names = {"IMAGE": copy, "VK": lab.directory / "vk", **{k: lab.key(k) for k in KEYS}}
        words = [names.get(word, word) for word in line.split()]
        if words[0] in ("luksAddKey", "luksChangeKey", "luksConvertKey"):
            words += QUICK
        copies.append(copy)
        said.append(run(*words, stdin=stdin))
    assert said[0].code == said[1].code, (line, said)
    assert shape(lab, copies[0]) == shape(lab, copies[1]), (line, said)
    return copies[0], said[0], said[1]


def opening(lab: Lab, image: Path) -> str:
    """The key files that open it."""
    return " ".join(name for name in KEYS if lab.opens(image, name))


CHANGES = [
    ("one", "luksAddKey -d p1 IMAGE p2", b"", "p1 p2"),
    ("one", "luksAddKey -v IMAGE", b"p1\np2\n", "p1 p2"),
    ("one", "luksAddKey -d p1 --new-key-slot 7 IMAGE p2", b"", "p1 p2"),
    ("one", "luksAddKey -d p1 -S 3 IMAGE p2", b"", "p1 p2"),
    ("one", "luksAddKey --volume-key-file VK IMAGE p2", b"", "p1 p2"),
    ("two", "luksChangeKey -d p1 IMAGE p3", b"", "p2 p3"),
    ("two", "luksChangeKey -d p2 -S 1 IMAGE p3", b"", "p1 p3"),
    ("full", "luksChangeKey -d p1 IMAGE p3", b"", "p2 p3"),
    ("two", "luksRemoveKey IMAGE p2", b"", "p1"),
    ("two", "luksRemoveKey -v IMAGE", b"p1\n", "p2"),
    ("one", "luksRemoveKey IMAGE p1", b"", ""),
    ("two", "luksKillSlot IMAGE 0 -d p2", b"", "p2"),
    ("two", "luksKillSlot -q IMAGE 1", b"", "p1"),
    ("one", "luksKillSlot IMAGE 0 -d p1", b"", ""),
    ("full", "erase -q IMAGE", b"", ""),
    ("two", f"luksUUID -q IMAGE --uuid {UUID}", b"", "p1 p2"),
    ("two", "repair IMAGE", b"", "p1 p2"),
]


@pytest.mark.parametrize(("base", "line", "stdin", "opens"), CHANGES)
def test_a_header_is_changed_as_the_real_tool_does_it(
    lab: Lab, base: str, line: str, stdin: bytes, opens: str
) -> None:
    image, ours, theirs = both(lab, base, line, stdin)
    assert ours.code == 0, ours
    assert opening(lab, image) == opens
    if " -v " in line:
        assert theirs.out.splitlines()[-2] in ours.out
    before, after = (lab.directory / base).read_bytes(), image.read_bytes()
    assert after[2 << 20 :] == before[2 << 20 :]
    for number in range(8):
        # 208: the first keyslot; its key material is where it was, or gone
        at = 208 + 48 * number
        was, now = (struct.unpack_from(">II32sII", each, at) for each in (before, after))
        assert was[3:] == now[3:]
        area = slice(was[3] * 512, was[3] * 512 + 128000)
        if was == now and now[0] == ENABLED:
            assert before[area] == after[area]
        elif was != now:
            pairs = zip(before[area][::512], after[area][::512], strict=True)
            assert sum(x == y for x, y in pairs) < 10


REFUSALS = [
    ("one", "luksAddKey -d bad IMAGE p2", b""),
    ("one", "luksAddKey -d p1 -S 8 IMAGE p2", b""),
    ("one", "luksAddKey -d p1 -S 0 IMAGE p2", b""),
    ("one", "luksAddKey -d p1 --pbkdf argon2id IMAGE p2", b""),
    ("one", "luksAddKey -d p1 --unbound -s 256 IMAGE p2", b""),
    ("one", "luksAddKey -d p1 --keyslot-cipher aes-cbc-plain --keyslot-key-size 128 IMAGE p2", b""),
    ("one", "luksAddKey -d p1 --type luks2 IMAGE p2", b""),
    ("full", "luksAddKey -d p1 IMAGE p2", b""),
    ("one", "luksChangeKey -d bad IMAGE p2", b""),
    ("one", "luksChangeKey -d p1 -S 1 IMAGE p2", b""),
    ("one", "luksConvertKey -d p1 IMAGE", b""),
    ("one", "luksRemoveKey IMAGE bad", b""),
    ("two", "luksKillSlot IMAGE 1 -d p2", b""),
    ("one", "luksKillSlot IMAGE 3", b""),
    ("one", "luksKillSlot IMAGE 8", b""),
    ("one", "config IMAGE --label x", b""),
    ("one", "config IMAGE -S 0 --priority prefer", b""),
    ("one", "token add --key-description x IMAGE", b""),
    ("one", "luksUUID -q IMAGE --uuid 1234", b""),
]


@pytest.mark.parametrize(("base", "line", "stdin"), REFUSALS)
def test_what_the_real_tool_refuses_is_refused_with_its_exit_code(
    lab: Lab, base: str, line: str, stdin: bytes
) -> None:
    image, ours, _ = both(lab, base, line, stdin)
    assert ours.code != 0
    assert image.read_bytes() == (lab.directory / base).read_bytes()


@pytest.mark.parametrize(
    "line",
    ["luksAddKey -d p1 IMAGE p2", "luksChangeKey -d p1 IMAGE p2", "luksKillSlot -q IMAGE 0",
     "luksRemoveKey IMAGE p1", "erase -q IMAGE", f"luksUUID -q IMAGE --uuid {UUID}"],
)  # fmt: skip
def test_a_dry_run_writes_nothing(lab: Lab, line: str) -> None:
    image = lab.directory / "one"
    before = image.read_bytes()
    words = [{"IMAGE": image}.get(w, lab.key(w) if w in KEYS else w) for w in line.split()]
    words += QUICK if "Key " in line and "Remove" not in line else ()
    assert "nothing was written" in lab.ours_ok(*words, "--dry-run")
    assert image.read_bytes() == before


def test_one_hash_is_all_that_a_header_has(lab: Lab) -> None:
    done = lab.ours("luksAddKey", *QUICK, "--hash", "sha512", "-d", lab.key("p1"),
                    lab.directory / "one", lab.key("p2"))  # fmt: skip
    assert (done.code, "wanted: sha256" in done.err) == (1, True)


def test_a_backup_is_byte_for_byte_the_real_one_and_comes_back_either_way(lab: Lab) -> None:
    two = lab.directory / "two"
    ours, theirs = lab.directory / "ours.bak", lab.directory / "theirs.bak"
    lab.ours_ok("luksHeaderBackup", "--header-backup-file", ours, two)
    lab.real_ok("luksHeaderBackup", "--header-backup-file", theirs, two)
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.stat().st_mode & 0o777 == 0o400
    for restore in (lab.ours_ok, lab.real_ok):
        for base in ("nothing", "full", "two"):
            image = lab.directory / "restored"
            shutil.copyfile(lab.directory / base, image)
            restore("luksHeaderRestore", "-q", "--header-backup-file", ours, image)
            assert opening(lab, image) == "p1 p2", (restore, base)
            assert lab.real_ok("luksUUID", image) == lab.real_ok("luksUUID", two)


def test_a_header_is_put_back_beside_another(lab: Lab) -> None:
    """Of the same volume key: nothing is overwritten, keyslots that are in use go elsewhere."""
    image = lab.directory / "back"
    shutil.copyfile(lab.directory / "two", image)
    lab.ours_ok("luksChangeKey", *QUICK, "-S", "0", "-d", lab.key("p1"), image, lab.key("p3"))
    assert opening(lab, image) == "p2 p3"
    shown = lab.ours_ok("header", "history", image)
    assert "luksChangeKey" in shown
    assert "Key Slot 0" not in lab.ours_ok("header", "diff", image, "1")  # only salt and costs
    out = lab.ours_ok("header", "restore", "-q", "-v", image, "1")
    assert "Key slot 0 of the backup is key slot 2 now." in out
    assert opening(lab, image) == "p1 p2"
    lab.ours_ok("header", "forget", "-q", image)
    assert "EPOCH" not in lab.ours_ok("header", "history", image)


@pytest.mark.parametrize(("base", "other"), [("luks2", "two"), ("two", "luks2")])
def test_a_backup_of_the_other_type_is_refused(lab: Lab, base: str, other: str) -> None:
    backup = lab.directory / f"{other}.bak"
    lab.real_ok("luksHeaderBackup", "--header-backup-file", backup, lab.directory / other)
    image = lab.directory / "mixed"
    shutil.copyfile(lab.directory / base, image)
    done = lab.ours("luksHeaderRestore", "-q", "--header-backup-file", backup, image)
    assert (done.code, "wanted: the same type" in done.err) == (1, True)
    assert image.read_bytes() == (lab.directory / base).read_bytes()


def test_a_backup_that_does_not_fit_is_refused(lab: Lab) -> None:
    other = lab.directory / "wide"
    other.write_bytes(bytes(SIZE))
    lab.real_ok("luksFormat", "-q", "--type", "luks1", "-s", "512", *QUICK, other, lab.key("p1"))
    backup = lab.directory / "wide.bak"
    lab.real_ok("luksHeaderBackup", "--header-backup-file", backup, other)
    image = lab.directory / "unfit"
    shutil.copyfile(lab.directory / "two", image)
    for restore in (lab.ours, lab.real):
        assert restore("luksHeaderRestore", "-q", "--header-backup-file", backup, image).code == 1
    assert image.read_bytes() == (lab.directory / "two").read_bytes()


def number(at: int, value: int) -> tuple[int, bytes]:
    return at, struct.pack(">I", value)


DAMAGES = {
    "offset": [number(208 + 2 * 48 + 40, 4711)],
    "stripes": [number(208 + 3 * 48 + 44, 17)],
    "both": [number(208 + 2 * 48 + 40, 0), number(208 + 2 * 48 + 44, 0)],
    "all of it": [number(208 + n * 48 + 40, 8) for n in range(2, 8)],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_unused_keyslots_are_mended_as_the_real_tool_does(lab: Lab, name: str) -> None:
    base = lab.directory / "damaged"
    data = bytearray((lab.directory / "two").read_bytes())
    for at, patch in DAMAGES[name]:
        data[at : at + len(patch)] = patch
    base.write_bytes(data)
    image, ours, _ = both(lab, "damaged", "repair -q -v IMAGE")
    assert ours.code == 0
    assert image.read_bytes() == (lab.directory / "two").read_bytes()
    assert (lab.directory / "damaged-theirs").read_bytes() == image.read_bytes()


def test_a_keyslot_in_use_is_not_mended(lab: Lab) -> None:
    base = lab.directory / "damaged"
    data = bytearray((lab.directory / "two").read_bytes())
    data[208 + 48 + 40 : 208 + 48 + 44] = bytes(4)
    base.write_bytes(data)
    assert lab.ours("repair", "-q", base).code != 0
    assert lab.real("repair", "-q", base).code != 0
    assert base.read_bytes() == data


def test_a_keyslot_that_is_neither_on_nor_off_is_switched_off(lab: Lab) -> None:
    base = lab.directory / "damaged"
    data = bytearray((lab.directory / "two").read_bytes())
    data[208 + 5 * 48] = 0x55
    base.write_bytes(data)
    assert "keyslot 5: neither" in lab.ours_ok("repair", "-q", "-v", base)
    assert base.read_bytes() == (lab.directory / "two").read_bytes()
