"""Sector ciphers against `cryptography` and against what the real dm-crypt wrote."""

import errno
import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.decrepit.ciphers import algorithms as decrepit
from cryptography.hazmat.primitives.ciphers import Cipher as Reference
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from tests.lab import golden
from tests.unit.engine.crypto_library import Cipher, arena_used, lib, refused, start

RANDOM = random.Random(1)
ALGORITHMS = {
    "aes": algorithms.AES,
    "camellia": decrepit.Camellia,
    "cast5": decrepit.CAST5,
    "blowfish": decrepit.Blowfish,
    "des3_ede": decrepit.TripleDES,
}


def make_iv(name, sector, sector_size, cipher, key):
    """The IV of one sector, in dm-crypt.c's words."""
    block = ALGORITHMS[cipher].block_size // 8
    if name == "plain":
        return (sector & 0xFFFFFFFF).to_bytes(block, "little")
    if name == "plain64":
        return sector.to_bytes(8, "little").ljust(block, b"\0")
    if name == "plain64be":
        return sector.to_bytes(block, "big")
    if name == "benbi":
        return (((sector << (9 - (block.bit_length() - 1))) + 1) % 2**64).to_bytes(block, "big")
    if name == "null":
        return bytes(block)
    if name == "eboiv":
        offset = (sector * sector_size % 2**64).to_bytes(8, "little").ljust(block, b"\0")
        return encrypt_block(cipher, key, offset)
    iv, _, hash_name = name.partition(":")
    assert iv == "essiv"
    salt = hashlib.new(hash_name, key).digest()
    return encrypt_block(cipher, salt, sector.to_bytes(8, "little").ljust(block, b"\0"))


def encrypt_block(cipher, key, block):
    return Reference(ALGORITHMS[cipher](key), modes.ECB()).encryptor().update(block)


