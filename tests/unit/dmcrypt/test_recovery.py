import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusecrypt.dmcrypt.backing import pread_of
from fusecrypt.dmcrypt.luks2 import NotLuksError, read_header
from fusecrypt.dmcrypt.luks2.binhdr import BinaryHeader
from fusecrypt.dmcrypt.probe import probe
from fusecrypt.keystore.errors import ConfigError, FormatError, MapperError, UnsupportedError
from tests.golden import corpus
from tests.unit.dmcrypt.headers import BASE, read

PLAIN_DATA = corpus.get_image(BASE).data
LUKS2 = corpus.images("luks2")
DERIVED = [case for case in corpus.derived() if case.name.startswith("derived-l2")]


@pytest.mark.parametrize("image", LUKS2, ids=lambda image: image.name)
def test_every_golden_header_is_read_without_a_note(image):
    header = read(image.header)
    assert header.used == "primary"
    assert header.notes == ()
    assert header.metadata.regular_segments[0].encryption == image.about["cipher"]


@pytest.mark.parametrize("case", DERIVED, ids=lambda case: case.name)
def test_damaged_headers_get_the_verdict_of_cryptsetup(case):
    if case.real["luksDump"] == 0:
        header = read(case.data)
        assert header.is_damaged == case.real["repairs_on_read"]
        assert all("fusecrypt repair mends it" in note for note in header.notes)
    else:
        with pytest.raises((FormatError, UnsupportedError)):
            read(case.data)


def test_wiped_primary_is_made_up_for_by_the_secondary():
    (case,) = (case for case in DERIVED if case.name == "derived-l2-primary-binhdr-wiped")
    header = read(case.data)
    assert header.used == "secondary"
    (note,) = header.notes
    assert note.startswith("primary header is damaged")
    assert note.endswith("using the secondary; fusecrypt repair mends it")


@pytest.mark.parametrize("image", corpus.images("luks2", accepted=True), ids=lambda i: i.name)
def test_secondary_is_found_wherever_the_header_size_puts_it(image):
    data = bytes(4096) + image.header[4096:]
    assert read(data).metadata == read(image.header).metadata


def with_seqid(primary, secondary):
    data = bytearray(PLAIN_DATA)
    for offset, seqid in ((0, primary), (0x4000, secondary)):
        buf = bytearray(data[offset : offset + 4096])
        buf[16:24] = seqid.to_bytes(8, "big")
        area = bytes(data[offset + 4096 : offset + 0x4000])
        data[offset : offset + 4096] = BinaryHeader.parse(bytes(buf)).pack_signed(area)
    return bytes(data)


def test_a_primary_of_version_zero_is_made_up_for_too():
    """As cryptsetup, to which 0 is damage; a version that may be to come is refused."""
    data = bytearray(corpus.get_image(BASE).data)
    data[6:8] = b"\0\0"
    assert probe(pread_of(data), len(data)) == "luks2"
    header = read(bytes(data))
    assert header.used == "secondary"
    assert header.is_damaged
    data[6:8] = b"\0\3"
    with pytest.raises(UnsupportedError, match="LUKS version 3"):
        read(bytes(data))


def test_higher_sequence_id_wins():
    newer = read(with_seqid(4, 5))
    assert (newer.used, newer.binary.seqid) == ("secondary", 5)
    assert "primary header is outdated (sequence id 4, the other has 5)" in newer.notes[0]
    older = read(with_seqid(5, 4))
    assert (older.used, older.binary.seqid) == ("primary", 5)
    assert "secondary header is outdated" in older.notes[0]
    assert read(with_seqid(2**64 - 1, 2**64 - 1)).notes == ()


def test_other_superblocks_are_named_where_luks_is_missing():
    with pytest.raises(NotLuksError, match="there is XFS"):
        read(b"XFSB" + bytes(1 << 17))


def test_no_luks_is_told_from_damaged_luks():
    for data in (b"", bytes(1 << 20), b"\xff" * 5000):
        with pytest.raises(NotLuksError, match="not a valid LUKS device") as caught:
            read(data)
        assert isinstance(caught.value, ConfigError)
        assert isinstance(caught.value, FormatError)
    with pytest.raises(FormatError) as damaged:
        read(PLAIN_DATA[:4096] + bytes(1 << 20))
    assert not isinstance(damaged.value, NotLuksError)


@pytest.mark.parametrize("image", corpus.images("luks1"), ids=lambda image: image.name)
def test_luks1_is_no_luks2_header(image):
    with pytest.raises(UnsupportedError, match="LUKS version 1"):
        read(image.header)


@pytest.mark.parametrize("length", [6, 4095, 4096, 5000, 0x4000, 0x8000, 100000, 294911])
def test_truncated_header_is_refused_with_sizes(length):
    with pytest.raises(FormatError):
        read(PLAIN_DATA[:length])


def test_file_that_ends_within_the_keyslots_is_too_small():
    with pytest.raises(FormatError, match="too small, 100000 bytes, need at least 294912"):
        read(PLAIN_DATA[:100000])
    assert read(PLAIN_DATA[:294912]).area_size == 294912


def test_reading_stops_at_the_largest_header():
    asked = []

    def pread(offset, length):
        asked.append(offset + length)
        return PLAIN_DATA[offset : offset + length]

    read_header(pread, len(PLAIN_DATA))
    assert max(asked) <= 2 * 0x400000


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0x8000), st.binary(min_size=1, max_size=8)), max_size=4))
def test_any_damage_to_both_headers_is_read_or_refused(damage):
    data = bytearray(PLAIN_DATA[:0x50000])
    for at, junk in damage:
        data[at : at + len(junk)] = junk
    try:
        header = read_header(pread_of(bytes(data)), len(data))
    except MapperError:
        return
    assert header.metadata == read(PLAIN_DATA).metadata
