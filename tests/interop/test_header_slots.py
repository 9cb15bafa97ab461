"""Keyslots removed and settings changed: the same words for us and for the real cryptsetup."""

import shutil
from pathlib import Path

import pytest

from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_volume import Lab, Result

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """one: p1; two: p1, p2; unbound: p1, and p3 unbound; ignored: two, and 1 is ignored."""
    lab = Lab(tmp_path_factory.mktemp("slots"))
    one = lab.image("one")
    for name in ("two", "unbound"):
        shutil.copyfile(one, lab.directory / name)
    two, unbound = lab.directory / "two", lab.directory / "unbound"
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "-d", lab.key("p1"), two, lab.key("p2"))
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "--unbound", "-s", "256", unbound, lab.key("p3"))
    ignored = lab.directory / "ignored"
    shutil.copyfile(two, ignored)
    lab.real_ok("config", "--priority", "ignore", "-S", "1", ignored)
    lab.key("bad")
    return lab


def run(lab: Lab, base: str, line: str, stdin: bytes = b"") -> tuple[Path, Result, Result]:
    """A command line whose words ``p1`` and so on stand for key files."""
    names = {word: lab.directory / f"key-{word}" for word in ("p1", "p2", "p3", "bad")}
    words = [names.get(word, word) for word in line.split()]
    return lab.both(lab.directory / base, *words, stdin=stdin)


REMOVALS = [
    ("two", "luksRemoveKey IMAGE p2", b"", "p1"),
    ("two", "luksRemoveKey IMAGE -d p1", b"", "p2"),
    ("two", "luksRemoveKey IMAGE p1 -d p2", b"", "p1"),
    ("two", "luksRemoveKey -v IMAGE", b"p2\nmore", "p1"),
    ("one", "luksRemoveKey IMAGE p1", b"", ""),
    ("ignored", "luksKillSlot IMAGE 0 -d p2", b"", "p2"),
    ("two", "luksKillSlot IMAGE 1 -d p1", b"", "p1"),
    ("two", "luksKillSlot -v IMAGE 0", b"p2\n", "p2"),
    ("two", "luksKillSlot -q IMAGE 0", b"p2\n", "p2"),
    ("two", "luksKillSlot -q IMAGE 0", b"", "p2"),
    ("two", "luksKillSlot IMAGE 0", b"", "p2"),
    ("one", "luksKillSlot -q IMAGE 0", b"", ""),
    ("one", "luksKillSlot IMAGE 0 -d p1", b"", ""),
    ("unbound", "luksKillSlot IMAGE 1 -d p1", b"", "p1"),
    ("unbound", "luksKillSlot IMAGE 0 -d p1", b"", ""),
    ("unbound", "luksErase IMAGE", b"", ""),
    ("two", "erase -q -v IMAGE", b"", ""),
]


@pytest.mark.parametrize(("base", "line", "stdin", "left"), REMOVALS)
def test_a_keyslot_is_removed_as_the_real_tool_does_it(
    made: Lab, base: str, line: str, stdin: bytes, left: str
) -> None:
    image, ours, theirs = run(made, base, line, stdin)
    assert ours.code == 0, ours
    if "-v" in line:
        assert ours.out.splitlines()[:-2] == theirs.out.splitlines()[:-1]  # and where the backup is
    opening = {p for p in ("p1", "p2") if made.opens(image, p) or made.opens(image, p, 1)}
    assert opening == ({left} if left else set())
    before, after = (made.directory / base).read_bytes(), image.read_bytes()
    kept, had = (made.metadata(path)["keyslots"] for path in (image, made.directory / base))
    assert after[2 << 20 :] == before[2 << 20 :]
    for number, slot in had.items():
        at, size = int(slot["area"]["offset"]), int(slot["area"]["size"])
        is_same = [before[i : i + 512] == after[i : i + 512] for i in range(at, at + size, 512)]
        assert all(is_same) if number in kept else not any(is_same)


REFUSALS = [
    ("two", "luksRemoveKey IMAGE bad", b"", 2),
    ("two", "luksRemoveKey IMAGE", b"", 1),
    ("two", "luksRemoveKey -S 1 IMAGE p2", b"", 1),
    ("ignored", "luksRemoveKey IMAGE p2", b"", 2),
    ("two", "luksKillSlot IMAGE 1 -d p2", b"", 2),
    ("two", "luksKillSlot -q IMAGE 1 -d p2", b"", 2),
    ("two", "luksKillSlot -q IMAGE 1", b"bad\n", 2),
    ("one", "luksKillSlot IMAGE 0 -d bad", b"", 2),
    ("two", "luksKillSlot IMAGE 7 -d p1", b"", 1),
    ("two", "luksKillSlot IMAGE 77 -d p1", b"", 1),
    ("two", "luksKillSlot IMAGE -d p1", b"", 1),
    ("unbound", "luksKillSlot IMAGE 0 -d p3", b"", 2),
    ("unbound", "luksKillSlot IMAGE 1 -d p3", b"", 2),
    ("two", "config IMAGE", b"", 1),
    ("two", "config IMAGE --priority prefer", b"", 1),
    ("two", "config IMAGE --priority prefer -S 9", b"", 1),
    ("two", "config IMAGE --priority foo -S 1", b"", 1),
    ("two", "luksUUID IMAGE --uuid foo", b"", 1),
    ("two", "luksUUID IMAGE --uuid 01234567-89ab-cdef-0123-456789abcdeg -q", b"", 1),
]


