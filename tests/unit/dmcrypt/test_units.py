import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.dmcrypt.units import parse_size, round_up
from fusecrypt.keystore.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("8s", 4096),
        ("16k", 16384),
        ("16K", 16384),
        ("16KiB", 16384),
        ("16KB", 16000),
        ("1M", 1 << 20),
        ("1MB", 1000**2),
        ("2g", 2 << 30),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes_are_read_as_cryptsetup_reads_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "k", "-1", "1.5M", "1x", "1 M", "1kb", "0x10", "99999999999T", "²", "9" * 30]
)
def test_other_notations_are_refused(text):
    with pytest.raises(ConfigError, match="size"):
        parse_size(text)


@given(st.text())
def test_any_text_is_a_size_or_refused(text):
    with contextlib.suppress(ConfigError):
        assert parse_size(text) >= 0


@given(st.integers(0, 1 << 64), st.sampled_from([1, 512, 4096, 1 << 20]))
def test_round_up_gives_the_next_multiple(value, step):
    rounded = round_up(value, step)
    assert rounded % step == 0
    assert value <= rounded < value + step
