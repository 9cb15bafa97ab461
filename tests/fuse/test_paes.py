"""Volumes whose key is a secure key, as people use them: adapter, zkey, open, dev/pkey."""

import json
import os
import random
import signal
from dataclasses import replace

import pytest

from fusecrypt.keystore.keys import SecureKey
from tests.lab import cryptsetup, sectors
from tests.product import wait_for

pytestmark = pytest.mark.fuse

PASSPHRASE = b"a passphrase"
DATA_SIZE = 256 * 1024
OFFSET = 4 << 20  # a key of 2176 bits takes a mebibyte of stripes
KEY_SIZES = {"CCA-AESDATA": 1024, "CCA-AESCIPHER": 2176, "EP11-AES": 5376}


@pytest.fixture
def adapter(instance):
    """An instance with one adapter."""
    instance.cli("adapter", "create", "03.0039", "--mode", "cca")
    return instance


@pytest.fixture
def adapters(adapter):
    """An instance with an adapter of each mode that has keys."""
    adapter.cli("adapter", "create", "05.0011", "--mode", "ep11")
    return adapter


@pytest.fixture
def passphrase(instance):
    return instance.write_file("passphrase", PASSPHRASE)


def make_key(instance, name, clear, key_type="CCA-AESDATA", *, xts=True):
    """A secure key made of a clear one, so that the test knows what it should do."""
    path = instance.directory / f"{name}.skey"
    words = ["zkey", "generate", path, "--key-type", key_type]
    words += ["--clearkey", instance.write_file(f"{name}.clear", clear)]
    instance.cli(*words, *(["--xts"] if xts else []))
    return path


def real_format(image, passphrase, key, bits, cipher="paes-xts-plain64", sector_size=512):
    """A paes volume as the real cryptsetup makes one."""
    return cryptsetup.luks_format(
        image,
        passphrase,
        OFFSET + DATA_SIZE,
        *("--cipher", cipher, "--volume-key-file", key, "--key-size", str(bits)),
        *("--offset", "8192", "--sector-size", str(sector_size)),
    )


def check_data(
    instance, image, name, clear, *, offset, cipher="xts", sector_size=512, size=DATA_SIZE
):
    """What is on disk is AES under the clear key, in both directions, computed by another AES."""
    spec = f"aes-{cipher}-plain64"
    text = random.Random(1).randbytes(size)
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(sectors.crypt(text, spec, clear, sector_size=sector_size, encrypt=True))
    assert instance.device(name).read_bytes() == text
    check_writes(
        instance, image, name, clear, offset=offset, cipher=cipher, sector_size=sector_size
    )


def check_writes(instance, image, name, clear, *, offset, cipher="xts", sector_size=512):
    """What is written at an odd place is found by the other AES, and nothing else is changed."""
    spec = f"aes-{cipher}-plain64"
    text = instance.device(name).read_bytes()
    size = len(text)
    written = os.urandom(10_000)
    with instance.device(name).open("r+b") as device:
        device.seek(12_345)
        device.write(written)
        device.flush()
        os.fsync(device.fileno())
    expected = text[:12_345] + written + text[22_345:]
    stored = image.read_bytes()[offset : offset + size]
    assert sectors.crypt(stored, spec, clear, sector_size=sector_size, encrypt=False) == expected


@pytest.mark.parametrize("key_type", list(KEY_SIZES))
@pytest.mark.parametrize(("key_size", "sector_size"), [(64, 512), (32, 4096)])
def test_a_volume_of_the_real_cryptsetup_opens(
    adapters, passphrase, key_type, key_size, sector_size
):
    clear = random.Random(3).randbytes(key_size)
    key = make_key(adapters, "k", clear, key_type)
    bits = KEY_SIZES[key_type]
    image = real_format(
        adapters.directory / "image", passphrase, key, bits, sector_size=sector_size
    )
    adapters.cli("open", "-d", passphrase, image, "v")
    status = adapters.cli("status", "v", "--json").json
    assert status["cipher"] == "paes-xts-plain64"
    assert status["key_bits"] == bits
    by = "05.0011" if key_type == "EP11-AES" else "03.0039"
    assert status["key_location"] == f"{key_type} by adapter {by}"
    check_data(adapters, image, "v", clear, offset=OFFSET, sector_size=sector_size)


def test_an_ep11_key_in_the_older_form_opens_a_volume_too(adapters, passphrase):  # 5120 bits
    clear = random.Random(6).randbytes(64)
    key = make_key(adapters, "k", clear, "EP11-AES")
    halves = SecureKey(key.read_bytes()).halves
    key.write_bytes(b"".join(replace(half, version=3).pack() for half in halves))
    image = real_format(adapters.directory / "image", passphrase, key, 5120)
    adapters.cli("open", "-d", passphrase, image, "v")
    check_data(adapters, image, "v", clear, offset=OFFSET)


