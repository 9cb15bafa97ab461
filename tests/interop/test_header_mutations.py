"""Headers with something wrong at random: what opens here opens with the real tool, and back."""

import copy
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fusecrypt.dmcrypt import luks_change
from fusecrypt.dmcrypt.backing import get_size, pread_from
from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.luks_header import read_luks_header
from fusecrypt.keystore.errors import MapperError, UnlockError
from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_session import given, running_engine
from tests.lab.header_volume import Lab

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

ROUNDS = 50
COPY = 16384  # bytes of each copy of a LUKS2 header
JSON = 4096
VALUES = [
    *(0, -1, 1, 2, 7, 16, 31, 32, 33, 64, 999, 4000, 4001, 2**31, 2**32, 1.5, None, True),
    *("", "x", "0", "-1", "7", "512", "4096", "32768", str(2**64 - 1), str(2**64), "007", " 1"),
    *([], {}, ["0"], "sha1", "sha512", "md5", "argon2id", "luks2", "raw", "crypt", "linear"),
    *("aes-cbc-plain64", "cipher_null-ecb", "SHA256", "dynamic", "prefer", "luks2-keyring"),
]
FIELDS = [4, 6, 7, 8, 11, 40, 44, 72, 75, 104, 107, 110, 112, 132, 164, 166, 168]
SLOT_FIELDS = [0, 3, 6, 7, 8, 39, 40, 42, 43, 44, 46, 47]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("mutations"))
    two = lab.image("two", "p1", "-s", "256")
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "-d", lab.key("p1"), two, lab.key("p2"))
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "--unbound", "-s", "128", two, lab.key("p3"))
    lab.real_ok("token", "add", "--key-description", "d", two)
    one = lab.directory / "one"
    one.touch()
    os.truncate(one, 2 << 20)
    cheap = ("-c", "aes-cbc-essiv:sha256", "-s", "128", "--pbkdf-force-iterations", "1000")
    lab.real_ok("luksFormat", "-q", "--type", "luks1", *cheap, one, lab.key("p1"))
    lab.real_ok("luksAddKey", *cheap[4:], "-d", lab.key("p1"), one, lab.key("p2"))
    return lab


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


def mutate_luks1(image: bytearray, chance: random.Random) -> str:
    """Up to two bytes, mostly those that mean something; iterations stay few."""
    places = []
    for _ in range(chance.choice([1, 1, 2])):
        slot = 208 + 48 * chance.randrange(3)
        some = chance.choice([*FIELDS, *(slot + at for at in SLOT_FIELDS), chance.randrange(592)])
        image[some] = chance.choice([0, 1, 255, chance.randrange(256), image[some] ^ 1])
        places.append((some, image[some]))
    for at in (164, *(208 + 48 * number + 4 for number in range(8))):
        image[at : at + 2] = bytes(2)
    return f"bytes {places}"


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside: list[tuple[Any, ...]] = []
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        inside = [found for key in keys for found in list_paths(value[key], (*path, key))]
    return [path, *inside] if path else inside


def mutate_luks2(image: bytearray, chance: random.Random) -> str:
    """One value of the JSON, in one copy or in both; the checksums fit."""
    root = json.loads(image[JSON:COPY].split(b"\0")[0])
    path = chance.choice(list_paths(root))
    inside = root
    for key in path[:-1]:
        inside = inside[key]
    value = copy.deepcopy(chance.choice([*VALUES, inside]))
    if path[-1] in ("iterations", "key_size", "stripes") and isinstance(value, int):
        value = min(value, 1001)  # of a key of 4 GiB the real tool does not come back
    if chance.randrange(4):
        inside[path[-1]] = value
    else:
        value = "gone"
        del inside[path[-1]]
    text = json.dumps(root, separators=(",", ":")).encode()
    copies = chance.choice([(0, COPY), (0, COPY), (0,), (COPY,)])
    for begin in copies:
        image[begin + JSON : begin + COPY] = text.ljust(COPY - JSON, b"\0")
        image[begin + 448 : begin + 512] = bytes(64)
        digest = hashlib.sha256(image[begin : begin + COPY]).digest()
        image[begin + 448 : begin + 480] = digest
    return f"{'.'.join(map(str, path))}: {value} in {copies}"


def open_here(engine: Engine, image: Path, key: str) -> tuple[int | None, MapperError | None]:
    """The keyslot, or why not; anything but a refusal fails the test."""
    fd = os.open(image, os.O_RDONLY)
    try:
        with given(engine, key) as secret:
            header = read_luks_header(pread_from(fd), get_size(fd), "luks")
            keyslot = luks_change.unlock(engine, header, fd, secret, number=None).keyslot
            assert keyslot is not None
            return keyslot.id, None
    except MapperError as error:
        return None, error
    finally:
        os.close(fd)


@pytest.mark.parametrize(("base", "mutate"), [("one", mutate_luks1), ("two", mutate_luks2)])
def test_a_header_with_something_wrong_opens_in_both_or_in_none(
    lab: Lab, engine: Engine, base: str, mutate: Callable[[bytearray, random.Random], str]
) -> None:
    chance = random.Random(base)
    sound = (lab.directory / base).read_bytes()
    image = lab.directory / "mutated"
    opened = 0
    for _ in range(ROUNDS):
        data = bytearray(sound)
        what = mutate(data, chance)
        key = chance.choice(["p1", "p2"])
        image.write_bytes(data)
        number, refusal = open_here(engine, image, key)
        assert image.read_bytes() == data, what
        theirs = lab.real("open", "--test-passphrase", "-v", "-d", lab.key(key), image)
        opened += number is not None
        if number is not None and theirs.code == 0:
            assert f"Key slot {number} unlocked" in theirs.out, what
        elif number is not None:
            # It gives up at the first keyslot that it cannot try; here the others are tried, too.
            assert "Keyslot open failed" in theirs.err, (what, theirs)
        elif theirs.code == 0:
            # It checks less, and takes any key where the digest cannot be compared.
            assert not isinstance(refusal, UnlockError) or "digests." in what, (what, refusal)
            assert str(refusal), what
    assert ROUNDS / 10 < opened < ROUNDS
