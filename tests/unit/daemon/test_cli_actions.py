"""Whole command lines that need no daemon: luksFormat, luksDump, luksUUID, isLuks, trying a key."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusecrypt.daemon.cli.source import check_length, open_parameter
from fusecrypt.keystore.errors import ConfigError

FAST = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
needs_cryptsetup = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Cli:
    """fusecrypt, run as its users run it."""

    directory: Path

    def __call__(self, *words: object, stdin: bytes = b"") -> Result:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from fusecrypt.daemon.cli import main; sys.exit(main())",
                *map(str, words),
            ],
            input=stdin,
            capture_output=True,
            check=False,
            env={**os.environ, "FUSECRYPT_RUNTIME_DIR": str(self.directory / "run")},
            cwd=self.directory,
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in result.err
        assert "internal error" not in result.err
        assert result.err.count("\n") <= 1 or "warning" in result.err
        return result


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "img"
    path.touch()
    os.truncate(path, 18 << 20)
    return path


@pytest.fixture
def volume(cli: Cli, image: Path) -> Path:
    result = cli("luksFormat", "-q", *FAST, image, stdin=b"pass\n")
    assert (result.code, result.out, result.err) == (0, "", "")
    return image


def test_a_formatted_volume_opens_with_its_passphrase_only(cli: Cli, volume: Path) -> None:
    assert cli("open", "--test-passphrase", volume, stdin=b"pass\nmore").code == 0
    result = cli("open", "--test-passphrase", volume, stdin=b"wrong\n")
    assert (result.code, result.err) == (2, "fusecrypt: no key available with this passphrase\n")
    # --key-file - takes the newline too
    assert cli("open", "--test-passphrase", "--key-file", "-", volume, stdin=b"pass\n").code == 2
    assert cli("open", "--test-passphrase", "--key-file", "-", volume, stdin=b"pass").code == 0
    assert cli("open", "--test-passphrase", volume).code == 1


def test_who_is_not_asked_is_warned_of_what_a_format_ends(cli: Cli, volume: Path) -> None:
    result = cli("luksFormat", *FAST, volume, stdin=b"pass\n")
    assert (result.code, "already contains a 'crypto_LUKS" in result.err) == (0, True)
    result = cli("luksFormat", "-q", *FAST, volume, stdin=b"pass\n")
    assert (result.code, result.err) == (0, "")


def test_an_empty_file_is_too_small_for_a_volume(cli: Cli, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for more in ([], ["--dry-run"]):
        result = cli("luksFormat", *FAST, *more, empty, stdin=b"pass\n")
        assert (result.code, "is too small" in result.err) == (1, True)
        assert empty.stat().st_size == 0


def test_an_empty_passphrase_is_one(cli: Cli, image: Path) -> None:
    assert cli("luksFormat", *FAST, image, stdin=b"\n").code == 0
    assert cli("open", "--test-passphrase", image, stdin=b"\n").code == 0
    assert cli("open", "--test-passphrase", image, stdin=b"x\n").code == 2


def test_key_files_with_offset_and_size(cli: Cli, image: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"--secret--")
    part = ["--keyfile-offset", 2, "--keyfile-size", 6]
    assert cli("luksFormat", *FAST, image, key, *part).code == 0
    assert cli("open", "--test-passphrase", image, stdin=b"secret").code == 0
    assert cli("open", "--test-passphrase", "-d", key, *part, image).code == 0
    assert cli("open", "--test-passphrase", "-d", key, image).code == 2
    assert cli("open", "--test-passphrase", "-d", "/dev/fd/0", image, stdin=b"secret").code == 0
    result = cli("open", "--test-passphrase", "-d", tmp_path / "no", image)
    assert (result.code, "no" in result.err) == (1, True)


def test_a_key_slot_may_be_chosen(cli: Cli, image: Path) -> None:
    assert cli("luksFormat", *FAST, "-S", 3, image, stdin=b"p").code == 0
    result = cli("open", "--test-passphrase", "-v", image, stdin=b"p")
    assert result.out == "Key slot 3 unlocked.\nCommand successful.\n"
    assert cli("open", "--test-passphrase", "-S", 3, image, stdin=b"p").code == 0
    assert cli("open", "--test-passphrase", "-S", 1, image, stdin=b"p").code != 0


def test_label_uuid_sizes_and_cipher_are_in_the_header(cli: Cli, image: Path) -> None:
    number = str(uuid.uuid4())
    result = cli(
        "luksFormat", "--json", *FAST, "--label", "lab", "--subsystem", "sub", "--uuid", number,
        "-c", "aes-cbc-essiv:sha256", "-s", 256, "--sector-size", 1024, "--hash", "sha512",
        "--luks2-metadata-size", "32k", "--luks2-keyslots-size", "1m", "-o", 8192, image,
        stdin=b"p",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert json.loads(result.out)["uuid"] == number
    dump = json.loads(cli("luksDump", "--json=short", image).out)
    segment = dump["segments"]["0"]
    assert segment["encryption"] == "aes-cbc-essiv:sha256"
    assert (segment["sector_size"], segment["offset"]) == (1024, str(8192 * 512))
    assert dump["config"] == {"json_size": str(28672), "keyslots_size": str(1 << 20)}
    assert dump["digests"]["0"]["hash"] == "sha512"
    text = cli("luksDump", image).out
    for line in (f"UUID:          \t{number}", "Label:         \tlab", "Subsystem:     \tsub"):
        assert line in text
    assert cli("luksUUID", image).out == f"{number}\n"


def test_a_volume_key_may_be_given(cli: Cli, image: Path, tmp_path: Path) -> None:
    key, other = tmp_path / "vk", tmp_path / "other"
    key.write_bytes(os.urandom(64))
    other.write_bytes(os.urandom(64))
    assert cli("luksFormat", *FAST, "--volume-key-file", key, image, stdin=b"p").code == 0
    assert cli("open", "--test-passphrase", "--master-key-file", key, image).code == 0
    assert cli("open", "--test-passphrase", "--volume-key-file", other, image).code == 2


def test_a_detached_header_is_made_where_there_is_none(
    cli: Cli, image: Path, tmp_path: Path
) -> None:
    header = tmp_path / "hdr"
    before = image.read_bytes()
    assert cli("luksFormat", *FAST, "--header", header, image, stdin=b"p").code == 0
    assert image.read_bytes() == before
    assert cli("open", "--test-passphrase", "--header", header, image, stdin=b"p").code == 0
    assert cli("isLuks", image).code == 1
    assert cli("isLuks", "--header", header, image).code == 0


def test_a_refused_format_leaves_no_new_header_file(cli: Cli, image: Path, tmp_path: Path) -> None:
    header = tmp_path / "hdr"
    assert cli("luksFormat", *FAST, "--header", header, image).code == 1
    assert not header.exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--type", "loopaes"], 1),
        (["--type", "tcrypt"], 9),
        (["-c", "blowfish-cbc-plain64"], 8),
        (["-c", "cipher_null-ecb"], 8),
        (["-c", "cipher_null-ecb", "--force-weak", "--type", "luks1"], 9),
        (["-c", "capi:xts(aes)-plain64", "--type", "luks1"], 9),
        (["-c", "aes-cbc-tcw", "-s", "384"], 9),
        (["-c", "aes-cbc-elephant"], 9),
        (["-c", "aes:64-cbc-lmk", "-s", "8192"], 9),
        (["--type", "luks1", "--label", "x"], 1),
        (["--type", "luks1", "--subsystem", "x"], 1),
        (["--type", "luks1", "--sector-size", "4096"], 1),
        (["--type", "luks1", "--pbkdf", "argon2id"], 9),
        (["--type", "luks1", "--pbkdf-memory", "1024"], 1),
        (["--type", "luks1", "--luks2-metadata-size", "16k"], 1),
        (["--type", "luks1", "--key-slot", "8"], 1),
        (["--type", "luks1", "--offset", "4041"], 1),
        (["--type", "luks1", "--offset", "4032"], 1),
        (["--type", "luks1", "-c", "paes-xts-plain64"], 9),
        (["--offset", "4096", "--align-payload", "8"], 1),
        (["--iter-time", "10"], 1),
        (["--type", "plain"], 1),
        (["-c", "aes-nonsense"], 9),
        (["-s", "100"], 1),
        (["-s", "4096"], 1),
        (["--sector-size", "513"], 1),
        (["--pbkdf", "scrypt"], 9),
        (["--hash", "md99"], 9),
        (["--key-slot", "32"], 1),
        (["--uuid", "nonsense"], 1),
        (["--label", "x" * 60], 1),
        (["--offset", "1"], 1),
        (["--luks2-metadata-size", "5k"], 1),
        (["--integrity", "aead"], 9),
        (["--key-file", "/nonexistent"], 1),
        (["--volume-key-file", "/etc/hostname"], 1),
        (["--key-file", "/etc/hostname", "--keyfile-size", "9999"], 1),
    ],
)
def test_bad_parameters_change_nothing(
    cli: Cli, image: Path, words: Sequence[str], code: int
) -> None:
    before = image.read_bytes()
    result = cli("luksFormat", "-q", *FAST, *words, image, stdin=b"p")
    assert (result.code, result.err.startswith("fusecrypt: ")) == (code, True), result.err
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "area"),
    [
        (("-c", "blowfish-cbc-plain64", "--force-weak"), "blowfish-cbc-plain64"),
        (("-c", "des3_ede-cbc-plain64", "--force-weak"), "des3_ede-cbc-plain64"),
        (("-c", "cipher_null-ecb", "--force-weak"), "aes-xts-plain64"),
        (("-c", "capi:xts(aes)-plain64"), "aes-xts-plain64"),
        (("-c", "serpent-lrw-benbi", "-s", "384"), "serpent-lrw-benbi"),
        (("-c", "xchacha20,aes-adiantum-plain64"), "xchacha20,aes-adiantum-plain64"),
        (("-c", "twofish-cbc-essiv:sha256", "--type", "luks1"), ""),
        (("-c", "cast5-cbc-plain64", "--force-weak", "--type", "luks1"), ""),
    ],
)
def test_volumes_are_made_with_any_cipher_that_is_wanted(
    cli: Cli, image: Path, words: Sequence[str], area: str
) -> None:
    made = cli("luksFormat", "-q", *FAST, *words, image, stdin=b"p")
    assert made.code == 0, made.err
    assert cli("open", "--test-passphrase", image, stdin=b"p").code == 0
    dump = cli("luksDump", image).out
    assert f"Cipher:     {area}" in dump or not area
    assert f"cipher: {words[1]}" in dump or "luks1" in words


def test_a_file_that_somebody_serves_is_not_formatted(cli: Cli, volume: Path) -> None:
    import fcntl
    import struct

    before = volume.read_bytes()
    with volume.open("rb+") as file:
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 16 << 20, 4096, 0)
        fcntl.fcntl(file.fileno(), fcntl.F_OFD_SETLK, request)
        result = cli("luksFormat", "-q", *FAST, volume, stdin=b"p")
    assert (result.code, "open already" in result.err) == (5, True)
    assert volume.read_bytes() == before


def test_is_luks(cli: Cli, volume: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(1 << 20))
    assert cli("isLuks", volume).code == 0
    assert cli("isLuks", "--type", "luks2", volume).code == 0
    assert cli("isLuks", "--type", "luks1", volume).code == 1
    assert cli("isLuks", plain).code == 1
    result = cli("isLuks", "-v", plain)
    assert result.out == "Command failed with code -1 (wrong or missing parameters).\n"
    assert cli("isLuks", tmp_path / "no").code == 4
    assert cli("isLuks", tmp_path).code == 4
    assert json.loads(cli("isLuks", "--json", volume).out) == {"is_luks": True, "type": "luks2"}


@pytest.mark.parametrize("verb", ["luksDump", "luksUUID", "open --test-passphrase"])
def test_what_is_no_luks_volume_is_refused_with_1_and_a_damaged_one_with_7(
    cli: Cli, volume: Path, tmp_path: Path, verb: str
) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"x" * (1 << 20))
    result = cli(*verb.split(), plain)
    assert (result.code, "not a valid LUKS device" in result.err) == (1, True)
    with volume.open("rb+") as file:
        for offset in (4096 + 10, 16384 + 4096 + 10):
            file.seek(offset)
            file.write(b"###")
    result = cli(*verb.split(), volume)
    assert (result.code, str(volume) in result.err) == (7, True)


def test_a_damaged_copy_is_reported_and_not_repaired(cli: Cli, volume: Path) -> None:
    with volume.open("rb+") as file:
        file.seek(4096 + 10)
        file.write(b"###")
    before = volume.read_bytes()
    result = cli("luksDump", volume)
    assert result.code == 0
    assert "warning" in result.err
    assert cli("open", "--test-passphrase", volume, stdin=b"pass").code == 0
    assert volume.read_bytes() == before


def test_a_closed_standard_input_is_no_passphrase_from_the_image(cli: Cli, volume: Path) -> None:
    line = f"exec {sys.executable} -c 'import sys; from fusecrypt.daemon.cli import main;"
    done = subprocess.run(
        ["sh", "-c", f"{line} sys.exit(main())' open --test-passphrase {volume} <&- >&- "],
        capture_output=True,
        check=False,
        cwd=cli.directory,
    )
    assert done.returncode == 1
    assert done.stderr == b"fusecrypt: standard input: nothing to read; wanted: a passphrase\n"


def test_debug_shows_where_and_keeps_the_exit_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from fusecrypt.daemon.cli import main; sys.exit(main())",
            *("--debug", "isLuks", str(tmp_path / "no")),
        ],
        capture_output=True,
        check=False,
        env={**os.environ, "FUSECRYPT_RUNTIME_DIR": str(tmp_path)},
    )
    assert done.returncode == 4
    assert b"Traceback" in done.stderr


def test_errors_are_in_the_json_too(cli: Cli, tmp_path: Path) -> None:
    result = cli("open", "--json", tmp_path / "no", "vol")
    assert result.code == 4
    error = json.loads(result.out)["error"]
    assert (error["exit_code"], error["exit_name"]) == (4, "WRONG_DEVICE")
    assert (error["kind"], result.err) == ("NotFoundError", f"fusecrypt: {error['message']}\n")


def test_errors_of_options_are_in_the_json_too(cli: Cli) -> None:
    for words in (["--json", "open", "--redonly", "d", "x"], ["zkey", "--json", "list", "--foo"]):
        result = cli(*words)
        assert json.loads(result.out)["error"]["exit_code"] == result.code == 1


def test_output_that_cannot_be_written_is_a_plain_error(tmp_path: Path) -> None:
    script = "import sys; from fusecrypt.daemon.cli import main; sys.exit(main())"
    for words in (["--json", "list"], ["--version"], ["--json", "status"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-c", script, *words],
                stdout=full,
                stderr=subprocess.PIPE,
                check=False,
                env={**os.environ, "FUSECRYPT_RUNTIME_DIR": str(tmp_path)},
            )
        assert done.returncode == 4
        assert done.stderr.startswith(b"fusecrypt: ")
        assert b"internal" not in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_what_the_locale_cannot_say_is_escaped(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from fusecrypt.daemon.cli import main; sys.exit(main())",
            "--help",
        ],
        capture_output=True,
        check=False,
        env={
            **os.environ,
            "FUSECRYPT_RUNTIME_DIR": str(tmp_path),
            "LC_ALL": "POSIX",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"ARGUMENTS" in done.stdout
    assert rb"\u2026" in done.stdout


def test_a_header_without_keyslots_is_refused_before_anybody_is_asked(
    cli: Cli, volume: Path
) -> None:
    assert cli("erase", "-q", volume).code == 0
    result = cli("open", volume, "vol", stdin=b"")
    assert (result.code, "no usable keyslot" in result.err) == (1, True)
    assert not (volume.parent / "run").exists()


def test_without_a_daemon_there_is_nothing_and_none_is_started(cli: Cli, tmp_path: Path) -> None:
    assert cli("list", "--json").out == '{"volumes":[],"entries":[]}\n'
    assert (cli("list").code, cli("list").out) == (0, "")
    result = cli("status", "vol")
    assert result.code == 4
    assert result.out == f"{tmp_path}/run/dev/mapper/vol is inactive.\n"
    assert cli("status").code == 4
    assert cli("close", "vol").code == 4
    assert not (tmp_path / "run").exists()


def test_what_cannot_open_starts_no_daemon(cli: Cli, image: Path, tmp_path: Path) -> None:
    plain = ["--type", "plain", "-c", "aes-xts-plain64", "-s", 256, "-h", "sha256"]
    for words in (
        [image, "vol"],
        [tmp_path, "vol"],
        [tmp_path / "no", "vol"],
        ["--type", "plain", image, "vol"],
        [*plain, "--offset", 99999, image, "vol"],
    ):
        assert cli("open", *words, stdin=b"p").code in {1, 4}
    assert not (tmp_path / "run").exists()


def test_what_cannot_hold_a_volume_is_named(cli: Cli, tmp_path: Path) -> None:
    plain = [
        "--type",
        "plain",
        "--cipher",
        "aes-xts-plain64",
        "--key-size",
        512,
        "--hash",
        "sha256",
    ]
    empty = tmp_path / "empty"
    empty.touch()
    result = cli("open", *plain, empty, "vol", stdin=b"p")
    assert (result.code, f"{empty}: offset 0" in result.err) == (4, True)
    result = cli("open", *plain, "/dev/null", "vol", stdin=b"p")
    assert "/dev/null: is neither a regular file nor a block device" in result.err
    key = tmp_path / "key"
    key.write_bytes(b"secret")
    with (
        open_parameter(str(key), "key file") as file,
        pytest.raises(ConfigError, match=r"key file .*/key: has 6 bytes; wanted: more than 100"),
    ):
        check_length(file, "key file", offset=100, size=0)


def test_an_unwritable_image_is_refused_naming_readonly(cli: Cli, volume: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    volume.chmod(0o400)
    result = cli("open", volume, "vol", stdin=b"pass")
    assert (result.code, "--readonly" in result.err) == (4, True)
    result = cli("luksAddKey", volume, stdin=b"pass")
    assert (result.code, "--readonly" in result.err) == (4, False)


def test_crypttab_check(cli: Cli, tmp_path: Path) -> None:
    tab = tmp_path / "tab"
    tab.write_text("vol /img none luks\n")
    result = cli("crypttab", "check", tab)
    assert (result.code, result.err) == (0, "")
    assert "vol" in result.out
    tab.write_text("vol /img none luks,swap\nother /img2 - nonsense\n")
    result = cli("crypttab", "check", "--json", tab)
    assert result.code == 1
    problems = json.loads(result.out)["problems"]
    assert [p["verdict"] for p in problems] == ["error", "warning"]
    assert result.err == ""
    assert json.loads(result.out)["entries"][0]["opened"] == "at start"
    tab.write_text("")
    result = cli("crypttab", "check", tab)
    assert (result.code, result.out) == (0, f"no entry of ours in {tab}\n")
    assert cli("crypttab", "check", tmp_path / "no").code == 4


@needs_cryptsetup
def test_the_real_cryptsetup_reads_it_and_prints_the_same(cli: Cli, volume: Path) -> None:
    def real(*words: object, stdin: bytes = b"") -> str:
        return subprocess.run(
            ["cryptsetup", *map(str, words)], input=stdin, capture_output=True, check=True
        ).stdout.decode()

    real("open", "--test-passphrase", volume, stdin=b"pass")
    assert cli("luksDump", volume).out == real("luksDump", volume)
    ours = cli("luksDump", "--dump-json-metadata", volume).out
    assert ours.rstrip("\n") == real("luksDump", "--dump-json-metadata", volume).rstrip("\n")
    assert cli("luksUUID", volume).out == real("luksUUID", volume)
