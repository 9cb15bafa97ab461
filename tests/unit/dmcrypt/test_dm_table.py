import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.dmcrypt.dm_table import parse_line, parse_table
from fusecrypt.dmcrypt.engine.messages import SEGMENTS_MAX, TargetKind
from fusecrypt.keystore.errors import ConfigError, MapperError, UnsupportedError

CRYPT = "0 2048 crypt aes-xts-plain64 :64: 1000 /dev/x 16"


@pytest.mark.parametrize(
    "text",
    [
        CRYPT,
        f"{CRYPT} 1 allow_discards",
        "8 16 crypt aes:64-cbc-lmk :1040: 18446744073709551000 7:0 0",
        "0 16 crypt capi:essiv(cbc(aes),sha256)-plain64 :32: 8 f 0 1 sector_size:4096",
        "0 16 crypt cipher_null-ecb - 0 f 0",
        "0 16 linear f 3",
        "0 16 zero",
        "0 16 error",
    ],
)
def test_a_line_is_shown_as_it_was_read(text):
    line = parse_line(text)
    assert line.format(f":{line.key_size}:" if line.key_size else "-") == text


def test_what_a_line_says_is_known():
    line = parse_line(f"{CRYPT} 3 sector_size:4096 iv_large_sectors allow_discards")
    assert line.target is TargetKind.CRYPT
    assert (line.length, line.key_size, line.iv_offset, line.offset) == (2048, 64, 1000, 16)
    assert (line.sector_size, line.iv_large_sectors, line.allow_discards) == (4096, True, True)
    assert line.cipher is not None
    assert line.cipher.dm_name == "aes-xts-plain64"


def test_the_kernels_tuning_changes_nothing():
    tuned = parse_line(f"{CRYPT} 2 same_cpu_crypt no_write_workqueue")
    plain = parse_line(CRYPT)
    assert (tuned.sector_size, tuned.allow_discards) == (plain.sector_size, plain.allow_discards)
    assert tuned.options == ("same_cpu_crypt", "no_write_workqueue")


def test_a_device_has_at_most_so_many_lines():
    lines = [f"{n * 8} 8 zero" for n in range(SEGMENTS_MAX + 1)]
    assert len(parse_table(lines[:-1])) == SEGMENTS_MAX
    with pytest.raises(ConfigError, match="21 lines; wanted 1 to 20"):
        parse_table(lines)


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        (
            (f"{CRYPT} 1 sector_size:1024", "2048 8 crypt aes-ecb :16: 0 f 0"),
            "several sector sizes",
        ),
        ((f"{CRYPT} 1 sector_size:4096", "2048 4 zero"), "line 2: length 4: not supported beside"),
    ],
)
def test_sector_sizes_that_cannot_live_together_are_refused(lines, what):
    lines = [line.replace(" 1000 ", " 8 ") for line in lines]
    with pytest.raises(UnsupportedError, match=what):
        parse_table(lines)


WORD = st.sampled_from(
    [
        "0",
        "8",
        "crypt",
        "linear",
        "zero",
        "aes-xts-plain64",
        ":64:",
        "-",
        ":x:",
        "f",
        "sector_size:0",
    ]
) | st.text(max_size=12)


@given(st.lists(st.lists(WORD, max_size=12).map(" ".join), max_size=3))
def test_any_text_is_a_table_or_refused(lines):
    try:
        table = parse_table(lines)
    except MapperError:
        return
    assert sum(line.length for line in table) > 0
