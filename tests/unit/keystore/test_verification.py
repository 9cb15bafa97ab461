"""Patterns of master keys and volume keys.

No project publishes such patterns: zkey's definition, computed apart from this code.
"""

import pytest

from fusecrypt.keystore.errors import FormatError
from fusecrypt.keystore.verification import make_check_value, make_mkvp, make_pattern
from tests.unit.keystore.samples import clear_key

PATTERNS = [
    (bytes(range(32)), True,
     "f071a2b402c105ea37024133e24d6ef6212e8cc0175e1b6b32657d54f159daf6"),
    (bytes(range(64)), True,
     "cd6b103236fbd87dba93e9001e29bc3d5e885d6abd1577e3e0e0a5f49e444894"),
    (bytes(16), False, "66e94bd4ef8a2c3b884cfa59ca342b2ef795bd4a52e29ed713d313fa20e98dbc"),
    (bytes(range(24)), False,
     "916251821c73a522c396d627380196079b47544fe2e6d8d6809c5b05fd9e6687"),
    (bytes(range(32)), False,
     "f29000b62a499fd0a9f39a6add2e7780d4e96925c0bfcffb52f8a187ee774aab"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "mkvp"), [(bytes(32), "1a7dfdeaffeedac4"), (bytes(range(32)), "491176b0f443c65a")]
)
def test_the_pattern_of_a_master_key(key, mkvp):
    assert make_mkvp(bytearray(key)).hex() == mkvp


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (
            bytes(32),
            "dc95c078a2408989",
        ),  # H of "The Galois/Counter Mode of Operation", test case 13
        (bytes(range(32)), "f29000b62a499fd0"),  # by OpenSSL's command
    ],
)
def test_the_check_value_of_a_master_key_in_a_token(key, value):
    assert make_check_value(bytearray(key)).hex() == value


@pytest.mark.parametrize(("key", "is_xts", "pattern"), PATTERNS)
def test_the_pattern_of_a_volume_key(key, is_xts, pattern):
    assert make_pattern(bytearray(key), is_xts=is_xts) == pattern


def test_equal_halves_have_no_pattern():
    with pytest.raises(FormatError, match="halves"):
        make_pattern(bytearray(32), is_xts=True)


@pytest.mark.parametrize(("size", "is_xts"), [(0, False), (17, False), (24, True), (128, True)])
def test_what_is_no_aes_key_has_no_pattern(size, is_xts):
    with pytest.raises(FormatError, match="clear key"):
        make_pattern(bytearray(clear_key(size * 8, is_xts=False)), is_xts=is_xts)
