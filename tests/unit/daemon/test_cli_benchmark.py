"""`fusecrypt benchmark`: its words and columns are the real cryptsetup's."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fusecrypt.daemon.cli import main
from fusecrypt.daemon.cli.benchmark import CipherSpeed, draw_chart

NOTE = "# Tests are approximate using memory only (no storage IO).\n"


def run(capsys, *words):
    code = main([*map(str, ("benchmark", *words))])
    return code, capsys.readouterr()


def shape(text):
    """A line without its figures, which take the place of the blanks before them."""
    return re.sub(r" *\d+(\.\d)?(?![\d-])", " N", text)


@pytest.mark.parametrize(
    "words",
    [
        ("-h", "sha512", "-s", "512"),
        ("--pbkdf", "argon2id", "-i", "100", "--pbkdf-memory", "9000", "--pbkdf-parallel", "1"),
    ],
    ids=["pbkdf2", "argon2id"],
)
def test_a_kdf_is_told_in_the_words_of_the_real_tool(capsys, words):
    real = shutil.which("cryptsetup")
    if real is None:
        pytest.skip("no cryptsetup")
    code, said = run(capsys, *words)
    wanted = subprocess.run([real, "benchmark", *words], capture_output=True, text=True, check=True)
    assert code == 0
    assert len(said.out.splitlines()) == 2
    assert shape(said.out) == shape(wanted.stdout)
    same = re.compile(r"\d+-bit key.*")
    assert same.findall(said.out) == same.findall(wanted.stdout)


def test_a_cipher_is_told_in_the_columns_of_the_real_tool(capsys):
    code, said = run(capsys, "-c", "aes-xts", "-s", "512")
    note, head, row = said.out.splitlines()
    assert (code, note + "\n") == (0, NOTE)
    real = shutil.which("cryptsetup")
    if real is not None:
        # The kernel here may have no interface for it to measure; its words are in the program.
        assert head.encode() in Path(real).read_bytes()
    # "%15s  %9zub  %10.1f MiB/s  %10.1f MiB/s"
    assert re.fullmatch(r" {8}aes-xts {8}512b  [ \d]{8}\.\d MiB/s  [ \d]{8}\.\d MiB/s", row)
    assert [row.index("MiB/s"), len(row)] == [40, 63]


def test_the_result_as_json_and_what_cannot_be_measured(capsys):
    code, said = run(capsys, "-c", "serpent-cbc-essiv:sha256", "--sector-size", "512", "--json")
    (speed,) = json.loads(said.out)["ciphers"]
    assert (code, speed["cipher"], speed["key_bits"]) == (0, "serpent-cbc", 256)
    assert speed["encryption"] > 1
    assert speed["decryption"] > 1
    for words, wanted in (
        (("-c", "aes-xts", "-s", "136"), 1),
        (("-c", "nonsense-xts"), 9),
        (("-c", "aes-xts", "--hash", "sha1"), 1),
        (("-s", "9"), 1),
        (("--hash", "md5"), 9),
        (("-c", "aes-cbc", "--sector-size", "600"), 1),
    ):
        code, said = run(capsys, *words)
        assert (code, said.err.startswith("fusecrypt: ")) == (wanted, True), words


def test_the_chart_fits_the_terminal_and_is_to_scale():
    speeds = [CipherSpeed("aes-xts", 256, 2000.0, 1000.0), CipherSpeed("twofish-cbc", 128, 1.0, 20)]
    for columns in (50, 80, 200):
        lines = draw_chart(speeds, columns)
        assert lines[0] == ""
        assert max(map(len, lines)) <= columns
        bars = [line.count("#") for line in lines[1:]]
        assert bars[0] == max(bars)
        assert abs(bars[1] - bars[0] / 2) <= 1
        assert bars[2] == 1
    assert lines[1].split()[:3] == ["aes-xts", "256b", "encrypt"]
    assert lines[2].split()[0] == "decrypt"
