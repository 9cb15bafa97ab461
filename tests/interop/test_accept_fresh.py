"""Images that the real cryptsetup makes during the test: no corpus can be complete."""

import hashlib
import os
import random

import pytest

from tests.lab import cryptsetup, sectors
from tests.lab.writes import odd_writes
from tests.product import running, why_no_fuse

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

PASSPHRASE = b"a passphrase of the test"
DATA_SIZE = 256 * 1024


@pytest.fixture(scope="module")
def daemon(scratch):
    reason = why_no_fuse()
    if reason:
        pytest.skip(reason)
    with running(scratch) as instance:
        instance.start()
        yield instance
        assert instance.stop() == 0


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(PASSPHRASE)
    return path


def fill(image, key_arguments) -> bytes:
    """Give an image a random plaintext, enciphered by the second implementation."""
    segment = cryptsetup.data_segment(image, image.stat().st_size)
    plaintext = random.Random(1).randbytes(segment.length)
    with image.open("r+b") as file:
        file.seek(segment.offset)
        file.write(
            sectors.crypt(
                plaintext,
                segment.cipher,
                cryptsetup.volume_key(image, *key_arguments),
                sector_size=segment.sector_size,
                encrypt=True,
            )
        )
    return plaintext


def check_both_ways(daemon, image, key, *options):
    """We read what it holds; the real cryptsetup reads what we wrote."""
    plaintext = fill(image, ["--key-file", key])
    daemon.cli("open", "--type", "luks2", "--key-file", key, *options, image, "v")
    assert daemon.device("v").read_bytes() == plaintext
    expected = bytearray(plaintext)
    odd_writes(daemon.device("v"), expected)
    daemon.cli("close", "v")
    assert cryptsetup.decrypt(image, key) == expected


@pytest.mark.parametrize(
    ("cipher", "key_bits", "sector_size"),
    [
        ("aes-xts-plain64", 512, 512),
        ("aes-xts-plain64", 256, 2048),
        ("aes-xts-plain64", 512, 1024),
        ("aes-xts-plain", 512, 4096),
        ("aes-xts-plain64be", 256, 512),
        ("aes-xts-essiv:sha256", 256, 512),
        ("aes-cbc-plain", 128, 512),
        ("aes-cbc-plain64", 192, 4096),
        ("aes-cbc-plain64be", 256, 1024),
        ("aes-cbc-essiv:sha256", 256, 2048),
        ("aes-cbc-essiv:sha256", 128, 512),
        ("aes-cbc-essiv:md5", 192, 512),
        ("aes-cbc-essiv:sha256", 192, 4096),
    ],
)
def test_ciphers_key_sizes_and_sector_sizes(daemon, tmp_path, key, cipher, key_bits, sector_size):
    options = ("--cipher", cipher, "--key-size", str(key_bits), "--sector-size", str(sector_size))
    image = cryptsetup.luks_format(tmp_path / "i", key, 524288 + DATA_SIZE, *options)
    check_both_ways(daemon, image, key)


@pytest.mark.parametrize(
    "kdf",
    [
        *(
            ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1003", "--hash", name)
            for name in (
                *("sha1", "sha224", "sha256", "sha384", "sha512", "sha3-224", "sha3-512"),
                *("ripemd160", "whirlpool", "blake2b-512", "blake2s-256", "sm3"),
            )
        ),
        *(
            (
                *("--pbkdf", kind, "--pbkdf-memory", memory, "--pbkdf-parallel", lanes),
                *("--pbkdf-force-iterations", "4"),
            )
            for kind, memory, lanes in (
                ("argon2i", "32", "1"),
                ("argon2i", "4097", "4"),
                ("argon2id", "65536", "1"),
                ("argon2id", "1000", "3"),
                ("argon2id", "32768", "4"),
            )
        ),
    ],
    ids=lambda words: "-".join(w for w in words if not w.startswith("--")),
)
def test_key_derivations(daemon, tmp_path, key, kdf):
    image = cryptsetup.luks_format(tmp_path / "i", key, 524288 + DATA_SIZE, *kdf)
    plaintext = fill(image, ["--key-file", key])
    daemon.cli("open", "--key-file", key, "--readonly", image, "v")
    assert daemon.device("v").read_bytes() == plaintext
    daemon.cli("close", "v")
    # The wrong passphrase goes the same way and must not open.
    result = daemon.run("open", "--key-file", "-", image, "v", stdin=b"wrong")
    assert result.status == 2, result


