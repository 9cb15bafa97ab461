import hashlib
import os

import pytest

from fusecrypt.dmcrypt.engine.messages import DigestSpec, SecretMode
from fusecrypt.dmcrypt.loopaes import LoopaesParams, open_loopaes
from fusecrypt.keystore.errors import AccessError, ConfigError, UnlockError, UnsupportedError
from tests.golden import corpus
from tests.lab import golden

LINE = "q" * 60


def is_key(engine, key, wanted):
    salt = os.urandom(16)
    made = engine.make_digest(key, DigestSpec("sha256", 1000, salt, b"", 32))
    return made == hashlib.pbkdf2_hmac("sha256", wanted, salt, 1000, 32)


def open_lines(engine, load, content, **given):
    size = given.pop("data_size", 4096)
    secret = load(content.encode() if isinstance(content, str) else content, SecretMode.ALL)
    return open_loopaes(engine, LoopaesParams(**given), secret, data_size=size, read_only=True)


def hashed(lines, size, mark, hash_name):
    keys = [bytearray(hashlib.new(hash_name, line.encode()).digest()[:size]) for line in lines]
    for key in keys:
        key[0] ^= mark
    return b"".join(keys)


@pytest.mark.parametrize("image", golden.loopaes(), ids=lambda image: image["name"])
def test_golden_key_files_give_the_keys_that_cryptsetup_gave_the_kernel(engine, load, image):
    dm = image["dm"]
    (unlock,) = image["unlock"]
    words = image["commands"][0].split()
    bits = int(words[words.index("--key-size") + 1])
    cipher = words[words.index("--cipher") + 1] if "--cipher" in words else "aes"
    opened = open_lines(
        engine,
        load,
        corpus.read_key(unlock["keyfile"]),
        cipher=cipher,
        key_bits=bits,
        offset=dm["offset"],
        skip=dm["iv_offset"],
        data_size=(dm["offset"] + dm["sectors"]) * 512,
    )
    (segment,) = opened.table.segments
    key = bytes.fromhex(image["volume_key_hex"])
    assert is_key(engine, segment.key, key)
    assert (opened.cipher, opened.key_bits) == (dm["cipher"], len(key) * 8)
    assert (opened.offset, opened.iv_offset) == (dm["offset"] * 512, dm["iv_offset"])
    assert opened.table.size == image["plaintext"]["size"]


@pytest.mark.parametrize(("count", "mark"), [(1, 0), (64, 0x55), (65, 0xF4)])
@pytest.mark.parametrize(
    ("bits", "hash_name", "real"),
    [
        (128, "", "sha256"),
        (192, "", "sha384"),
        (256, "", "sha512"),
        (256, "sha1", None),
        (128, "sha512", "sha512"),
        (128, "ripemd160", None),
    ],
)
def test_keys_are_the_hashes_of_the_lines(engine, load, count, mark, bits, hash_name, real):
    lines = [f"{i:060}" for i in range(count)]
    given = {"key_bits": bits, "hash_name": hash_name}
    content = "".join(f"{line}\n" for line in lines)
    if hash_name == "sha1":  # 20 bytes are not 32
        with pytest.raises(ConfigError, match="256 bits by sha1; wanted"):
            open_lines(engine, load, content, **given)
        return
    opened = open_lines(engine, load, content, **given)
    (segment,) = opened.table.segments
    if real is not None:
        assert is_key(engine, segment.key, hashed(lines, bits // 8, mark, real))
    assert opened.cipher == ("aes-cbc-plain64" if count == 1 else "aes:64-cbc-lmk")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n", "\0"])
def test_lines_may_end_in_several_ways(engine, load, ends):
    lines = [f"{i:060}" for i in range(64)]
    opened = open_lines(engine, load, "".join(line + ends for line in lines), key_bits=128)
    (segment,) = opened.table.segments
    assert is_key(engine, segment.key, hashed(lines, 16, 0x55, "sha256"))


@pytest.mark.parametrize(
    "content",
    [
        "\n",
        LINE,
        f"{LINE}\n" * 2,
        f"{LINE}\n" * 63,
        f"{LINE}\n" * 66,
        f"{LINE}\n" * 63 + f"{LINE}x\n",
        f"{LINE}\n" * 64 + LINE,
        f"\n{LINE}\n",
    ],
    ids=["empty", "unended", "2", "63", "66", "uneven", "64 and a half", "empty first"],
)
def test_other_files_are_no_key_files(engine, load, content):
    with pytest.raises(UnlockError, match="wanted 1, 64 or 65 lines of one length"):
        open_lines(engine, load, content)


@pytest.mark.parametrize(
    "content",
    [
        b"-----BEGIN PGP MESSAGE-----\n\njA0EBwMCJz==\n-----END PGP MESSAGE-----\n",
        b"\x8c\x0d\x04\x09\x03\x08\xb8" + bytes(100),
    ],
    ids=["armoured", "binary"],
)
def test_what_gpg_encrypted_is_named_with_the_way_out(engine, load, content):
    with pytest.raises(UnlockError, match=r"encrypted by gpg; wanted.*gpg -d FILE"):
        open_lines(engine, load, content)


@pytest.mark.parametrize(
    ("given", "error", "what"),
    [
        ({"cipher": "aes-cbc"}, ConfigError, "without mode"),
        ({"cipher": "aes:64"}, ConfigError, "without mode"),
        ({"cipher": "cast6"}, UnsupportedError, "cast6"),
        ({"key_bits": 100}, ConfigError, "multiple of 8"),
        ({"key_bits": 160}, ConfigError, "wanted 128, 192 or 256, or a --hash"),
        ({"cipher": "twofish", "key_bits": 192}, ConfigError, "192 bits"),
        ({"offset": -1}, ConfigError, "offset -1"),
        ({"offset": 1 << 56}, ConfigError, "offset"),
        ({"skip": 1 << 64}, ConfigError, "skip"),
    ],
)
def test_parameters_that_cannot_be_are_refused(given, error, what):
    with pytest.raises(error, match=what):
        LoopaesParams(**given)


def test_unknown_hashes_and_small_devices_are_refused(engine, load):
    with pytest.raises(UnsupportedError, match="hash crc32: not supported"):
        open_lines(engine, load, f"{LINE}\n", hash_name="crc32")
    with pytest.raises(AccessError):
        open_lines(engine, load, f"{LINE}\n", offset=8)