def encrypt_reference(spec, key, plaintext, first, *, sector_size=512, large=False):
    cipher, mode, iv_name = (*spec.split("-"), "")[:3]
    mode_of = {"xts": modes.XTS, "cbc": modes.CBC, "ctr": modes.CTR}
    out = b""
    for offset in range(0, len(plaintext), sector_size):
        sector = (first + offset // 512) % 2**64
        if large:
            sector = (first >> (sector_size // 512).bit_length() - 1) + offset // sector_size
        if mode == "ecb":
            chosen = modes.ECB()
        else:
            chosen = mode_of[mode](make_iv(iv_name, sector, sector_size, cipher, key))
        encryptor = Reference(ALGORITHMS[cipher](key), chosen).encryptor()
        out += encryptor.update(plaintext[offset : offset + sector_size])
    return out


SPECS = [
    ("aes-xts-plain64", 64),
    ("aes-xts-plain64", 32),
    ("aes-xts-plain", 64),
    ("aes-xts-plain64be", 64),
    ("aes-xts-benbi", 64),
    ("aes-xts-null", 32),
    ("aes-xts-essiv:sha256", 32),
    ("aes-cbc-plain64", 16),
    ("aes-cbc-plain64", 24),
    ("aes-cbc-plain64", 32),
    ("aes-cbc-plain", 32),
    ("aes-cbc-plain64be", 32),
    ("aes-cbc-benbi", 32),
    ("aes-cbc-null", 16),
    ("aes-cbc-eboiv", 32),
    ("aes-cbc-eboiv", 16),
    ("aes-cbc-essiv:sha256", 32),
    ("aes-cbc-essiv:sha256", 16),
    ("aes-cbc-essiv:md5", 16),
    ("aes-cbc-essiv:blake2s256", 32),
    ("aes-cbc-essiv:sha3_256", 32),
    ("aes-ctr-plain64", 32),
    ("aes-ctr-plain64be", 16),
    ("aes-ecb", 32),
    ("camellia-cbc-plain64", 32),
    ("camellia-cbc-essiv:sha256", 16),
    ("cast5-cbc-plain64", 16),
    ("cast5-cbc-benbi", 16),
    ("cast5-cbc-essiv:md5", 16),
    ("blowfish-cbc-plain64", 16),
    ("blowfish-cbc-plain64", 32),
    ("blowfish-cbc-plain64be", 56),
    ("des3_ede-cbc-plain64", 24),
]
KERNEL_NAMES = {  # where hashlib's hashes have others
    "aes-cbc-essiv:blake2s256": "aes-cbc-essiv:blake2s-256",
    "aes-cbc-essiv:sha3_256": "aes-cbc-essiv:sha3-256",
}


@pytest.mark.parametrize(("spec", "key_size"), SPECS)
@pytest.mark.parametrize(
    ("sector_size", "large"), [(512, False), (512, True), (1024, True), (4096, False), (4096, True)]
)
def test_sectors_are_those_of_cryptography(spec, key_size, sector_size, large):
    key = RANDOM.randbytes(key_size)
    plaintext = RANDOM.randbytes(40 * sector_size)  # more than one batch of IVs
    with Cipher(
        KERNEL_NAMES.get(spec, spec), key, sector_size=sector_size, iv_large_sectors=large
    ) as cipher:
        for first in (0, 8, 2**32 - 16, 2**40 + 24):
            expected = encrypt_reference(
                spec, key, plaintext, first, sector_size=sector_size, large=large
            )
            assert cipher.encrypt(plaintext, first) == expected
            assert cipher.decrypt(expected, first) == plaintext


@pytest.mark.parametrize("spec", ["aes", "aes-plain"])
def test_the_oldest_spelling_is_cbc_plain(spec):
    key, plaintext = RANDOM.randbytes(16), RANDOM.randbytes(1024)
    with Cipher(spec, key) as cipher:
        expected = encrypt_reference("aes-cbc-plain", key, plaintext, 5)
        assert cipher.encrypt(plaintext, 5) == expected


def test_a_keycount_of_one_is_none():
    key, plaintext = RANDOM.randbytes(32), RANDOM.randbytes(1024)
    with Cipher("aes:1-xts-plain64", key) as cipher:
        expected = encrypt_reference("aes-xts-plain64", key, plaintext, 5)
        assert cipher.encrypt(plaintext, 5) == expected


def test_plain_wraps_at_2_tib_and_plain64_does_not():
    key, sector = RANDOM.randbytes(32), RANDOM.randbytes(512)
    with Cipher("aes-xts-plain", key) as plain, Cipher("aes-xts-plain64", key) as plain64:
        assert plain.encrypt(sector, 2**32 + 7) == plain.encrypt(sector, 7)
        assert plain64.encrypt(sector, 2**32 + 7) != plain64.encrypt(sector, 7)
        assert plain64.encrypt(sector, 7) == plain.encrypt(sector, 7)


def test_sector_numbers_wrap_at_64_bits():
    key, plaintext = RANDOM.randbytes(64), RANDOM.randbytes(4 * 512)
    with Cipher("aes-xts-plain64", key) as cipher:
        whole = cipher.encrypt(plaintext, 2**64 - 2)
        assert whole[1024:] == cipher.encrypt(plaintext[1024:], 0)


@pytest.mark.parametrize(
    ("spec", "key_size", "code"),
    [
        ("aes-xts-plain64", 31, errno.EINVAL),
        ("aes-xts-plain64", 16, errno.EINVAL),
        ("aes-xts-plain64", 128, errno.EINVAL),
        ("aes-cbc-plain64", 64, errno.EINVAL),
        ("cast5-cbc-plain64", 32, errno.EINVAL),
        ("aes-cbc-essiv:sha1", 16, errno.EINVAL),  # 20 bytes are no AES key
        ("aes-cbc-essiv:sha512", 32, errno.EINVAL),
        ("aes-cbc-essiv:nosuch", 16, errno.EOPNOTSUPP),
        ("aes-cbc-essiv", 16, errno.EOPNOTSUPP),
        ("aes-cbc-plain64:sha256", 16, errno.EOPNOTSUPP),
        ("aes-cbc", 16, errno.EOPNOTSUPP),
        ("aes-xts", 32, errno.EOPNOTSUPP),
        ("aes-ctr-eboiv", 32, errno.EOPNOTSUPP),
        ("aes-ecb-essiv:sha256", 32, errno.EOPNOTSUPP),
        ("aes-cbc-plain64-more", 16, errno.EOPNOTSUPP),
        ("aes-xts-lmk", 32, errno.EOPNOTSUPP),  # nothing could undo it
        ("aes-cbc-tcw", 32, errno.EINVAL),
        ("aes-cbc-elephant", 16, errno.EINVAL),
        ("aes-cbc-elephant", 33, errno.EINVAL),
        ("aes-xts-random", 32, errno.EOPNOTSUPP),
        ("aes-lrw-benbi", 16, errno.EINVAL),
        ("aes:64-cbc-lmk", 1032, errno.EINVAL),
        ("aes:3-cbc-plain64", 48, errno.EOPNOTSUPP),
        ("aes:128-cbc-plain64", 2048, errno.EOPNOTSUPP),
        ("aes:-cbc-plain64", 32, errno.EOPNOTSUPP),
        ("aes:2-cbc-plain64", 40, errno.EINVAL),
        ("capi:xts(ecb(aes))-plain64", 64, errno.EOPNOTSUPP),
        ("capi:essiv(cbc(aes))-plain64", 32, errno.EOPNOTSUPP),
        ("capi:", 32, errno.EOPNOTSUPP),
        ("capi:()-", 32, errno.EOPNOTSUPP),
        ("cipher_null-cbc-plain64", 0, errno.EOPNOTSUPP),
        ("xchacha12,aes-adiantum-plain64", 32, errno.EOPNOTSUPP),
        ("blowfish-xts-plain64", 32, errno.EOPNOTSUPP),  # XTS needs blocks of 16 bytes
        ("AES-xts-plain64", 64, errno.EOPNOTSUPP),
        ("", 16, errno.EOPNOTSUPP),
        ("-", 16, errno.EOPNOTSUPP),
        ("--", 16, errno.EOPNOTSUPP),
        ("aes-xts-plain64" + "x" * 80, 16, errno.EOPNOTSUPP),
    ],
)
def test_what_is_not_supported_is_refused_and_leaves_nothing(spec, key_size, code):
    with refused(code):
        Cipher(spec, RANDOM.randbytes(key_size))
    assert lib.cipher_check(spec.encode(), key_size) == -code


@pytest.mark.parametrize(("spec", "key_size"), SPECS)
def test_what_is_supported_passes_the_check_without_a_key(spec, key_size):
    start()
    assert lib.cipher_check(KERNEL_NAMES.get(spec, spec).encode(), key_size) == 0


@pytest.mark.parametrize("size", [32, 48, 64])
def test_an_xts_key_with_equal_halves_is_refused(size):
    with refused(errno.EKEYREJECTED):
        Cipher("aes-xts-plain64", RANDOM.randbytes(size // 2) * 2)


@pytest.mark.parametrize("spec", ["aes:2-xts-plain64", "capi:xts(aes)-plain64"])
def test_so_is_one_of_several_or_in_another_spelling(spec):
    whole = RANDOM.randbytes(64)
    key = RANDOM.randbytes(32) * 2
    with refused(errno.EKEYREJECTED):
        Cipher(spec, whole + key if ":2" in spec else key)


def test_a_raw_table_takes_equal_halves_as_the_kernel_does():
    key, plaintext = RANDOM.randbytes(32) * 2, RANDOM.randbytes(512)
    with Cipher("aes-xts-plain64", key, flags=lib.CIPHER_ANY_XTS_KEY) as cipher:
        assert cipher.decrypt(cipher.encrypt(plaintext)) == plaintext != cipher.encrypt(plaintext)


@pytest.mark.parametrize(("spec", "key_size"), [("aes-cbc-lmk", 16), ("aes-cbc-tcw", 48)])
@pytest.mark.parametrize("sector_size", [1024, 4096])
def test_lmk_and_tcw_are_made_of_512_bytes(spec, key_size, sector_size):
    with refused(errno.EINVAL):
        Cipher(spec, RANDOM.randbytes(key_size), sector_size=sector_size)


def test_cipher_null_enciphers_nothing():
    plaintext = RANDOM.randbytes(2048)
    with Cipher("cipher_null-ecb", RANDOM.randbytes(16)) as cipher:
        assert cipher.encrypt(plaintext, 7) == cipher.decrypt(plaintext, 7) == plaintext


@pytest.mark.parametrize("sector_size", [0, 256, 511, 513, 1536, 8192, 2**31])
def test_only_dm_crypts_sector_sizes(sector_size):
    with refused(errno.EINVAL):
        Cipher("aes-xts-plain64", RANDOM.randbytes(64), sector_size=sector_size)


def test_a_part_of_a_sector_is_refused():
    key = RANDOM.randbytes(64)
    with Cipher("aes-xts-plain64", key, sector_size=4096) as cipher, refused(errno.EIO):
        cipher.decrypt(bytes(512))


def test_threads_with_their_own_index_do_not_disturb_each_other():
    key, threads = RANDOM.randbytes(32), 4
    plaintext = RANDOM.randbytes(64 * 512)
    for spec in ("aes-xts-plain64", "aes-cbc-essiv:sha256"):
        expected = {n: encrypt_reference(spec, key, plaintext, n * 1000) for n in range(threads)}
        with Cipher(spec, key, threads=threads) as cipher:

            def work(thread, cipher=cipher, expected=expected):
                return all(
                    cipher.encrypt(plaintext, thread * 1000, thread) == expected[thread]
                    and cipher.decrypt(expected[thread], thread * 1000, thread) == plaintext
                    for _ in range(50)
                )

            with ThreadPoolExecutor(threads) as pool:
                assert all(pool.map(work, range(threads)))


def test_all_memory_of_a_cipher_returns_to_the_arena():
    start()
    before = arena_used()
    for spec, size in (
        ("aes-cbc-essiv:sha256", 32),
        ("aes:64-cbc-lmk", 2080),
        ("aes:4-cbc-essiv:sha256", 128),
        ("aes-cbc-elephant", 64),
        ("camellia-lrw-benbi", 48),
        ("xchacha20,aes-adiantum-plain64", 32),
    ):
        for _ in range(20):
            with Cipher(spec, RANDOM.randbytes(size), threads=8):
                assert lib.arena_info().used > before
        assert arena_used() == before


KERNEL_IMAGES = [
    *golden.images("opens"),
    *golden.manifest()["tables"],
    *golden.manifest()["loopaes"],
]


@pytest.mark.parametrize("image", KERNEL_IMAGES, ids=lambda image: image["name"])
def test_an_image_of_the_real_dm_crypt_is_deciphered(image, tmp_path):
    dm, expected = image["dm"], image["plaintext"]
    data = golden.unpack(image, tmp_path)["data"].read_bytes()
    ciphertext = data[dm["offset"] * 512 :][: dm["sectors"] * 512]
    with Cipher(
        dm["cipher"],
        bytes.fromhex(image["volume_key_hex"]),
        sector_size=dm["sector_size"],
        iv_large_sectors="iv_large_sectors" in dm["opts"],
        flags=lib.CIPHER_ANY_XTS_KEY if "samekeys" in image["name"] else 0,
    ) as cipher:
        plaintext = cipher.decrypt(ciphertext, dm["iv_offset"])
        assert hashlib.sha256(plaintext).hexdigest() == expected["sha256"]
        assert cipher.encrypt(plaintext, dm["iv_offset"]) == ciphertext