def test_detached_header(daemon, tmp_path, key):
    header, image = tmp_path / "header", tmp_path / "data"
    plaintext = os.urandom(DATA_SIZE)
    image.write_bytes(plaintext)
    cryptsetup.cryptsetup(
        *("luksFormat", "-q", "--type", "luks2", *cryptsetup.QUICK_PBKDF, "--header", header),
        *("--sector-size", "512", "--key-file", key, image),
    )
    volume_key = cryptsetup.volume_key(header, "--key-file", key)
    image.write_bytes(sectors.crypt(plaintext, "aes-xts-plain64", volume_key, encrypt=True))
    daemon.cli("open", "--header", header, "--key-file", key, image, "v")
    expected = bytearray(daemon.device("v").read_bytes())
    assert expected == plaintext
    odd_writes(daemon.device("v"), expected)
    daemon.cli("close", "v")
    assert sectors.crypt(image.read_bytes(), "aes-xts-plain64", volume_key) == expected


def test_key_file_with_offset_and_size(daemon, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(os.urandom(1000))
    place = ("--keyfile-offset", "123", "--keyfile-size", "77")
    image = cryptsetup.luks_format(tmp_path / "i", key, 524288 + DATA_SIZE, *place)
    plaintext = fill(image, ["--key-file", key, *place])
    daemon.cli("open", "--key-file", key, *place, "--readonly", image, "v")
    assert daemon.device("v").read_bytes() == plaintext
    daemon.cli("close", "v")
    assert daemon.run("open", "--key-file", key, image, "v").status == 2


def test_binary_key_file_and_key_file_from_standard_input(daemon, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"before\nafter\0\xff" + os.urandom(5000))
    image = cryptsetup.luks_format(tmp_path / "i", key, 524288 + DATA_SIZE)
    plaintext = fill(image, ["--key-file", key])
    daemon.cli("open", "--key-file", "-", "--readonly", image, "v", stdin=key.read_bytes())
    assert daemon.device("v").read_bytes() == plaintext
    daemon.cli("close", "v")
    # As a passphrase on standard input it ends at the newline, and is another one.
    assert daemon.run("open", image, "v", stdin=key.read_bytes()).status == 2


def test_passphrase_from_standard_input_ends_at_the_newline(daemon, tmp_path, key):
    image = cryptsetup.luks_format(tmp_path / "i", key, 524288 + DATA_SIZE)
    daemon.cli("open", image, "v", stdin=PASSPHRASE + b"\nsomething else\n")
    daemon.cli("close", "v")


def test_several_slots_with_priorities(daemon, tmp_path, key):
    image = cryptsetup.luks_format(
        tmp_path / "i",
        key,
        (4096 * 512) + DATA_SIZE,
        "--offset",
        "4096",
        "--luks2-keyslots-size",
        "1280k",
    )
    others = []
    argon2 = ("--pbkdf", "argon2id", "--pbkdf-memory", "1024", "--pbkdf-parallel", "2")
    pbkdf2 = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    for number, options in enumerate(
        (
            (*argon2, "--pbkdf-force-iterations", "4"),
            (*pbkdf2, "--hash", "sha512", "--key-slot", "9"),
            (*pbkdf2, "--key-slot", "20"),
        )
    ):
        other = tmp_path / f"other{number}"
        other.write_bytes(f"other passphrase {number}".encode())
        cryptsetup.cryptsetup("luksAddKey", "-q", *options, "--key-file", key, image, other)
        others.append(other)
    cryptsetup.cryptsetup("config", "--key-slot", "9", "--priority", "prefer", image)
    cryptsetup.cryptsetup("config", "--key-slot", "20", "--priority", "ignore", image)
    plaintext = fill(image, ["--key-file", key])
    for secret, slot in ((key, 0), (others[0], 1), (others[1], 9)):
        daemon.cli("open", "--key-file", secret, "--readonly", image, "v")
        assert daemon.cli("status", "v", "--json").json["keyslot"] == slot
        assert daemon.device("v").read_bytes() == plaintext
        daemon.cli("close", "v")
    # A slot of priority "ignore" opens only when it is named.
    assert daemon.run("open", "--key-file", others[2], image, "v").status == 2
    daemon.cli("open", "--key-file", others[2], "--key-slot", "20", "--readonly", image, "v")
    assert daemon.device("v").read_bytes() == plaintext
    daemon.cli("close", "v")
    assert daemon.run("open", "--key-file", key, "--key-slot", "1", image, "v").status == 2


def plain_key(passphrase: bytes, name: str, size: int) -> bytes:
    """cryptsetup's hashing of a plain passphrase: digests of it with one more A in front each."""
    name, _, length = name.partition(":")
    if name == "plain":
        key = passphrase.ljust(size, b"\0")[:size]
        return key[: int(length)].ljust(size, b"\0") if length else key
    wanted = int(length) if length else size
    key = b""
    while len(key) < wanted:
        key += hashlib.new(
            name, b"A" * (len(key) // hashlib.new(name).digest_size) + passphrase
        ).digest()
    return key[:wanted].ljust(size, b"\0")


@pytest.mark.parametrize(
    ("cipher", "key_bits", "name", "sector_size", "offset", "skip", "large"),
    [
        ("aes-cbc-essiv:sha256", 256, "ripemd160", 512, 0, 0, False),
        ("aes-xts-plain64", 512, "sha512", 512, 8, 8, False),
        ("aes-xts-plain64", 512, "sha256", 4096, 16, 8, False),
        ("aes-xts-plain64", 256, "sha384", 4096, 8, 16, True),
        ("aes-cbc-plain", 128, "sha1", 512, 3, 1 << 32, False),
        ("aes-cbc-plain64", 192, "sha256", 512, 0, (1 << 32) - 5, False),
        ("aes-cbc-plain64be", 256, "blake2b512", 2048, 4, 12, True),
        ("aes-xts-plain64", 512, "plain", 512, 0, 0, False),
        ("aes-cbc-essiv:sha256", 256, "sha256:20", 512, 0, 7, False),
    ],
)
def test_plain_volumes(daemon, tmp_path, cipher, key_bits, name, sector_size, offset, skip, large):
    # "plain" with XTS needs a passphrase that gives two different halves.
    passphrase = bytes(range(33, 97)) if name == "plain" else PASSPHRASE
    volume_key = plain_key(passphrase, name, key_bits // 8)
    plaintext = random.Random(2).randbytes(DATA_SIZE)
    step = sector_size // 512 if large else 1
    arguments = {"sector_size": sector_size, "first_iv": skip // step, "large_sectors": large}
    image = tmp_path / "i"
    image.write_bytes(
        os.urandom(offset * 512)
        + sectors.crypt(plaintext, cipher, volume_key, encrypt=True, **arguments)
    )
    name = {"blake2b512": "blake2b-512"}.get(name, name)
    daemon.cli(
        *("open", "--type", "plain", "--cipher", cipher, "--key-size", key_bits, "--hash", name),
        *("--sector-size", sector_size, "--offset", offset, "--skip", skip),
        *(["--iv-large-sectors"] if large else []),
        *(image, "v"),
        stdin=passphrase + b"\n",
    )
    expected = bytearray(daemon.device("v").read_bytes())
    assert expected == plaintext
    odd_writes(daemon.device("v"), expected)
    daemon.cli("close", "v")
    stored = image.read_bytes()[offset * 512 :]
    assert sectors.crypt(stored, cipher, volume_key, **arguments) == expected
