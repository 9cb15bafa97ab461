"""What is asked at a terminal, in which order, and what follows from the answer."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_volume import PROGRAM, Lab
from tests.lab.terminal import Dialog, talk

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """``one``: p1; ``two``: p1 and p2; ``backup`` of two."""
    lab = Lab(tmp_path_factory.mktemp("prompts"))
    one = lab.image("one")
    two = lab.directory / "two"
    shutil.copyfile(one, two)
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "-d", lab.key("p1"), two, lab.key("p2"))
    lab.real_ok("luksHeaderBackup", two, "--header-backup-file", lab.directory / "backup")
    lab.key("p3")
    yield lab
    lab.end()  # of `open`


def both(lab: Lab, base: str, line: str, answers: tuple[str, ...]) -> tuple[Dialog, Path]:
    """The same dialog with both; ours, and the image that we leave."""
    said, left = [], []
    for who, command in (
        ("theirs", ["cryptsetup"]),
        ("ours", [sys.executable, "-c", PROGRAM]),
    ):
        image = lab.directory / f"{base}-{who}"
        shutil.copyfile(lab.directory / base, image)
        names = {"IMAGE": image, "BACKUP": lab.directory / "backup"}
        names |= {p: lab.directory / f"key-{p}" for p in ("p1", "p2", "p3")}
        words = [str(names.get(word, word)) for word in line.split()]
        at = words.index("PBKDF") if "PBKDF" in words else len(words)
        words[at : at + 1] = [*QUICK_PBKDF, "--force-password"] if at < len(words) else []
        said.append(talk([*command, *words], answers, lab.environment))
        left.append({n: lab.opens(image, p, n) for n, p in ((0, "p1"), (1, "p2"), (1, "p3"))})
    theirs, ours = said
    assert ours.code == theirs.code, (ours, theirs)
    assert _shown(ours.questions) == _shown(theirs.questions)
    assert left[0] == left[1]
    return ours, image


def _shown(questions: list[str]) -> list[str]:
    """Without the names of the two copies."""
    return [question.replace("-ours", "").replace("-theirs", "") for question in questions]


PLAIN = "open --type plain -c aes-xts-plain64 -s 512 -h sha256"

DIALOGS = [
    ("two", f"{PLAIN} IMAGE name", ("no",), 1),
    ("two", "luksAddKey PBKDF IMAGE", ("p1", "p3", "p3"), 0),
    ("two", "luksAddKey -q PBKDF IMAGE", ("p1", "p3"), 0),
    ("two", "luksAddKey PBKDF IMAGE p3", ("p1",), 0),
    ("two", "luksAddKey PBKDF -d p1 IMAGE", ("p3", "other"), 2),
    ("two", "luksChangeKey PBKDF -S 1 IMAGE", ("p2", "p3", "p3"), 0),
    ("two", "luksConvertKey PBKDF IMAGE", ("p2",), 0),
    ("two", "luksRemoveKey IMAGE", ("p2",), 0),
    ("one", "luksRemoveKey IMAGE", ("p1", "YES"), 0),
    ("one", "luksRemoveKey IMAGE", ("p1", "no"), 2),
    ("one", "luksRemoveKey -q IMAGE", ("p1",), 0),
    ("two", "luksKillSlot IMAGE 1", ("p1",), 0),
    ("two", "luksKillSlot -q IMAGE 1", (), 0),
    ("one", "luksKillSlot IMAGE 0", ("YES", "p1"), 0),
    ("one", "luksKillSlot IMAGE 0", ("yes",), 2),
    ("one", "luksKillSlot -q IMAGE 0", (), 0),
    ("two", "erase IMAGE", ("YES",), 0),
    ("two", "erase IMAGE", ("y",), 2),
    ("two", "erase -q IMAGE", (), 0),
    ("one", "luksHeaderRestore --header-backup-file BACKUP IMAGE", ("YES",), 0),
    ("one", "luksHeaderRestore --header-backup-file BACKUP IMAGE", ("no",), 1),
    ("two", "luksDump --dump-volume-key IMAGE", ("YES", "p1"), 0),
    ("two", "luksDump --dump-volume-key IMAGE", ("NO",), 2),
    ("two", "luksDump -q --dump-volume-key IMAGE", ("p1",), 0),
]


@pytest.mark.parametrize(("base", "line", "answers", "code"), DIALOGS)
def test_the_same_is_asked_and_follows_from_the_answers(
    made: Lab, base: str, line: str, answers: tuple[str, ...], code: int
) -> None:
    ours, image = both(made, base, line, answers)
    assert ours.code == code, ours
    if code:
        assert image.read_bytes() == (made.directory / base).read_bytes()


def test_a_uuid_is_changed_after_a_question(made: Lab) -> None:
    number = "01234567-89ab-cdef-0123-456789abcdef"
    for answer, wanted in (("NO", False), ("YES", True)):
        ours, image = both(made, "one", f"luksUUID IMAGE --uuid {number}", (answer,))
        assert (ours.code == 0) == wanted
        assert (made.real_ok("luksUUID", image).strip() == number) == wanted


def test_a_forgotten_header_is_asked_about(made: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    shutil.copyfile(made.directory / "one", image)
    made.ours_ok("config", image, "--label", "x")
    words = [sys.executable, "-c", PROGRAM, "header", "forget", image]
    assert talk(words, ["NO"], made.environment).code == 2
    assert made.ours_ok("header", "history", image).count(".luks2") > 0
    assert talk(words, ["YES"], made.environment).code == 0
    assert made.ours_ok("header", "history", image) == ""


@pytest.mark.parametrize(
    ("more", "is_said"), [("", True), ("-r", True), ("-q", False), ("--offset 8", False)]
)
def test_whoever_opens_a_luks_volume_as_plain_is_warned(
    made: Lab, more: str, is_said: bool
) -> None:
    words = (*PLAIN.split(), *more.split(), made.directory / "one", "name")
    for result in (made.ours(*words), made.real(*words)):
        assert result.code == 1  # there is no passphrase
        assert ("already contains a 'crypto_LUKS" in result.out + result.err) == is_said
