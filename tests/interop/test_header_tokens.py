"""Tokens: the same words for us and for the real cryptsetup."""

import json
import shutil
from pathlib import Path

import pytest

from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_volume import Lab, Result

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

FOREIGN = {"type": "foo", "keyslots": ["0"], "zz": {"deep": [1, None, "ä/"]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """``two``: p1, and p3 unbound. ``token``: the same with token 3, for keyslot 0."""
    lab = Lab(tmp_path_factory.mktemp("tokens"))
    two = lab.image("two")
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "--unbound", "-s", "256", two, lab.key("p3"))
    token = lab.directory / "token"
    shutil.copyfile(two, token)
    lab.real_ok("token", "add", token, "--key-description", "d", "--token-id", "3", "-S", "0")
    return lab


def run(made: Lab, base: str, line: str) -> tuple[Path, Result]:
    """A line for both tools, which find FOREIGN at their standard input when it imports."""
    stdin = json.dumps(FOREIGN).encode() if "import" in line else b""
    return made.both(made.directory / base, *line.split(), stdin=stdin)[:2]


ADD = "token add IMAGE --key-description d"
DONE = [
    ("two", ADD),
    ("two", f"{ADD} -S 1"),
    ("two", f"{ADD} --token-id 31"),
    ("two", f"{ADD} --unbound"),
    ("token", f"{ADD} --token-id 3 --token-replace"),
    ("token", f"{ADD} --token-id 4 --token-replace"),
    ("token", "token remove IMAGE --token-id 3"),
    ("token", "token unassign IMAGE --token-id 3 -S 0"),
    ("token", "token import IMAGE"),
    ("token", "token import IMAGE --json-file -"),
    ("token", "token import IMAGE --token-id 7 -S 1"),
    ("token", "token import IMAGE --token-id 3 --token-replace"),
]


@pytest.mark.parametrize(("base", "line"), DONE)
def test_a_token_is_what_the_real_tool_makes_of_it(made: Lab, base: str, line: str) -> None:
    image, ours = run(made, base, line)
    assert ours.code == 0, ours
    assert made.opens(image, "p1", 0)


REFUSED = [
    ("two", f"{ADD} -S 7"),
    ("two", f"{ADD} --unbound -S 1"),
    ("two", "token add IMAGE"),
    ("two", f"{ADD} --token-id 32"),
    ("two", "token add IMAGE --key-description="),
    ("two", "token foo IMAGE"),
    ("two", "token IMAGE"),
    ("token", f"{ADD} --token-id 3"),
    ("token", "token remove IMAGE"),
    ("token", "token remove IMAGE --token-id 2"),
    ("token", "token remove IMAGE --token-id 99"),
    ("token", "token unassign IMAGE --token-id 3"),
    ("token", "token unassign IMAGE -S 0"),
    ("token", "token unassign IMAGE --token-id 3 -S 1"),
    ("token", "token export IMAGE"),
    ("token", "token export IMAGE --token-id 2"),
    ("token", "token import IMAGE --token-id 3"),
    ("token", "token import IMAGE --token-id 7 -S 9"),
]


@pytest.mark.parametrize(("base", "line"), REFUSED)
def test_what_the_real_tool_refuses_is_refused(made: Lab, base: str, line: str) -> None:
    image, ours = run(made, base, line)
    assert ours.code == 1, ours
    assert image.read_bytes() == (made.directory / base).read_bytes()


JSON = {
    "no JSON": ("", 1),
    "an array": ("[1]", 1),
    "no type": ('{"keyslots":[]}', 1),
    "no keyslots": ('{"type":"foo"}', 1),
    "a keyslot that is not there": ('{"type":"foo","keyslots":["9"]}', 1),
    "a reserved type": ('{"type":"luks2-foo","keyslots":[]}', 1),
    "a keyring without description": ('{"type":"luks2-keyring","keyslots":[]}', 1),
    "a description that is no string": (
        '{"type":"luks2-keyring","keyslots":[],"key_description":1}',
        1,
    ),
    "a keyring with more": (
        '{"type":"luks2-keyring","keyslots":[],"key_description":"a","x":2}',
        1,
    ),
    "a keyring": ('{"type":"luks2-keyring","keyslots":["0"],"key_description":"a"}', 0),
    "white space": ('\n { "type" : "foo" ,\n"keyslots":[ ] }\n', 0),
}


@pytest.mark.parametrize("what", JSON)
def test_json_is_taken_or_refused_as_the_real_tool_does(made: Lab, what: str) -> None:
    text, code = JSON[what]
    _, ours, _ = made.both(made.directory / "two", "token", "import", "IMAGE", stdin=text.encode())
    assert ours.code == code, ours


def test_what_is_exported_is_imported_again(made: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    shutil.copyfile(made.directory / "two", image)
    made.ours_ok("token", "import", image, stdin=json.dumps(FOREIGN).encode())
    file = tmp_path / "token.json"
    made.ours_ok("token", "export", image, "--token-id", 0, "--json-file", file)
    assert (json.loads(file.read_text()), file.stat().st_mode & 0o777) == (FOREIGN, 0o600)
    shown = made.ours_ok("token", "export", image, "--token-id", 0)
    assert json.loads(shown) == FOREIGN
    theirs = made.real_ok("token", "export", image, "--token-id", 0)
    assert json.loads(theirs) == FOREIGN
    made.real_ok("token", "remove", image, "--token-id", 0)
    made.ours_ok("token", "import", image, "--json-file", file)
    assert made.metadata(image)["tokens"] == {"0": FOREIGN}


def test_a_token_that_does_not_fit_is_refused(made: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    shutil.copyfile(made.directory / "two", image)
    text = json.dumps(FOREIGN | {"x": "y" * 12_000}).encode()
    result = made.ours("token", "import", image, stdin=text)
    assert (result.code, "no room" in result.err) == (1, True)
    assert image.read_bytes() == (made.directory / "two").read_bytes()


def test_the_metadata_are_shown_as_they_were_and_as_they_are(made: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    shutil.copyfile(made.directory / "two", image)
    before = made.metadata(image)
    shown = made.ours("token", "add", "--debug-json", "--key-description", "d", image).err
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(shown)
    second, _ = decoder.raw_decode(shown[end:].lstrip())
    assert (first, second) == (before, made.metadata(image))
    assert first["tokens"] != second["tokens"]
