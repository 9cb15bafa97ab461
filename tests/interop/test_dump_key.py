"""luksDump --dump-volume-key and --unbound, beside the real tool."""

import shutil
from pathlib import Path

import pytest

from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_volume import Lab

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """``two``: LUKS2 with p1, and p3 unbound; ``one``: LUKS1; ``cbc``: another cipher."""
    lab = Lab(tmp_path_factory.mktemp("dump"))
    two = lab.image("two")
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "--unbound", "-s", "200", two, lab.key("p3"))
    lab.image("cbc", "p1", "-c", "aes-cbc-essiv:sha256", "-s", "192")
    one = lab.directory / "one"
    one.write_bytes(bytes(3 << 20))
    lab.real_ok("luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000",
                "-d", lab.key("p1"), one)  # fmt: skip
    lab.key("bad")
    return lab


CASES = [
    ("two", "--dump-volume-key -d key-p1", 0),
    ("two", "--dump-master-key -q -d key-p1", 0),
    ("cbc", "--dump-volume-key -d key-p1", 0),
    ("one", "--dump-volume-key -d key-p1", 0),
    ("cbc", "--dump-volume-key -d key-bad", 2),
    ("two", "--dump-volume-key -S 0 -d key-p1", 0),
    ("two", "--dump-volume-key -S 1 -d key-p3", 1),
    ("two", "--unbound -S 1 -d key-p3", 0),
    ("two", "--unbound -S 1 -d key-p1", 2),
    ("two", "--unbound -S 0 -d key-p1", 1),
    ("two", "--unbound -S 9 -d key-p1", 1),
    ("two", "--unbound -d key-p3", 1),
]


@pytest.mark.parametrize(("base", "line", "code"), CASES)
def test_the_key_is_printed_as_the_real_tool_prints_it(
    made: Lab, base: str, line: str, code: int
) -> None:
    ours = made.ours("luksDump", base, *line.split())
    theirs = made.real("luksDump", base, *line.split())
    assert (ours.code, ours.out) == (code, theirs.out), ours
    assert theirs.code == code
    assert bool(ours.out) == (code == 0)


@pytest.mark.parametrize(("base", "line"), [("two", "--dump-volume-key -d key-p1"),
                                            ("two", "--unbound -S 1 -d key-p3")])  # fmt: skip
def test_the_key_goes_to_a_file_of_its_own(made: Lab, tmp_path: Path, base: str, line: str) -> None:
    out = {}
    for who, run in (("ours", made.ours), ("theirs", made.real)):
        words = ("luksDump", "-q", base, *line.split(), "--volume-key-file", "vk")
        out[who] = run(*words)
        assert out[who].code == 0
        file = made.directory / "vk"
        assert file.stat().st_mode & 0o777 == 0o400
        assert run(*words).code == 1  # it is not overwritten
        file.rename(tmp_path / who)
    assert out["ours"].out == out["theirs"].out
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_where_no_key_is_had_no_file_is_left(made: Lab) -> None:
    words = ("luksDump", "two", "--dump-volume-key", "--volume-key-file", "none")
    assert made.ours(*words, "-d", "key-bad").code == 2
    assert not (made.directory / "none").exists()


def test_a_key_is_not_shown_as_json_and_its_options_are_not_ignored(made: Lab) -> None:
    refused = made.ours("luksDump", "--json", "two", "--dump-volume-key", "-d", "key-p1")
    assert (refused.code, "MK" in refused.out) == (1, False)
    assert made.ours("luksDump", "two", "-S", "0").code == 1


def test_the_key_of_a_paes_volume_is_not_shown(made: Lab) -> None:
    key = made.directory / "secure"
    key.write_bytes(bytes(range(64)))
    image = made.image("paes", "p1", "-c", "paes-xts-plain64", "-s", "512",
                       "--volume-key-file", key)  # fmt: skip
    refused = made.ours("luksDump", image, "--dump-volume-key", "-d", "key-p1")
    assert (refused.code, "is a secure key" in refused.err, refused.out) == (8, True, "")