def test_its_table_is_shown_and_its_clear_key_never(adapter, passphrase):
    clear = random.Random(4).randbytes(64)
    key = make_key(adapter, "k", clear)
    image = real_format(adapter.directory / "image", passphrase, key, KEY_SIZES["CCA-AESDATA"])
    adapter.cli("open", "-d", passphrase, image, "v")
    table = f"0 {DATA_SIZE // 512} crypt paes-xts-plain64 {'00' * 128} 0 {image} {OFFSET // 512}"
    assert adapter.cli("table", "v").stdout == f"{table}\n"
    result = adapter.run("table", "--show-keys", "v")
    assert (result.status, "never shown" in result.stderr) == (8, True)
    assert clear.hex()[:32] not in result.stdout


@pytest.mark.parametrize(("key_type", "bits"), [("CCA-AESDATA", 512), ("CCA-AESCIPHER", 1088),
                                                ("EP11-AES", 2688)])  # fmt: skip
def test_cbc_takes_one_key(adapters, passphrase, key_type, bits):
    clear = random.Random(4).randbytes(32)
    key = make_key(adapters, "k", clear, key_type, xts=False)
    image = real_format(
        adapters.directory / "image", passphrase, key, bits, cipher="paes-cbc-plain64"
    )
    adapters.cli("open", "-d", passphrase, image, "v")
    check_data(adapters, image, "v", clear, offset=OFFSET, cipher="cbc")


@pytest.mark.parametrize("key_type", list(KEY_SIZES))
def test_our_own_format_is_one_that_cryptsetup_reads(adapters, passphrase, key_type):
    clear = random.Random(5).randbytes(64)
    key = make_key(adapters, "k", clear, key_type)
    image = adapters.directory / "image"
    with image.open("wb") as file:
        file.truncate(OFFSET + DATA_SIZE)
    adapters.cli(
        *("luksFormat", "-q", "--cipher", "paes-xts-plain64", "--volume-key-file", key),
        *("--key-size", KEY_SIZES[key_type], "--pbkdf", "pbkdf2", "--iter-time", "10"),
        *("--offset", "8192", "--sector-size", "512"),
        *(image, passphrase),
    )
    area = cryptsetup.metadata(image)["keyslots"]["0"]["area"]
    assert (area["encryption"], area["key_size"]) == ("aes-xts-plain64", 64)
    assert cryptsetup.volume_key(image, "--key-file", passphrase) == key.read_bytes()
    adapters.cli("open", "-d", passphrase, image, "v")
    check_data(adapters, image, "v", clear, offset=OFFSET)


def test_format_takes_the_key_size_from_the_secure_key(adapter, passphrase):
    key = make_key(adapter, "k", bytes(range(64)), "CCA-AESCIPHER")
    image = adapter.write_file("image", bytes(20 << 20))
    adapter.cli(
        *("luksFormat", "-q", "--cipher", "paes-xts-plain64", "--volume-key-file", key),
        *("--pbkdf", "pbkdf2", "--iter-time", "10", image, passphrase),
    )
    assert cryptsetup.metadata(image)["keyslots"]["0"]["key_size"] == 272


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--key-size", "512"], 8, "wanted: a pair for XTS"),
        (["--key-size", "256"], 8, "only the beginning of a secure key"),
        (["--key-size", "1088"], 1, "a key of 1088 bits, wanted 1024, 2176"),
        (["--key-size", "2688"], 1, "a key of 2688 bits, wanted 1024, 2176"),
    ],
)
def test_format_refuses_what_could_not_be_opened_or_is_no_secret(
    adapter, passphrase, options, code, words
):
    key = make_key(adapter, "k", bytes(range(64)))
    image = adapter.write_file("image", bytes(20 << 20))
    result = adapter.run(
        *("luksFormat", "-q", "--cipher", "paes-xts-plain64", "--volume-key-file", key),
        *(*options, image, passphrase),
    )
    assert (result.status, words in result.stderr) == (code, True), result
    assert not any(image.read_bytes())


@pytest.mark.parametrize("content", [bytes(range(128)), os.urandom(64)])
def test_format_refuses_a_clear_key(adapter, passphrase, content):
    key = adapter.write_file("clear", content)
    image = adapter.write_file("image", bytes(20 << 20))
    result = adapter.run(
        *("luksFormat", "-q", "--cipher", "paes-xts-plain64", "--volume-key-file", key),
        *(image, passphrase),
    )
    assert result.status == 8, result
    assert "no secure key" in result.stderr
    assert not any(image.read_bytes())


def test_format_without_a_key_says_how_to_make_one(adapter, passphrase):
    image = adapter.write_file("image", bytes(20 << 20))
    result = adapter.run("luksFormat", "-q", "--cipher", "paes-xts-plain64", image, passphrase)
    assert result.status == 1
    assert "zkey generate" in result.stderr


