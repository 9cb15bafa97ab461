"""Bad input: one clear message, the right exit status, and nothing changed on disk."""

import hashlib
import os
import shutil

import pytest

from tests.lab import cryptsetup, golden
from tests.product import running, why_no_fuse

pytestmark = pytest.mark.fuse

PASSPHRASE = b"the right passphrase"
SIZE = 524288 + (1 << 20)
PLAIN = ("--type", "plain", "--cipher", "aes-xts-plain64", "--key-size", "512", "--hash", "sha512")

WRONG_PARAMETERS = 1
NO_PERMISSION = 2
WRONG_DEVICE = 4
BUSY = 5
HEADER_DAMAGED = 7
UNSUPPORTED = 9


@pytest.fixture(scope="module")
def daemon(scratch):
    reason = why_no_fuse()
    if reason:
        pytest.skip(reason)
    with running(scratch) as instance:
        instance.start()
        yield instance
        assert instance.stop() == 0


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A good LUKS2 image and its key file, to be copied."""
    directory = tmp_path_factory.mktemp("pristine")
    key = directory / "key"
    key.write_bytes(PASSPHRASE)
    return cryptsetup.luks_format(directory / "image", key, SIZE, "--sector-size", "4096")


@pytest.fixture
def image(pristine, tmp_path):
    shutil.copyfile(pristine, tmp_path / "image")
    return tmp_path / "image"


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(PASSPHRASE)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refuse(daemon, status, *words, stdin=b"", names=(), unchanged=()):
    """Run a command that must fail in just one way; what it says must hold ``names``."""
    before = {path: digest(path) for path in unchanged}
    result = daemon.run(*words, stdin=stdin)
    statuses = status if isinstance(status, tuple) else (status,)
    assert result.status in statuses, f"{words}: wanted status {status}\n{result}"
    said = result.stderr.strip().splitlines()
    lines = [line for line in said if not line.startswith("fusecrypt: warning: ")]
    assert len(lines) == 1, f"{words}: wanted one message\n{result}"
    assert "Traceback" not in result.stderr
    for name in names:
        assert str(name) in lines[0], f"{words}: wanted {name!r} in the message\n{result}"
    assert PASSPHRASE.decode() not in result.stderr
    assert {path: digest(path) for path in unchanged} == before
    return lines[0]


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (0, (WRONG_PARAMETERS, WRONG_DEVICE)),
        (511, (WRONG_PARAMETERS, WRONG_DEVICE, HEADER_DAMAGED)),
        (4095, (WRONG_PARAMETERS, WRONG_DEVICE, HEADER_DAMAGED)),
        (4096, (WRONG_DEVICE, HEADER_DAMAGED)),
        (20_000, (WRONG_DEVICE, HEADER_DAMAGED)),
        (32_768, (WRONG_DEVICE, HEADER_DAMAGED)),
        (200_000, (WRONG_DEVICE, HEADER_DAMAGED)),
        (524_288, (WRONG_DEVICE, HEADER_DAMAGED)),
        (524_288 + 4095, (WRONG_DEVICE, HEADER_DAMAGED)),
    ],
)
def test_truncated_image(daemon, image, key, length, status):
    os.truncate(image, length)
    refuse(daemon, status, "open", "--key-file", key, image, "v", names=[image], unchanged=[image])
    assert not daemon.device("v").exists()


def test_data_shorter_than_it_was_is_shown_as_long_as_it_is(daemon, tmp_path):
    # The segment's size is "dynamic": the file's end counts.
    real = golden.find("luks2-aes-xts-plain64-512-s512")
    files = golden.unpack(real, tmp_path)
    data = files["data"]
    os.truncate(data, 600_000)
    # 600000 bytes leave room for data, which is shorter than it was and no whole sector.
    secret, _ = golden.unlock_arguments(real, files)
    daemon.cli("open", *secret, "--readonly", data, "shorter")
    assert daemon.device("shorter").stat().st_size == (600_000 - 524_288) // 512 * 512
    daemon.cli("close", "shorter")


@pytest.mark.parametrize("content", ["zeros", "random", "text", "magic only"])
def test_garbage(daemon, tmp_path, key, content):
    image = tmp_path / "garbage"
    image.write_bytes(
        {
            "zeros": bytes(1 << 20),
            "random": os.urandom(1 << 20),
            "text": b"This is no volume.\n" * 50_000,
            "magic only": b"LUKS\xba\xbe\0\2" + os.urandom(1 << 20),
        }[content]
    )
    wanted = (WRONG_PARAMETERS, HEADER_DAMAGED)
    for words in (
        ["open", "--key-file", key, image, "v"],
        ["luksDump", image],
        ["luksUUID", image],
    ):
        refuse(daemon, wanted, *words, names=[image], unchanged=[image])
    assert daemon.run("isLuks", image).status == 1


@pytest.mark.parametrize(
    "place", [0, 8, 100, 448, 4096, 4200, 4096 + 12_000], ids=lambda p: f"byte{p}"
)
def test_one_damaged_byte_in_either_header_is_survived_without_repair_when_read_only(
    daemon, image, key, place
):
    for base in (0, 16_384):
        data = bytearray(image.read_bytes())
        data[base + place] ^= 0x40
        image.write_bytes(data)
        before = digest(image)
        result = daemon.run("open", "--readonly", "--key-file", key, image, "v")
        assert result.status == 0, result
        daemon.cli("close", "v")
        assert digest(image) == before
        data[base + place] ^= 0x40
        image.write_bytes(data)


def test_both_headers_damaged(daemon, image, key):
    data = bytearray(image.read_bytes())
    for base in (0, 16_384):
        data[base + 4200] ^= 1
    image.write_bytes(data)
    refuse(
        daemon,
        HEADER_DAMAGED,
        "open",
        "--key-file",
        key,
        image,
        "v",
        names=[image],
        unchanged=[image],
    )


@pytest.mark.parametrize(
    "secret", [b"wrong", b"", PASSPHRASE + b"\n", PASSPHRASE[:-1], os.urandom(8192)]
)
def test_wrong_passphrase(daemon, image, tmp_path, secret):
    path = tmp_path / "wrong"
    path.write_bytes(secret)
    refuse(daemon, NO_PERMISSION, "open", "--key-file", path, image, "v", unchanged=[image])


def test_wrong_passphrase_on_standard_input_is_not_asked_for_again(daemon, image):
    refuse(daemon, NO_PERMISSION, "open", image, "v", stdin=b"wrong\n", unchanged=[image])


def test_wrong_volume_key_file(daemon, image, tmp_path):
    path = tmp_path / "vk"
    path.write_bytes(os.urandom(64))
    refuse(daemon, NO_PERMISSION, "open", "--volume-key-file", path, image, "v", unchanged=[image])
    path.write_bytes(os.urandom(63))
    wanted = (WRONG_PARAMETERS, NO_PERMISSION, WRONG_DEVICE)
    refuse(daemon, wanted, "open", "--volume-key-file", path, image, "v", unchanged=[image])


def test_missing_files(daemon, image, key, tmp_path):
    gone = tmp_path / "gone"
    for words in (
        ["open", "--key-file", key, gone, "v"],
        ["open", "--key-file", key, "--header", gone, image, "v"],
        ["open", *PLAIN, "--key-file", key, gone, "v"],
        ["luksDump", gone],
        ["luksUUID", gone],
        ["isLuks", gone],
        ["luksFormat", "-q", "--key-file", key, gone],
    ):
        refuse(daemon, WRONG_DEVICE, *words, names=[gone])
    for words in (  # cryptsetup has 4 for devices only
        ["open", "--key-file", gone, image, "v"],
        ["open", "--volume-key-file", gone, image, "v"],
        ["luksHeaderRestore", "-q", "--header-backup-file", gone, image],
        ["token", "import", "--json-file", gone, image],
        ["luksFormat", "-q", image, gone],
    ):
        refuse(daemon, WRONG_PARAMETERS, *words, names=[gone], unchanged=[image])
    assert not gone.exists()


def test_a_directory_is_no_image_and_no_key_file(daemon, image, key, tmp_path):
    image_words = ["open", "--key-file", key, tmp_path, "v"]
    refuse(daemon, WRONG_DEVICE, *image_words, names=[tmp_path])
    key_words = ["open", "--key-file", tmp_path, image, "v"]
    refuse(daemon, WRONG_PARAMETERS, *key_words, names=[tmp_path])


@pytest.mark.parametrize("size", ["0", "256", "1000", "513", "8192", "-512", "big"])
def test_wrong_sector_size(daemon, image, key, size):
    words = ["open", *PLAIN, "--key-file", key, "--sector-size", size, image, "v"]
    refuse(daemon, WRONG_PARAMETERS, *words, names=[size], unchanged=[image])


def test_image_that_is_no_whole_number_of_sectors(daemon, tmp_path):
    image = tmp_path / "odd"
    image.write_bytes(bytes(4096 * 10 + 512))
    words = ["open", *PLAIN, "--sector-size", "4096", image, "v"]
    wanted = (WRONG_PARAMETERS, WRONG_DEVICE)
    refuse(daemon, wanted, *words, stdin=PASSPHRASE, names=["4096"], unchanged=[image])


@pytest.mark.parametrize(
    "words",
    [
        ["--offset", "4096"],
        ["--offset", "1", "--size", "2048"],
        ["--size", "99999999"],
        ["--offset", "18446744073709551615"],
    ],
    ids=" ".join,
)
def test_plain_beyond_the_end_of_the_image(daemon, tmp_path, words):
    image = tmp_path / "small"
    image.write_bytes(bytes(2048 * 512))
    command = ["open", *PLAIN, *words, image, "v"]
    wanted = (WRONG_PARAMETERS, WRONG_DEVICE)
    refuse(daemon, wanted, *command, stdin=PASSPHRASE, unchanged=[image])


@pytest.mark.parametrize(
    ("left_out", "named"), [("--cipher", "cipher"), ("--key-size", "key size"), ("--hash", "hash")]
)
def test_plain_must_be_explicit(daemon, image, left_out, named):
    words = list(PLAIN)
    at = words.index(left_out)
    del words[at : at + 2]
    command = ["open", *words, image, "v"]
    refuse(daemon, WRONG_PARAMETERS, *command, stdin=PASSPHRASE, names=[named], unchanged=[image])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--cipher", "aes-lrw-benbi"], "lrw"),
        (["--cipher", "nonsense-xts-plain64"], "nonsense"),
        (["--cipher", "aes-xts-nonsense"], "nonsense"),
        (["--cipher", "aes-gcm-random"], "gcm"),
        (["--hash", "nonsense"], "nonsense"),
    ],
)
def test_unsupported_ciphers_and_hashes_are_named(daemon, image, words, named):
    plain = list(PLAIN)
    at = plain.index(words[0])
    plain[at : at + 2] = words
    wanted = (UNSUPPORTED, WRONG_PARAMETERS)
    refuse(
        daemon,
        wanted,
        "open",
        *plain,
        image,
        "v",
        stdin=PASSPHRASE,
        names=[named],
        unchanged=[image],
    )


@pytest.mark.parametrize("bits", ["0", "7", "100", "300", "1024"])
def test_key_sizes_that_the_cipher_does_not_take(daemon, image, bits):
    plain = list(PLAIN)
    plain[plain.index("--key-size") + 1] = bits
    wanted = (WRONG_PARAMETERS, UNSUPPORTED)
    refuse(daemon, wanted, "open", *plain, image, "v", stdin=PASSPHRASE, unchanged=[image])


def test_name_in_use_and_image_already_open(daemon, image, key, tmp_path):
    other = tmp_path / "other"
    shutil.copyfile(image, other)
    daemon.cli("open", "--readonly", "--key-file", key, image, "used")
    try:
        refuse(
            daemon,
            BUSY,
            "open",
            "--key-file",
            key,
            other,
            "used",
            names=["used"],
            unchanged=[other],
        )
    finally:
        daemon.cli("close", "used")
    daemon.cli("open", "--key-file", key, image, "used")
    try:
        refuse(daemon, BUSY, "open", "--key-file", key, image, "again", names=[image])
        refuse(daemon, BUSY, "luksFormat", "-q", "--key-file", key, image, names=[image])
    finally:
        daemon.cli("close", "used")


def test_close_while_in_use(daemon, image, key):
    daemon.cli("open", "--key-file", key, image, "busy")
    with daemon.device("busy").open("rb"):
        refuse(daemon, BUSY, "close", "busy", names=["busy"])
    daemon.cli("close", "busy")


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", "x" * 300, "control\x01"])
def test_bad_names(daemon, image, key, name):
    refuse(daemon, WRONG_PARAMETERS, "open", "--key-file", key, image, name, unchanged=[image])


def test_unknown_names(daemon):
    refuse(daemon, WRONG_DEVICE, "close", "nobody", names=["nobody"])
    # As cryptsetup: an inactive name is an answer, on standard output.
    answer = daemon.run("status", "nobody")
    assert answer.status == WRONG_DEVICE
    assert "nobody is inactive" in answer.stdout
    refuse(daemon, (WRONG_DEVICE, WRONG_PARAMETERS), "open", "nobody", names=["nobody"])


@pytest.mark.parametrize("slot", ["7", "31", "32", "-1", "x"])
def test_key_slots_that_are_not_there(daemon, image, key, slot):
    words = ["open", "--key-file", key, "--key-slot", slot, image, "v"]
    refuse(daemon, (WRONG_PARAMETERS, NO_PERMISSION), *words, names=[slot], unchanged=[image])


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([], WRONG_PARAMETERS),
        (["nonsense"], WRONG_PARAMETERS),
        (["open"], WRONG_PARAMETERS),
        (["open", "--no-such-option", "a", "b"], WRONG_PARAMETERS),
        (["open", "a", "b", "c"], WRONG_PARAMETERS),
        (["close"], WRONG_PARAMETERS),
        (["open", "--integrity", "hmac-sha256", "a", "b"], UNSUPPORTED),
        (["open", "--type", "bitlk", "a", "b"], UNSUPPORTED),
        (["open", "--type", "tcrypt", "a", "b"], UNSUPPORTED),
        (["open", "--type", "nonsense", "a", "b"], (WRONG_PARAMETERS, UNSUPPORTED)),
        (["reencrypt", "a"], (WRONG_PARAMETERS, UNSUPPORTED)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_command_lines(daemon, words, status):
    result = daemon.run(*words)
    assert result.status in (status if isinstance(status, tuple) else (status,)), result
    assert result.stderr.strip()
    assert "Traceback" not in result.stderr


def test_an_unreadable_key_file_and_image(user_instance):
    key = user_instance.write_file("key", PASSPHRASE)
    image = cryptsetup.luks_format(user_instance.directory / "image", key, SIZE)
    user_instance.own(image)
    user_instance.start()
    key.chmod(0)
    refuse(user_instance, WRONG_PARAMETERS, "open", "--key-file", key, image, "v", names=[key])
    key.chmod(0o600)
    image.chmod(0)
    refuse(user_instance, WRONG_DEVICE, "open", "--key-file", key, image, "v", names=[image])
    image.chmod(0o400)
    # What may only be read is not opened for writing unasked.
    result = user_instance.run("open", "--key-file", key, image, "v")
    assert result.status in (0, WRONG_DEVICE), result
    if result.status == 0:
        assert user_instance.cli("status", "v", "--json").json["read_only"] is True
        user_instance.cli("close", "v")
    assert user_instance.stop() == 0
