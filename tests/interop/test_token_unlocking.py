"""Tokens of type luks2-keyring open volumes; what follows where they do not: as with cryptsetup."""

import shutil
import sys

import pytest

from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_volume import PROGRAM, Lab, Result
from tests.lab.keyring import why_no_keyring, with_keys

pytestmark = [
    pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup"),
    pytest.mark.skipif(why_no_keyring() is not None, reason=why_no_keyring() or ""),
]

KEYS = {"good": b"p1", "wrong": b"nonsense", "second": b"p2"}

#: Image to description of its token 1, which is for keyslot 0.
TOKENS = {"good": "good", "wrong": "wrong", "missing": "no such key"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Images with passphrases p1 and p2, and a token; ``none`` has no token, ``luks1`` is LUKS1."""
    lab = Lab(tmp_path_factory.mktemp("token-unlocking"))
    none = lab.image("none")
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "-d", lab.key("p1"), none, lab.key("p2"))
    for name, description in TOKENS.items():
        image = lab.directory / name
        shutil.copyfile(none, image)
        words = ("--key-description", description, "--token-id", 1, "-S", 0)
        lab.real_ok("token", "add", image, *words)
    unassigned = lab.directory / "unassigned"
    shutil.copyfile(none, unassigned)
    lab.real_ok("token", "add", unassigned, "--key-description", "good", "--unbound")
    both = lab.directory / "both"
    shutil.copyfile(lab.directory / "wrong", both)
    lab.real_ok("token", "add", both, "--key-description", "second", "--token-id", 2, "-S", 1)
    foreign = lab.directory / "foreign"
    shutil.copyfile(none, foreign)
    lab.real_ok("token", "import", foreign, stdin=b'{"type":"acme","keyslots":["0"]}')
    lab.image("luks1", "p1", "--type", "luks1", "--offset", "4096")
    return lab


def both_tools(lab: Lab, line: str, stdin: bytes) -> tuple[Result, Result]:
    """What fusecrypt and cryptsetup make of it."""
    words = [lab.directory / word[1:] if word[0] == "@" else word for word in line.split()]
    programs = ([sys.executable, "-c", PROGRAM], ["cryptsetup"])
    ours, real = (lab._run(with_keys(KEYS, [*program, *words]), stdin) for program in programs)
    return ours, real


#: Command line, standard input, exit code, keyslot that opens.
CASES = [
    ("@good", b"", 0, 0),
    ("@good --token-only", b"", 0, 0),
    ("@good --token-type luks2-keyring --token-only", b"", 0, 0),
    ("@good --key-file @key-p2", b"", 0, 0),  # tokens come first
    ("@good --token-id 2", b"p2\n", 0, 1),
    ("@good --token-id 2 --token-only", b"p1\n", 1, None),
    ("@good --token-type acme", b"p1\n", 0, 0),
    ("@wrong", b"p1\n", 0, 0),
    ("@wrong --token-only", b"p1\n", 2, None),
    ("@wrong --key-file @key-p2", b"", 0, 1),
    ("@missing", b"p2\n", 0, 1),
    ("@missing --token-only", b"p1\n", 2, None),
    ("@both --token-only", b"", 0, 1),
    ("@both --token-only --token-id 1", b"", 2, None),
    ("@unassigned", b"p2\n", 0, 1),
    ("@foreign", b"p1\n", 0, 0),
    ("@foreign --token-only", b"p1\n", 1, None),
    ("@foreign --token-id 0 --token-only", b"p1\n", 1, None),
    ("@none --token-only", b"p1\n", 1, None),
    ("@luks1 --token-only", b"p1\n", 1, None),
    ("@luks1 --token-id 1", b"p1\n", 0, 0),
]


@pytest.mark.parametrize(("line", "stdin", "code", "keyslot"), CASES)
def test_a_volume_opens_by_its_tokens_as_with_cryptsetup(
    made: Lab, line: str, stdin: bytes, code: int, keyslot: int | None
) -> None:
    made.key("p1")
    made.key("p2")
    for result in both_tools(made, f"open --test-passphrase -v {line}", stdin):
        assert result.code == code, result
        opened = "" if keyslot is None else f"Key slot {keyslot} unlocked."
        assert opened in result.out, result


ADD = "luksAddKey @COPY --pbkdf pbkdf2 --pbkdf-force-iterations 1000"

#: Image, command line, standard input, exit code.
ADDITIONS = [
    ("good", "--new-keyfile @key-new", b"", 1),  # tokens are not asked unless an option says so
    ("good", "--new-keyfile @key-new --token-only", b"", 0),
    ("good", "--token-id 1 --key-slot 1 --new-key-slot 5", b"new\n", 0),
    ("wrong", "--token-id 1 --new-keyfile @key-new", b"p1\n", 2),
    ("wrong", "--token-id 1 --new-keyfile @key-new --key-file @key-p1", b"", 0),
    ("good", "--token-type acme --new-keyfile @key-new", b"p1\n", 1),
    ("luks1", "--token-only --new-keyfile @key-new", b"", 1),
    ("unassigned", "--new-token-id 0 --key-file @key-p1", b"", 0),
    ("unassigned", "--new-token-id 0 --key-file @key-p1 --new-keyfile @key-new", b"", 0),
    ("unassigned", "--new-token-id 4 --key-file @key-p1", b"", 1),
    ("both", "--new-token-id 2 --key-file @key-p1 --new-key-slot 6", b"", 0),
    ("good", "--new-token-id 1 --token-only", b"", 0),
    ("missing", "--new-token-id 1 --key-file @key-p1", b"", 2),
    ("good", "--new-token-id 1 --unbound --key-size 256 --key-file @key-p1", b"", 1),
]


@pytest.mark.parametrize(("base", "line", "stdin", "code"), ADDITIONS)
def test_a_keyslot_is_added_with_tokens_as_cryptsetup_does(
    made: Lab, base: str, line: str, stdin: bytes, code: int
) -> None:
    made.key("new")
    left = []
    for program in ([sys.executable, "-c", PROGRAM], ["cryptsetup"]):
        shutil.copyfile(made.directory / base, made.directory / "COPY")
        words = f"{ADD} {line}".split()
        places = [made.directory / word[1:] if word[0] == "@" else word for word in words]
        result = made._run(with_keys(KEYS, [*program, *places]), stdin)
        assert result.code == code, result
        if base == "luks1":
            continue
        metadata = made.metadata(made.directory / "COPY")
        opens = [made.opens(made.directory / "COPY", key) for key in ("p1", "p2", "new")]
        left.append((sorted(metadata["keyslots"]), metadata["tokens"], opens))
    assert left[:1] == left[1:]


def test_a_token_of_another_keyslot_does_not_open_the_one_that_is_named(made: Lab) -> None:
    """Where cryptsetup 2.6.1 opens keyslot 0 whatever --key-slot says."""
    words = "open --test-passphrase -v --key-slot 1 @good"
    ours, real = both_tools(made, words, b"p2\n")
    assert (ours.code, real.code) == (0, 0)
    assert "Key slot 1 unlocked." in ours.out
    assert "Key slot 0 unlocked." in real.out
    assert both_tools(made, words, b"p1\n")[0].code == 2


def test_a_token_that_cannot_be_used_is_named(made: Lab) -> None:
    ours, _ = both_tools(made, "open --test-passphrase --token-id 0 --token-only @foreign", b"")
    assert "token 0: type acme: not supported" in ours.err


def test_a_key_of_the_keyring_is_not_shown(made: Lab) -> None:
    ours, _ = both_tools(made, "open --test-passphrase --debug-json -v --token-only @wrong", b"")
    assert '"luks2-keyring"' in ours.err
    assert "nonsense" not in ours.out + ours.err
