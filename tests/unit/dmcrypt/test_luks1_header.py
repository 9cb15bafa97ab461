"""LUKS1 headers, read, shown and opened: golden ones, damaged ones, and any bytes."""

import hashlib
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusecrypt.daemon.exitcodes import get_exit_code
from fusecrypt.dmcrypt.backing import pread_from, pread_of
from fusecrypt.dmcrypt.engine.messages import DigestSpec
from fusecrypt.dmcrypt.luks1 import Luks1Header, read_header
from fusecrypt.dmcrypt.luks1.dump import dump_fields, dump_text
from fusecrypt.dmcrypt.luks1.header import DISABLED, HEADER_SIZE, KEYSLOTS
from fusecrypt.dmcrypt.open_volume import check_luks, open_luks
from fusecrypt.keystore.errors import (
    FormatError,
    MapperError,
    NoKeyError,
    NotFoundError,
    PolicyError,
    UnlockError,
    UnsupportedError,
)
from tests.golden import corpus
from tests.lab import sectors

IMAGES = corpus.images("luks1")
ACCEPTED = corpus.images("luks1", accepted=True)
DERIVED = [case for case in corpus.derived() if case.name.startswith("derived-l1")]
GOOD = corpus.get_image("luks1-aes-xts-plain64-512-sha256").data[:HEADER_SIZE]
SLOT = struct.Struct(">II32sII")
SLOTS_AT = 208


def parse(data):
    return Luks1Header.parse(data)


def edited(*patches):
    """The good header with ``(offset, bytes)`` in it."""
    data = bytearray(GOOD)
    for at, patch in patches:
        data[at : at + len(patch)] = patch
    return bytes(data)


def number(at, value):
    return at, struct.pack(">I", value)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_text_is_byte_for_byte_what_cryptsetup_printed(image):
    header = read_header(pread_of(image.header), len(image.header))
    path = image.dump.splitlines()[0].split()[-1]
    assert dump_text(header, path) == image.dump


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_what_is_packed_is_what_was_read(image):
    header = parse(image.header[:HEADER_SIZE])
    assert header.pack() == image.header[:HEADER_SIZE]
    shown = dump_fields(header)
    assert shown["key_size"] == len(image.volume_key)
    assert shown["payload_offset"] == image.about["dm"]["offset"] * 512


@pytest.mark.parametrize("image", ACCEPTED, ids=lambda image: image.name)
def test_every_golden_secret_opens_its_volume_with_the_key_it_has(engine, load, open_file, image):
    fd = open_file(image.header)
    header = read_header(pread_from(fd), len(image.header))
    assert check_luks(header, len(image.data), read_only=False) == ()
    for secret in image.about["unlock"]:
        loaded = load(bytes.fromhex(secret["secret_hex"]))
        opened = open_luks(engine, header, fd, loaded, data_size=len(image.data), read_only=True)
        (segment,) = opened.table.segments
        salt = os.urandom(16)
        made = engine.make_digest(segment.key, DigestSpec("sha256", 1000, salt, b"", 32))
        assert made == hashlib.pbkdf2_hmac("sha256", image.volume_key, salt, 1000, 32)
        dm = image.about["dm"]
        shown = (opened.type, opened.cipher, opened.key_bits)
        assert shown == ("luks1", dm["cipher"], dm["key_bits"])
        assert (opened.offset, opened.iv_offset) == (dm["offset"] * 512, 0)
        assert opened.table.size == dm["sectors"] * 512
        if "slot" in secret:
            assert opened.keyslot == secret["slot"]


@pytest.mark.parametrize("image", ACCEPTED, ids=lambda image: image.name)
def test_golden_tables_decipher_to_the_plaintext_that_the_kernel_read(image):
    if not image.about["cipher"].startswith("aes-"):
        pytest.skip("the second implementation has AES only")
    header = parse(image.header[:HEADER_SIZE])
    segment = header.get_segment(read_only=True)
    plaintext = sectors.crypt(
        image.data[segment.offset :], segment.cipher, image.volume_key, sector_size=512
    )
    assert hashlib.sha256(plaintext).hexdigest() == image.about["plaintext"]["sha256"]


@pytest.mark.parametrize("case", DERIVED, ids=lambda case: case.name)
def test_derived_images_are_refused_as_with_cryptsetup_and_are_never_written(
    engine, load, open_file, case
):
    data = case.data
    fd = open_file(data)
    secret = load(corpus.read_key(case.about["key"]))

    def read():
        return read_header(pread_from(fd), len(data))

    if case.real["luksDump"]:
        with pytest.raises(MapperError):
            read()
    else:
        wanted = NoKeyError if case.real["open"] == 2 else FormatError
        with pytest.raises(wanted):
            open_luks(engine, read(), fd, secret, data_size=len(data), read_only=False)
    assert os.pread(fd, len(data) + 1, 0) == data


