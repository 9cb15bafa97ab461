import pytest

from fusecrypt.dmcrypt.plain import PlainParams, get_length, make_params, parse_hash, plain_table
from fusecrypt.keystore.errors import AccessError, ConfigError, UnsupportedError
from fusecrypt.keystore.keys import ProtectedKey
from tests.golden import corpus
from tests.lab import sectors

KEY = ProtectedKey(b"k")
MIB = 1 << 20


def params(**changes):
    given = {"cipher": "aes-xts-plain64", "key_bits": 512} | changes
    return PlainParams(**given)


def of_image(about):
    plain = about["plain"]
    return make_params(
        cipher=plain["cipher"],
        key_bits=plain["key_bits"],
        hash_spec=plain["hash"],
        has_keyfile="passphrase" not in plain,
        offset=plain["offset"],
        skip=plain["skip"],
        size=plain["size"],
        sector_size=plain["sector_size"],
        iv_large_sectors=plain["iv_large_sectors"],
    )


@pytest.mark.parametrize("image", corpus.images("plain", accepted=True), ids=lambda i: i.name)
def test_golden_tables_are_those_of_the_kernel_and_decipher_to_its_plaintext(image):
    made = of_image(image.about)
    table = plain_table(made, KEY, len(image.data), read_only=True)
    (segment,) = table.segments
    dm = image.about["dm"]
    assert segment.cipher is not None
    assert segment.cipher.dm_name == dm["cipher"]
    assert table.size == image.about["plaintext"]["size"] == dm["sectors"] * 512
    assert (segment.backing_offset, segment.iv_offset) == (dm["offset"] * 512, dm["iv_offset"])
    assert table.sector_size == (dm["sector_size"] or 512)
    assert segment.iv_large_sectors == ("iv_large_sectors" in dm["opts"])
    first = segment.iv_offset
    if segment.iv_large_sectors:
        first //= table.sector_size // 512
    plaintext = sectors.crypt(
        image.data[segment.backing_offset : segment.backing_offset + table.size],
        segment.cipher.dm_name,
        image.volume_key,
        sector_size=table.sector_size,
        first_iv=first,
        large_sectors=segment.iv_large_sectors,
    )
    assert sectors_digest(plaintext) == image.about["plaintext"]["sha256"]


def sectors_digest(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ({"cipher"}, "cipher must"),
        ({"key_bits"}, "key size must"),
        ({"hash_spec"}, "hash must"),
        ({"cipher", "key_bits", "hash_spec"}, "cipher and key size and hash must"),
    ],
)
def test_what_the_defaults_of_the_tools_disagree_on_must_be_given(missing, named):
    given = {"cipher": "aes-cbc-plain", "key_bits": 256, "hash_spec": "sha256"}
    with pytest.raises(ConfigError, match=named) as caught:
        make_params(**{k: None if k in missing else v for k, v in given.items()}, has_keyfile=False)
    for default in ("aes-cbc-essiv:sha256", "ripemd160", "aes-xts-plain64", "sha256"):
        assert default in str(caught.value)


def test_key_file_needs_no_hash_and_ignores_one():
    for spec in (None, "sha512", "nonsense:x"):
        made = make_params(cipher="aes-cbc-plain", key_bits=256, hash_spec=spec, has_keyfile=True)
        assert made.hash == ""


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("sha256", ("sha256", None)),
        ("sha1:16", ("sha1", 16)),
        ("sha256:0", ("sha256", 0)),
        ("plain", ("plain", None)),
        ("plain:32", ("plain", 32)),
    ],
)
def test_hash_may_say_how_many_bytes_count(text, parsed):
    assert parse_hash(text) == parsed
    assert params(hash_name=text).hash == text


@pytest.mark.parametrize(
    "text", ["", ":16", "sha1:", "sha1:x", "sha1:-1", "sha1:\u00b2", "a:99999"]
)
def test_hash_lengths_that_mean_nothing_are_refused(text):
    with pytest.raises(ConfigError, match="hash"):
        parse_hash(text)


def test_hash_longer_than_the_key_is_refused():
    with pytest.raises(ConfigError, match="65 bytes of it, the key has only 64"):
        params(hash_name="sha512:65")
    assert params(hash_name="sha512", hash_length=64).hash == "sha512:64"
    with pytest.raises(ConfigError, match="wanted NAME or NAME:N"):
        params(hash_name="sha512:32", hash_length=32)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"key_bits": 100}, "not a multiple of 8"),
        ({"key_bits": 128}, "wanted 256, 384, 512"),
        ({"sector_size": 1000}, "sector size 1000"),
        ({"sector_size": 8192}, "sector size 8192"),
        ({"iv_large_sectors": True}, "large IV sectors"),
        ({"offset": -1}, "offset -1"),
        ({"skip": -1}, "skip -1"),
        ({"skip": 1 << 64}, "does not fit"),
        ({"offset": 1 << 60}, "does not fit"),
        ({"size": 0}, "size 0"),
        ({"sector_size": 4096, "skip": 4}, "skip 4 .* not a multiple of 8"),
        ({"sector_size": 4096, "size": 12}, "size 12 .* not a multiple of 8"),
    ],
)
def test_what_cryptsetup_or_dm_crypt_refuses_is_refused(changes, what):
    with pytest.raises(ConfigError, match=what):
        params(**changes)


@pytest.mark.parametrize(("cipher", "bits"), [("aes-cbc-lmk", 256), ("aes-cbc-tcw", 512)])
def test_ivs_of_512_bytes_are_refused_with_larger_sectors(cipher, bits):
    params(cipher=cipher, key_bits=bits)
    with pytest.raises(ConfigError, match="with a sector size of 4096, wanted 512"):
        params(cipher=cipher, key_bits=bits, sector_size=4096)


def test_offset_need_not_be_aligned_to_the_sector_size():
    made = params(sector_size=4096, offset=1)
    assert get_length(made, 512 + 8192) == 8192


def test_other_ciphers_are_refused_by_name():
    with pytest.raises(UnsupportedError, match="aria"):
        params(cipher="aria-xts-plain64")


def test_length_is_the_rest_of_the_device_in_whole_sectors():
    assert get_length(params(), MIB) == MIB
    assert get_length(params(), MIB + 511) == MIB
    assert get_length(params(offset=8), MIB) == MIB - 4096
    assert get_length(params(size=16), MIB) == 8192


@pytest.mark.parametrize(
    ("changes", "size", "error", "what"),
    [
        ({"offset": 2048}, MIB, AccessError, "offset 2048 .* which has 2048"),
        ({"offset": 1 << 40}, MIB, AccessError, "beyond the device"),
        ({}, 0, AccessError, "beyond the device, which has 0"),
        ({}, 511, AccessError, "beyond the device"),
        ({"size": 2049}, MIB, AccessError, "only 2048"),
        ({"sector_size": 4096}, MIB + 512, ConfigError, "not a multiple of the sector size"),
        ({"sector_size": 4096, "size": 8}, MIB + 512, ConfigError, "not a multiple"),
    ],
)
def test_device_that_does_not_fit_is_refused_with_both_sizes(changes, size, error, what):
    with pytest.raises(error, match=what):
        get_length(params(**changes), size)
