from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.dmcrypt.luks2.binhdr import (
    BINHDR_SIZE,
    HDR_SIZES,
    BinaryHeader,
    parse_version,
    verify,
)
from fusecrypt.keystore.errors import FormatError, MapperError, UnsupportedError
from tests.golden import corpus

HEADER = BinaryHeader(
    is_secondary=False,
    hdr_size=0x4000,
    seqid=3,
    label="läbel",
    checksum_alg="sha256",
    salt=bytes(range(64)),
    uuid="01234567-89ab-cdef-0123-456789abcdef",
    subsystem="sub",
    hdr_offset=0,
    checksum=bytes(64),
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=11) | st.builds(
    lambda raw: raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"), st.binary(max_size=47)
)


@given(
    st.builds(
        BinaryHeader,
        is_secondary=st.booleans(),
        hdr_size=st.sampled_from(HDR_SIZES),
        seqid=st.integers(0, (1 << 64) - 1),
        label=TEXTS,
        checksum_alg=st.sampled_from(["sha1", "sha256", "sha512"]),
        salt=st.binary(min_size=64, max_size=64),
        uuid=st.uuids().map(str),
        subsystem=TEXTS,
        hdr_offset=st.integers(0, (1 << 64) - 1),
        checksum=st.binary(min_size=64, max_size=64),
    )
)
def test_what_is_packed_is_parsed_back(header):
    assert BinaryHeader.parse(header.pack()) == header
    area = b"{}".ljust(header.json_size, b"\0")
    verify(header.pack_signed(area), area)


@given(
    st.binary(max_size=5000)
    | st.binary(max_size=600).map(lambda b: (HEADER.pack()[:8] + b).ljust(4096, b"\0"))
)
def test_hostile_bytes_parse_or_are_refused(data):
    try:
        header = BinaryHeader.parse(data)
        verify(data[:BINHDR_SIZE], bytes(header.json_size))
    except MapperError:
        pass


@pytest.mark.parametrize(
    "name", ["sha1", "sha256", "sha512", "sha3-256", "blake2b-512", "ripemd160", "sm3", "SHA256"]
)
def test_checksums_are_of_any_hash_that_the_header_names(name):
    area = bytes(HEADER.json_size)
    buf = replace(HEADER, checksum_alg=name).pack_signed(area)
    verify(buf, area)
    with pytest.raises(FormatError, match=f"{name} checksum at byte 448"):
        verify(buf, b"x" + area[1:])
    with pytest.raises(FormatError, match="checksum"):
        verify(buf[:30] + b"!" + buf[31:], area)


@pytest.mark.parametrize("name", ["", "nohash", "shake_256", "crc32"])
def test_unknown_checksum_algorithms_are_refused(name):
    with pytest.raises(FormatError, match="checksum algorithm"):
        verify(replace(HEADER, checksum_alg=name).pack(), bytes(HEADER.json_size))


def test_checksum_field_behind_the_digest_does_not_count():
    area = bytes(HEADER.json_size)
    buf = bytearray(HEADER.pack_signed(area))
    buf[448 + 40] ^= 1
    verify(bytes(buf), area)


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        ({"hdr_size": 0x5000}, FormatError, "hdr_size at byte 8: 20480"),
        ({"hdr_size": 0}, FormatError, "hdr_size"),
        ({"hdr_size": 0x800000}, FormatError, "hdr_size"),
    ],
)
def test_header_sizes_that_do_not_exist_are_refused(change, error, what):
    with pytest.raises(error, match=what):
        BinaryHeader.parse(replace(HEADER, **change).pack())


def test_other_versions_and_magics_are_refused():
    buf = bytearray(HEADER.pack())
    buf[7] = 1
    with pytest.raises(UnsupportedError, match="version 1"):
        BinaryHeader.parse(bytes(buf))
    assert parse_version(bytes(buf), b"LUKS\xba\xbe") == 1
    with pytest.raises(FormatError, match="magic"):
        BinaryHeader.parse(b"X" + bytes(buf[1:]))
    with pytest.raises(FormatError, match="4095 bytes"):
        BinaryHeader.parse(bytes(buf[:4095]))


@pytest.mark.parametrize("text", ["x" * 48, "é" * 24, "a\0b"])
def test_texts_that_do_not_fit_their_field_are_not_packed(text):
    with pytest.raises(FormatError, match="label"):
        replace(HEADER, label=text).pack()


def test_golden_headers_pack_to_the_bytes_they_were():
    for image in corpus.images("luks2", accepted=True)[:8]:
        buf = image.header[:BINHDR_SIZE]
        header = BinaryHeader.parse(buf)
        assert header.pack() == buf
        assert header.pack_signed(image.header[BINHDR_SIZE : header.hdr_size]) == buf
