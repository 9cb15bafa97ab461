from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.dmcrypt.cipher_spec import CipherSpec
from fusecrypt.dmcrypt.ciphers import CIPHERS, DIGEST_SIZES, IVS, MODES
from fusecrypt.dmcrypt.engine._engine import lib
from fusecrypt.keystore.errors import ConfigError, MapperError, UnsupportedError

SERVED = [
    *(f"aes-{mode}-{iv}" for mode in ("xts", "cbc") for iv in IVS if iv not in ("essiv", "lmk")),
    "aes-xts-essiv:sha256",
    "aes-cbc-essiv:md5",
    "aes-cbc-lmk",
    "aes:64-cbc-lmk",
    "aes:2-cbc-plain64",
    "serpent-xts-plain64",
    "serpent-cbc-essiv:sha1",
    "twofish-cbc-essiv:sha256",
    "camellia-lrw-benbi",
    "des3_ede-pcbc-plain64",
    "cast5-cbc-essiv:md5",
    "blowfish-ctr-plain64be",
    "aes-ecb",
    "cipher_null-ecb",
    "xchacha20,aes-adiantum-plain64",
    "paes-xts-plain64",
    "capi:xts(aes)-plain64",
    "capi:cbc(aes)-essiv:sha3-256",
    "capi:essiv(cbc(aes),sha256)-plain64",
    "capi:essiv(cbc(aes),sha3-256)-plain",
    "capi:ecb(serpent)",
    "capi:adiantum(xchacha20,aes)-plain64",
    "capi:xts(paes)-plain64",
]


@pytest.mark.parametrize("name", SERVED)
def test_what_we_serve_is_spelt_back_as_it_was_read(name):
    spec = CipherSpec.parse(name)
    assert spec.dm_name == name
    assert CipherSpec.parse(spec.dm_name) == spec


