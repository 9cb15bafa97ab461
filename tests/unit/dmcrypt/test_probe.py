import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.dmcrypt.backing import pread_of
from fusecrypt.dmcrypt.probe import find_superblock, probe
from tests.golden import corpus


def kind(data):
    return probe(pread_of(data), len(data))


@pytest.mark.parametrize("name", ["luks1", "luks2"])
def test_luks_is_recognised_with_its_version(name):
    for image in corpus.images(name):
        assert kind(image.header[:32768]) == name
        assert find_superblock(pread_of(image.header), len(image.header)) is None


def test_secondary_header_makes_up_for_a_wiped_primary():
    data = corpus.get_image("luks2-metadata-1m").data
    assert kind(bytes(4096) + data[4096:]) == "luks2"


def test_versions_that_do_not_exist_are_no_luks():
    assert kind(b"LUKS\xba\xbe\x00\x03" + bytes(5000)) is None


@pytest.mark.parametrize(
    ("name", "offset", "magic"),
    [
        ("ext2/ext3/ext4", 0x438, b"\x53\xef"),
        ("XFS", 0, b"XFSB"),
        ("Btrfs", 0x10040, b"_BHRfS_M"),
        ("swap", 4086, b"SWAPSPACE2"),
    ],
)
def test_other_superblocks_are_recognised_at_their_place(name, offset, magic):
    data = bytearray(1 << 17)
    data[offset : offset + len(magic)] = magic
    assert kind(bytes(data)) is None
    assert find_superblock(pread_of(bytes(data)), len(data)) == name
    assert find_superblock(pread_of(bytes(1 << 17)), 1 << 17) is None


@given(st.binary(max_size=2000))
def test_any_bytes_may_be_probed(data):
    assert kind(data) in (None, "luks1", "luks2")
    find_superblock(pread_of(data), len(data))