@pytest.mark.parametrize(("base", "line", "stdin", "code"), REFUSALS)
def test_what_the_real_tool_refuses_is_refused_with_its_exit_code(
    made: Lab, base: str, line: str, stdin: bytes, code: int
) -> None:
    image, ours, _ = run(made, base, line, stdin)
    assert ours.code == code
    assert image.read_bytes() == (made.directory / base).read_bytes()


SETTINGS = [
    "config IMAGE --priority prefer -S 1",
    "luksConfig IMAGE --priority ignore --key-slot 0",
    "config IMAGE --label abc --subsystem d",
    "config IMAGE --label abc --priority ignore -S 0",
    "config IMAGE --subsystem=",
    "luksUUID IMAGE --uuid 01234567-89AB-CDEF-0123-456789abcdef",
]


@pytest.mark.parametrize("line", SETTINGS)
def test_settings_are_what_the_real_tool_makes_of_them(made: Lab, line: str) -> None:
    image, ours, _ = run(made, "two", line)
    assert ours.code == 0, ours
    one, other = (
        [row for row in made.real_ok("luksDump", path).splitlines() if "Epoch" not in row]
        for path in (image, image.with_name("two-theirs"))
    )
    assert one == other
    assert made.opens(image, "p2", 1)


def test_a_priority_is_normal_again_without_a_trace(lab: Lab) -> None:
    image = lab.image()
    before = lab.metadata(image)
    lab.ours_ok("config", image, "--priority", "prefer", "-S", 0)
    assert lab.metadata(image)["keyslots"]["0"]["priority"] == 2
    lab.ours_ok("config", image, "--priority", "normal", "-S", 0)
    assert "priority" not in before["keyslots"]["0"]
    assert lab.metadata(image)["keyslots"]["0"].get("priority", 1) == 1


def test_a_label_that_does_not_fit_is_refused_and_not_cut(lab: Lab) -> None:
    image = lab.image()
    before = image.read_bytes()
    result = lab.ours("config", image, "--label", "a" * 48)
    assert (result.code, "at most 47 bytes" in result.err) == (1, True)
    assert image.read_bytes() == before
    lab.ours_ok("config", image, "--label", "ä" * 23)
    assert f"Label:         \t{'ä' * 23}\n" in lab.real_ok("luksDump", image)


def test_the_last_keyslot_wants_a_passphrase_or_batch_mode(lab: Lab) -> None:
    """The real tool removes it where standard input is empty."""
    image = lab.image()
    before = image.read_bytes()
    result = lab.ours("luksKillSlot", image, 0)
    assert (result.code, "is the last one" in result.err) == (1, True)
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("luksRemoveKey IMAGE p2", "Key slot 1 would be removed"),
        ("luksKillSlot IMAGE 0 -d p2", "Key slot 0 would be removed"),
        ("erase IMAGE", "Key slot 1 would be removed"),
        ("config IMAGE --label new", "+Label:         \tnew"),
        ("luksUUID IMAGE --uuid 01234567-89ab-cdef-0123-456789abcdef", "+UUID:"),
    ],
)
def test_a_dry_run_shows_the_difference_and_writes_nothing(made: Lab, line: str, says: str) -> None:
    image = made.directory / "two"
    before = image.read_bytes()
    names = {"IMAGE": image, "p2": made.directory / "key-p2"}
    words = [names.get(word, word) for word in line.split()]
    out = made.ours_ok(*words, "--dry-run")
    assert says in out
    assert "nothing was written" in out
    assert image.read_bytes() == before
    wrong = [made.directory / "key-bad" if word == names["p2"] else word for word in words]
    assert wrong == words or made.ours(*wrong, "--dry-run").code == 2


TRIALS = [
    ("unbound", "-S 1 -d p3", 0),
    ("unbound", "--unbound -d p3", 0),
    ("unbound", "--unbound -d p1", 0),
    ("unbound", "--unbound -S 1 -d p1", 2),
    ("two", "-S 1 -d p2", 0),
    ("two", "-S 0 -d p2", 2),
    ("two", "-S 9 -d p2", 1),
    ("ignored", "-d p2", 2),
    ("ignored", "-S 1 -d p2", 0),
]


@pytest.mark.parametrize(("base", "line", "code"), TRIALS)
def test_a_passphrase_is_tried_on_the_keyslots_that_the_real_tool_tries(
    made: Lab, base: str, line: str, code: int
) -> None:
    assert run(made, base, f"open --test-passphrase IMAGE {line}")[1].code == code


def test_a_passphrase_is_tried_where_there_are_no_data(made: Lab, tmp_path: Path) -> None:
    """In a backup of a header, and whatever the data would be."""
    backup = tmp_path / "backup"
    made.real_ok("luksHeaderBackup", made.directory / "two", "--header-backup-file", backup)
    for key, code in (("p2", 0), ("bad", 2)):
        for run in (made.ours, made.real):
            words = ("open", "--test-passphrase", "-d", made.directory / f"key-{key}", backup)
            assert run(*words).code == code