@pytest.mark.parametrize("name", ["aes", "aes-plain", "aes-cbc-plain", "aes:1-cbc-plain"])
def test_short_forms_mean_cbc_plain_as_for_dm_crypt(name):
    assert CipherSpec.parse(name).dm_name == "aes-cbc-plain"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("cast6-cbc-plain64", "cast6"),
        ("aria-xts-plain64", "aria"),
        ("xchacha12,aes-adiantum-plain64", "xchacha12,aes"),
        ("capi:adiantum(xchacha12,aes)-plain64", "xchacha12,aes"),
        ("aes-adiantum-plain64", "adiantum of aes"),
        ("xchacha20,aes-cbc-plain64", "xchacha20,aes"),
        ("rot13-cbc-plain64", "rot13"),
        ("aes-hctr2-plain64", "hctr2"),
        ("aes-xts-random", "random"),
        ("aes-xts-nosuch", "nosuch"),
        ("aes-xts-lmk", "lmk"),
        ("aes-ecb-tcw", "tcw"),
        ("aes-ctr-eboiv", "eboiv"),
        ("blowfish-xts-plain64", "xts"),
        ("aes-cbc-essiv:sha512", "sha512"),
        ("aes-cbc-essiv:nosuch", "nosuch"),
        ("aes-ecb-essiv:sha256", "essiv"),
        ("aes:128-cbc-plain64", "128 keys"),
        ("cipher_null-cbc-plain", "cipher_null"),
        ("capi:authenc(hmac(sha256),cbc(aes))-plain64", "capi:authenc"),
        ("capi:xts(ecb(aes))-plain64", "capi:xts"),
        ("capi:essiv(essiv(cbc(aes),sha256),sha256)-plain64", "capi:essiv"),
        ("capi:essiv(cbc(aes),sha256)-eboiv", "eboiv"),
        ("capi:hctr2(aes)-plain64", "hctr2"),
        ("paes-cbc-essiv:sha256", "essiv"),
        ("paes-cbc-tcw", "tcw"),
        ("paes:2-cbc-plain64", "several keys"),
        ("paes-ecb", "ecb"),
    ],
)
def test_what_we_do_not_serve_is_named(name, what):
    with pytest.raises(UnsupportedError, match=f"{what}.* not"):
        CipherSpec.parse(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "aes cbc",
        "aes-xts",
        "capi:xts(aes)",
        "aes-cbc-essiv",
        "aes-xts-plain64:sha256",
        "aes:3-cbc-lmk",
        "aes:0-cbc-lmk",
        "aes:-cbc-lmk",
        "aes:x-cbc-lmk",
    ],
)
def test_incomplete_names_are_wrong_parameters(name):
    with pytest.raises(ConfigError):
        CipherSpec.parse(name)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("aes-xts-plain64", (256, 384, 512)),
        ("aes-cbc-plain", (128, 192, 256)),
        ("twofish-xts-plain64", (256, 512)),
        ("aes-lrw-benbi", (256, 320, 384)),
        ("aes-cbc-elephant", (256, 384, 512)),
        ("aes-cbc-tcw", (384, 448, 512)),
        ("cast5-cbc-tcw", (320,)),
        ("aes:2-cbc-plain64", (256, 384, 512)),
        ("aes:64-cbc-lmk", (8192, 8320, 12288, 12480, 16384, 16640)),
        ("des3_ede-cbc-plain64", (192,)),
        ("xchacha20,aes-adiantum-plain64", (256,)),
    ],
)
def test_key_sizes_are_those_of_cipher_mode_and_iv(name, bits):
    spec = CipherSpec.parse(name)
    assert tuple(size * 8 for size in spec.key_sizes) == bits
    for size in bits:
        spec.check_key_size(size // 8)
    with pytest.raises(ConfigError, match=f"8 bits, wanted {', '.join(map(str, bits))}"):
        spec.check_key_size(1)


def test_many_key_sizes_are_not_listed_one_by_one():
    with pytest.raises(ConfigError, match="512 bits, wanted 32 to 448 in steps of 8"):
        CipherSpec.parse("blowfish-cbc-plain64").check_key_size(64)


def test_cipher_null_takes_any_key():
    for size in (0, 5, 16, 64):
        CipherSpec.parse("cipher_null-ecb").check_key_size(size)


@pytest.mark.parametrize("iv", ["lmk", "tcw"])
def test_some_ivs_are_made_of_512_bytes(iv):
    spec = CipherSpec.parse(f"aes-cbc-{iv}")
    spec.check_sector_size(512)
    with pytest.raises(ConfigError, match=f"{iv} with a sector size of 4096, wanted 512"):
        spec.check_sector_size(4096)


def engine_takes(name, key_size):
    return lib.cipher_check(name.encode(), key_size) == 0


def we_take(name, key_size):
    try:
        CipherSpec.parse(name).check_key_size(key_size)
    except MapperError:
        return False
    return True


KEY_SIZES = (4, 5, 8, 16, 20, 24, 28, 32, 33, 40, 48, 56, 64, 72, 80, 96, 1024, 1040, 1536, 2080)


@pytest.mark.parametrize("cipher", [*CIPHERS, "aes:2", "serpent:64", "cast6", "xchacha12,aes"])
def test_the_engine_takes_the_same(cipher):
    hashes = ("essiv:md5", "essiv:sha1", "essiv:sha256", "essiv:sha512", "essiv:nosuch", "essiv")
    ivs = [*IVS, *hashes, "random", ""]
    names = [
        f"{cipher}-{mode}{'-' if iv else ''}{iv}" for mode, iv in product([*MODES, "cts"], ivs)
    ]
    if ":" not in cipher:
        names += [
            f"capi:{mode}({cipher}){'-' if iv else ''}{iv}" for mode, iv in product(MODES, ivs)
        ]
        names += [f"capi:essiv({mode}({cipher}),sha256)-{iv}" for mode, iv in product(MODES, IVS)]
    taken = 0
    for name, size in product(names, KEY_SIZES):
        assert engine_takes(name, size) == we_take(name, size), (name, size)
        taken += we_take(name, size)
    assert taken or cipher in ("cast6", "xchacha12,aes")


@pytest.mark.parametrize("hash_name", DIGEST_SIZES)
def test_the_engine_takes_the_same_hashes_for_essiv(hash_name):
    for cipher in ("aes", "serpent", "blowfish", "twofish"):
        name = f"{cipher}-cbc-essiv:{hash_name}"
        assert engine_takes(name, 16) == we_take(name, 16), name


@given(
    st.text()
    | st.from_regex(r"(aes|serpent:[0-9]+)-(xts|cbc|ctr)-[a-z0-9:-]*", fullmatch=True)
    | st.from_regex(r"capi:(essiv\()?(cbc|ecb)\(aes\)[a-z0-9:,)-]*", fullmatch=True)
)
def test_any_name_is_read_or_refused_and_by_the_engine_alike(name):
    if "paes" not in name and "\0" not in name and len(name.encode("utf-8", "replace")) < 64:
        for size in (16, 32, 48, 64, 128):
            assert engine_takes(name, size) == we_take(name, size), (name, size)
    try:
        spec = CipherSpec.parse(name)
    except MapperError:
        return
    assert CipherSpec.parse(spec.dm_name) == spec


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("aes-xts-plain64", ""),
        ("serpent-cbc-essiv:sha256", ""),
        ("xchacha20,aes-adiantum-plain64", ""),
        ("paes-xts-plain64", ""),
        ("des3_ede-cbc-plain64", "64 bits"),
        ("blowfish-cbc-plain64", "64 bits"),
        ("capi:cbc(cast5)-plain64", "64 bits"),
        ("cipher_null-ecb", "nothing"),
    ],
)
def test_weak_ciphers_are_named_with_the_reason(name, said):
    assert said in CipherSpec.parse(name).weakness
    assert bool(said) == bool(CipherSpec.parse(name).weakness)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("aes-xts-plain64", 64),
        ("aes-cbc-plain64", 32),
        ("aes-lrw-benbi", 32),
        ("des3_ede-cbc-plain64", 24),
        ("cast5-cbc-plain64", 16),
        ("cipher_null-ecb", 16),
    ],
)
def test_a_key_has_256_bits_or_what_the_cipher_takes(name, size):
    assert CipherSpec.parse(name).default_key_size == size


def test_paes_is_aes_with_another_kind_of_key():
    spec = CipherSpec.parse("paes-xts-plain64")
    assert spec.takes_secure_keys
    assert spec.dm_name == "paes-xts-plain64"
    assert spec.effective.dm_name == "aes-xts-plain64"
    assert not spec.effective.takes_secure_keys
    # The --key-size values of the tools: CCA-AESDATA, CCA-AESCIPHER, EP11-AES, protected keys.
    for bits in (1024, 2176, 5120, 5376, 1280, 896, 640):
        spec.check_key_size(bits // 8)
    for bits in (512, 1088, 2560, 2688, 640):
        CipherSpec.parse("paes-cbc-plain64").check_key_size(bits // 8)


def test_other_sizes_are_no_keys_of_paes():
    with pytest.raises(ConfigError, match="a key of 1088 bits, wanted 1024, 2176"):
        CipherSpec.parse("paes-xts-plain64").check_key_size(136)