@pytest.mark.parametrize("key_type", list(KEY_SIZES))
@pytest.mark.parametrize("bits", [256, 512])
def test_the_trap_of_a_forgotten_key_size_is_refused(adapters, passphrase, key_type, bits):
    key = make_key(adapters, "k", os.urandom(64), key_type)
    image = real_format(adapters.directory / "image", passphrase, key, bits)
    before = image.read_bytes()
    result = adapters.run("open", "-d", passphrase, image, "v")
    assert result.status == 8, result
    assert "only the beginning of a secure key" in result.stderr
    assert "1024" in result.stderr
    assert image.read_bytes() == before


@pytest.mark.parametrize("key_type", list(KEY_SIZES))
def test_plain_mode_takes_the_secure_key_as_its_key_file(adapters, key_type):
    clear = random.Random(6).randbytes(64)
    key = make_key(adapters, "k", clear, key_type)
    image = adapters.write_file("image", bytes(DATA_SIZE))
    plain = ("open", "--type", "plain", "--cipher", "paes-xts-plain64", "--key-file", key)
    adapters.cli(*plain, "--key-size", KEY_SIZES[key_type], image, "v")
    check_data(adapters, image, "v", clear, offset=0)
    adapters.cli("close", "v")
    result = adapters.run(*plain, "--key-size", "512", image, "w")
    assert result.status == 8, result


def test_a_crypttab_line_as_zkey_writes_it(adapter):
    clear = random.Random(7).randbytes(64)
    key = make_key(adapter, "k", clear)
    image = adapter.write_file("image", bytes(DATA_SIZE))
    adapter.start(f"v\t{image}\t{key}\tplain,cipher=paes-xts-plain64,size=1024,sector-size=4096")
    check_data(adapter, image, "v", clear, offset=0, sector_size=4096)
    assert adapter.stop() == 0


def test_a_missing_master_key_is_named_with_those_that_are_there(adapter, passphrase):
    key = make_key(adapter, "k", os.urandom(64))
    image = real_format(adapter.directory / "image", passphrase, key, 1024)
    backup = adapter.directory / "backup"
    adapter.cli("adapter", "backup", backup, "--key-file", passphrase)
    wanted = key.read_bytes()[8:16].hex()
    adapter.cli("adapter", "remove", "03.0039", "--batch-mode")
    result = adapter.run("open", "-d", passphrase, image, "v")
    assert result.status == 6, result
    assert "fusecrypt adapter restore FILE" in result.stderr
    assert wanted in result.stderr
    adapter.cli("adapter", "create", "05.0001")
    result = adapter.run("open", "-d", passphrase, image, "v")
    assert result.status == 6, result
    assert wanted in result.stderr
    assert "05.0001" in result.stderr
    adapter.cli("adapter", "restore", backup, "--key-file", passphrase)
    adapter.cli("open", "-d", passphrase, image, "v")


def test_a_pattern_in_the_header_that_is_not_the_keys_is_refused(adapter, passphrase):
    clear = bytes(range(64))
    key = make_key(adapter, "k", clear)
    image = real_format(adapter.directory / "image", passphrase, key, 1024)
    pattern = (
        "cd6b103236fbd87dba93e9001e29bc3d5e885d6abd1577e3e0e0a5f49e444894"  # computed independently
    )
    token = {"type": "paes-verification-pattern", "keyslots": []}
    for value, code in ((pattern, 0), ("ab" * 32, 2)):
        text = json.dumps({**token, "verification-pattern": value}).encode()
        cryptsetup.cryptsetup(
            "token", "import", "--token-id", "0", "--json-file", "-", image, stdin=text
        )
        result = adapter.run("open", "-d", passphrase, image, "v")
        assert result.status == code, result
        cryptsetup.cryptsetup("token", "remove", "--token-id", "0", image)
        adapter.run("close", "v")


def test_open_volumes_go_on_without_keystored_and_opens_fail_until_it_is_back(adapter, passphrase):
    clear = os.urandom(64)
    key = make_key(adapter, "k", clear)
    image = real_format(adapter.directory / "image", passphrase, key, 1024)
    other = real_format(adapter.directory / "other", passphrase, key, 1024)
    adapter.start()
    adapter.cli("open", "-d", passphrase, image, "v")
    keystored = adapter.pid("fusecrypt-keystored")
    os.kill(keystored, signal.SIGSTOP)  # slow beyond all patience
    check_writes(adapter, image, "v", clear, offset=OFFSET)
    result = adapter.run("open", "-d", passphrase, other, "w")
    assert result.status == 6, result
    assert "does not answer" in result.stderr
    os.kill(keystored, signal.SIGKILL)
    wait_for(lambda: keystored not in adapter.pids(), "keystored gone")
    check_writes(adapter, image, "v", clear, offset=OFFSET)
    # Nobody listens: it is started again, and serves.
    adapter.cli("open", "-d", passphrase, other, "w")
    check_data(adapter, other, "w", clear, offset=OFFSET)
    assert adapter.stop() == 0
