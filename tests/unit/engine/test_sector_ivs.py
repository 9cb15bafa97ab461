"""Every IV, mode and kind of key of the engine against the second implementation."""

import random

import pytest

from tests.lab import sectors
from tests.unit.engine.crypto_library import Cipher

RANDOM = random.Random(2)
SIZES = ((512, False), (1024, True), (2048, False), (4096, False), (4096, True))
#: Numbers of the first sector, in 512 bytes: multiples of 8, so that they begin any sector.
FIRST = (0, 8, 2**32 - 16, 2**40 + 24, 2**63 - 8, 2**64 - 16)

IVS = ("plain", "plain64", "plain64be", "benbi", "null", "essiv:sha256", "eboiv")
SPECS = [
    *((f"aes-cbc-{iv}", 32) for iv in IVS),
    *((f"aes-xts-{iv}", 64 if iv != "essiv:sha256" else 32) for iv in IVS),
    *((f"aes-lrw-{iv}", 48) for iv in IVS if iv != "eboiv"),
    *((f"aes-pcbc-{iv}", 16) for iv in IVS if iv != "essiv:sha256"),
    *((f"aes-ctr-{iv}", 24) for iv in ("plain", "plain64", "plain64be", "benbi", "null")),
    ("aes-xts-eboiv", 48),
    ("aes-lrw-eboiv", 32),
    ("aes-lrw-benbi", 40),
    ("aes-pcbc-essiv:md5", 16),
    ("aes-ecb-plain64", 32),
    ("aes-cbc-elephant", 32),
    ("aes-cbc-elephant", 64),
    ("aes-xts-elephant", 64),
    ("camellia-xts-plain64", 64),
    ("camellia-xts-benbi", 48),
    ("camellia-lrw-benbi", 32),
    ("cast5-pcbc-plain64be", 16),
    ("blowfish-ctr-benbi", 20),
    ("des3_ede-cbc-benbi", 24),
    ("des-cbc-eboiv", 8),
    ("blowfish-cbc-elephant", 32),
    ("capi:cbc(aes)-essiv:sha256", 32),
    ("capi:essiv(cbc(aes),sha256)-plain64", 32),
    ("capi:essiv(cbc(aes),sha3-256)-plain64be", 32),
    ("capi:essiv(xts(aes),sha256)-benbi", 64),
    ("capi:lrw(camellia)-benbi", 48),
    ("aes:2-cbc-plain64", 32),
    ("aes:4-xts-plain64", 256),
    ("aes:4-cbc-essiv:sha256", 128),
    ("aes:2-lrw-benbi", 64),
    ("aes:2-cbc-eboiv", 64),
    ("aes:2-cbc-elephant", 64),
    ("camellia:8-ecb", 128),
]
OF_512 = [
    ("aes-cbc-tcw", 48),
    ("aes-cbc-tcw", 64),
    ("aes-xts-tcw", 96),
    ("blowfish-cbc-tcw", 56),
    ("cast5-ctr-tcw", 40),
    ("aes:2-cbc-tcw", 64),
    ("aes-cbc-lmk", 32),
    ("aes:2-cbc-lmk", 32),
    ("aes:64-cbc-lmk", 1024),
    ("aes:64-cbc-lmk", 1040),
    ("aes:64-cbc-lmk", 2080),
    ("blowfish-cbc-lmk", 16),
    ("cast5:64-cbc-lmk", 1040),
    ("camellia:64-cbc-lmk", 1560),
]


def compare(spec, key_size, sector_size, *, large, first, count):
    key = RANDOM.randbytes(key_size)
    plaintext = RANDOM.randbytes(count * sector_size)
    expected = sectors.crypt(
        plaintext,
        spec,
        key,
        sector_size=sector_size,
        first_iv=first // (sector_size // 512 if large else 1),
        large_sectors=large,
        encrypt=True,
    )
    with Cipher(spec, key, sector_size=sector_size, iv_large_sectors=large) as cipher:
        assert cipher.encrypt(plaintext, first) == expected
        assert cipher.decrypt(expected, first) == plaintext
    assert expected != plaintext


@pytest.mark.parametrize(("spec", "key_size"), SPECS)
@pytest.mark.parametrize("first", FIRST)
def test_sectors_are_those_of_the_second_implementation(spec, key_size, first):
    for sector_size, large in SIZES:
        compare(spec, key_size, sector_size, large=large, first=first, count=3)


@pytest.mark.parametrize(("spec", "key_size"), OF_512)
def test_so_are_those_that_are_made_of_512_bytes(spec, key_size):
    for first in FIRST:
        compare(spec, key_size, 512, large=False, first=first, count=3)


@pytest.mark.parametrize(
    ("spec", "key_size"),
    [*OF_512, ("aes:4-cbc-essiv:sha256", 128), ("aes-cbc-eboiv", 16), ("aes-lrw-benbi", 48)],
)
def test_more_sectors_than_ivs_are_made_at_once(spec, key_size):
    compare(spec, key_size, 512, large=False, first=2**32 - 40, count=70)
