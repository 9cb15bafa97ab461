import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.dmcrypt.cipher_spec import CipherSpec
from fusecrypt.keystore.errors import ConfigError, MapperError, UnsupportedError

IVS = ["plain", "plain64", "plain64be", "essiv:sha256", "essiv:md5"]


@pytest.mark.parametrize("iv", IVS)
@pytest.mark.parametrize("mode", ["xts", "cbc"])
def test_what_we_serve_is_spelt_back_as_it_was_read(mode, iv):
    name = f"aes-{mode}-{iv}"
    spec = CipherSpec.parse(name)
    assert spec.dm_name == name
    assert spec.is_xts == (mode == "xts")
    assert CipherSpec.parse(spec.dm_name) == spec


@pytest.mark.parametrize("name", ["aes", "aes-plain", "aes-cbc-plain"])
def test_short_forms_mean_cbc_plain_as_for_dm_crypt(name):
    assert CipherSpec.parse(name).dm_name == "aes-cbc-plain"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("serpent-xts-plain64", "serpent"),
        ("cipher_null-ecb", "cipher_null"),
        ("aes-ecb", "ecb"),
        ("aes-lrw-benbi", "lrw"),
        ("aes-cbc-benbi", "benbi"),
        ("aes-cbc-null", "null"),
        ("aes-cbc-elephant", "elephant"),
        ("capi:xts(aes)-plain64", "capi:"),
        ("aes:64-cbc-lmk", "aes:64-cbc-lmk"),
        ("aes-cbc-essiv:sha512", "sha512"),
        ("xchacha20,aes-adiantum-plain64", "xchacha20,aes"),
        ("paes-cbc-essiv:sha256", "essiv"),
        ("paes-ecb", "ecb"),
    ],
)
def test_what_we_do_not_serve_is_named(name, what):
    with pytest.raises(UnsupportedError, match=f"{what}.* not"):
        CipherSpec.parse(name)


@pytest.mark.parametrize(
    "name", ["", "aes cbc", "aes-xts", "aes-cbc-essiv", "aes-xts-plain64:sha256"]
)
def test_incomplete_names_are_wrong_parameters(name):
    with pytest.raises(ConfigError):
        CipherSpec.parse(name)


def test_key_sizes_are_those_of_the_mode():
    xts, cbc = CipherSpec.parse("aes-xts-plain64"), CipherSpec.parse("aes-cbc-plain")
    for size in (32, 48, 64):
        xts.check_key_size(size)
    for size in (16, 24, 32):
        cbc.check_key_size(size)
    with pytest.raises(ConfigError, match="128 bits, wanted 256, 384, 512"):
        xts.check_key_size(16)
    with pytest.raises(ConfigError, match="512 bits, wanted 128, 192, 256"):
        cbc.check_key_size(64)


@given(st.text() | st.from_regex(r"aes-(xts|cbc|ctr)-[a-z0-9:-]*", fullmatch=True))
def test_any_name_is_read_or_refused(name):
    try:
        spec = CipherSpec.parse(name)
    except MapperError:
        return
    assert CipherSpec.parse(spec.dm_name) == spec


def test_paes_is_aes_with_another_kind_of_key():
    spec = CipherSpec.parse("paes-xts-plain64")
    assert spec.takes_secure_keys
    assert spec.dm_name == "paes-xts-plain64"
    assert spec.effective.dm_name == "aes-xts-plain64"
    assert not spec.effective.takes_secure_keys
    # The --key-size values of the tools: CCA-AESDATA, CCA-AESCIPHER, protected keys.
    for bits in (1024, 2176, 1280, 896, 640):
        spec.check_key_size(bits // 8)
    for bits in (512, 1088, 640):
        CipherSpec.parse("paes-cbc-plain64").check_key_size(bits // 8)


@pytest.mark.parametrize("bits", [5120, 5376])
def test_an_ep11_key_is_named(bits):
    with pytest.raises(UnsupportedError, match="EP11-AES secure key"):
        CipherSpec.parse("paes-xts-plain64").check_key_size(bits // 8)


def test_other_sizes_are_no_keys_of_paes():
    with pytest.raises(ConfigError, match="a key of 1088 bits, wanted 1024, 2176"):
        CipherSpec.parse("paes-xts-plain64").check_key_size(136)