@pytest.mark.parametrize(
    ("data", "error", "what"),
    [
        (GOOD[:-1], FormatError, "591 bytes"),
        (b"SKUL" + GOOD[4:], FormatError, "magic at byte 0"),
        (edited((6, b"\0\3")), UnsupportedError, "version 3"),
        (edited((72, b"md5\0")), UnsupportedError, "hash at byte 72: 'md5'"),
        (edited(number(108, 0)), FormatError, "key size at byte 108"),
        (edited(number(108, 1 << 31)), FormatError, "keyslot 0: key material offset"),
        (edited(number(104, 4000)), FormatError, "keyslot 7: .*wanted before the data at byte"),
        (edited(number(SLOTS_AT + 40, 1)), FormatError, "keyslot 0: .*lies in the header"),
        (edited(number(SLOTS_AT + 48 + 40, 9)), FormatError, "keyslot 1: .*area of keyslot 0"),
        (edited(number(SLOTS_AT + 44, 0)), FormatError, "keyslot 0: stripes: got 0"),
        (edited(number(SLOTS_AT + 92, 4001)), FormatError, "keyslot 1: stripes: got 4001"),
        (edited(number(SLOTS_AT + 7 * 48 + 40, 0xFFFFFFFF)), FormatError, "keyslot 7"),
    ],
)
def test_headers_that_cannot_be_are_refused_naming_the_place(data, error, what):
    with pytest.raises(error, match=what):
        parse(data)


def test_a_file_that_ends_within_the_key_material_is_refused():
    size = 4096 + 7 * 258048 + 256000
    with pytest.raises(FormatError, match=f"too small, {size - 1} bytes, need at least {size}"):
        read_header(pread_of(GOOD), size - 1)
    assert read_header(pread_of(GOOD), size).area_size == size


@pytest.mark.parametrize(
    ("patch", "error", "what"),
    [
        (number(164, 0), FormatError, "digest iterations at byte 164"),
        (number(SLOTS_AT + 4, 0), FormatError, "keyslot 0: iterations: got 0"),
        (number(SLOTS_AT, DISABLED), UnlockError, "none of the 8 is enabled"),
        ((8, b"rot13\0"), UnsupportedError, "cipher at byte 8"),
    ],
)
def test_what_cannot_be_opened_is_refused_before_a_passphrase_is_tried(
    engine, load, open_file, patch, error, what
):
    image = corpus.get_image("luks1-aes-xts-plain64-512-sha256").data
    fd = open_file(edited(patch) + image[HEADER_SIZE:])
    header = read_header(pread_from(fd), len(image))
    with pytest.raises(error, match=what):
        open_luks(engine, header, fd, load(b"x"), data_size=len(image), read_only=True)


def test_a_keyslot_that_is_neither_on_nor_off_is_told_of_and_not_used():
    header = parse(edited(number(SLOTS_AT + 48, 7)))
    (note,) = header.list_notes()
    assert "keyslot 1: active at byte 256: 0x00000007" in note
    assert header.list_keyslots() == (0,)
    with pytest.raises(NotFoundError, match="keyslot 1"):
        header.list_candidates(1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, HEADER_SIZE - 1), st.binary(max_size=12)), max_size=6))
def test_any_damage_is_read_or_refused(damage):
    data = edited(*damage)[:HEADER_SIZE]
    try:
        header = parse(data)
    except MapperError:
        return
    dump_text(header, "x")
    dump_fields(header)
    areas = sorted(header.get_area(n) for n in range(KEYSLOTS))
    assert all(area.offset >= HEADER_SIZE for area in areas)
    for n in header.list_keyslots():
        try:
            header.make_keyslot_spec(n)
        except MapperError:
            continue
    assert parse(header.pack()) == header


@given(st.binary(max_size=700))
def test_hostile_bytes_parse_or_are_refused(data):
    for buf in (data, GOOD[:8] + data):
        try:
            parse(buf)
        except MapperError:
            continue


def test_a_header_without_keyslots_ends_with_the_exit_code_of_cryptsetup():
    header = parse(edited(number(SLOTS_AT, DISABLED)))
    with pytest.raises(UnlockError) as caught:
        header.list_candidates()
    assert get_exit_code(caught.value) == 1


@pytest.mark.parametrize("at", [SLOTS_AT + 4, 164])
def test_costs_beyond_the_policy_are_refused_before_a_passphrase_is_tried(
    engine, load, open_file, at
):
    image = corpus.get_image("luks1-aes-xts-plain64-512-sha256").data
    fd = open_file(edited(number(at, 0xFFFFFFFF)) + image[HEADER_SIZE:])
    header = read_header(pread_from(fd), len(image))
    with pytest.raises(PolicyError, match="policy allows"):
        open_luks(engine, header, fd, load(b"x"), data_size=len(image), read_only=True)
