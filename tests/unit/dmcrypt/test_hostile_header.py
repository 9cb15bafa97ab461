"""Headers of somebody who means harm: what they ask for is refused by name, and soon."""

import os
import time
from functools import reduce

import pytest

from fusecrypt.dmcrypt.backing import pread_from
from fusecrypt.dmcrypt.kdf_policy import ARGON2_WORK_MAX, PBKDF2_ITERATIONS_MAX
from fusecrypt.dmcrypt.luks2 import digest, edit, keyslot, read_header
from fusecrypt.dmcrypt.luks2.change import edit_header
from fusecrypt.dmcrypt.luks2.json_area import find_duplicates, pack_json, parse_json_area
from fusecrypt.dmcrypt.open_volume import open_luks
from fusecrypt.keystore.errors import (
    EngineMemoryError,
    FormatError,
    MapperError,
    PolicyError,
    UnsupportedError,
)
from tests.golden import corpus
from tests.unit.dmcrypt.headers import BASE, edited, read, with_area

ARGON = {"type": "argon2id", "time": 4, "memory": 1 << 20, "cpus": 4}


def kdf(root):
    return root["keyslots"]["0"]["kdf"]


def replace_kdf(root, **fields):
    kdf(root).update(ARGON | fields)


COSTLY = {
    "keyslots.0.kdf.iterations": lambda r: kdf(r).update(iterations=PBKDF2_ITERATIONS_MAX + 1),
    "keyslots.0.kdf.time": lambda r: replace_kdf(r, time=(ARGON2_WORK_MAX >> 20) + 1),
    "keyslots.0.kdf.cpus": lambda r: replace_kdf(r, cpus=65),
    "digests.0.iterations": lambda r: r["digests"]["0"].update(iterations=2**32 - 1),
}


@pytest.fixture
def attempt(engine, load, open_file):
    def attempt(data):
        fd = open_file(data)
        secret = load(corpus.read_key(corpus.get_image(BASE).about["unlock"][0]["keyfile"]))
        header = read_header(pread_from(fd), len(data))
        return open_luks(engine, header, fd, secret, data_size=len(data), read_only=True)

    return attempt


@pytest.mark.parametrize("path", COSTLY)
def test_what_takes_too_long_is_refused_with_its_path_before_it_begins(attempt, path):
    began = time.monotonic()
    with pytest.raises(PolicyError, match=rf"{path}: got .* policy allows"):
        attempt(edited(COSTLY[path]))
    assert time.monotonic() - began < 2


def test_the_costs_that_formatting_gives_are_allowed():
    header = read(edited(lambda r: replace_kdf(r, time=100, memory=4 << 20)))
    assert keyslot.make_spec(header.metadata.keyslots[0]).kdf.iterations == 100
    header = read(edited(lambda r: kdf(r).update(iterations=500_000_000)))
    assert keyslot.make_spec(header.metadata.keyslots[0]).kdf.iterations == 500_000_000
    assert digest.make_spec(header.metadata.digests[0]).iterations == 1000


def test_memory_beyond_the_policy_is_refused_before_it_is_taken(attempt):
    began = time.monotonic()
    with pytest.raises(EngineMemoryError, match=r"keyslot 0: .* more than policy allows"):
        attempt(edited(lambda r: replace_kdf(r, memory=8 << 20, time=1)))
    assert time.monotonic() - began < 2


def test_a_costly_keyslot_does_not_keep_another_from_opening(engine, load, open_file):
    image = corpus.get_image("luks2-5slots")
    data = edited(COSTLY["keyslots.0.kdf.iterations"], base="luks2-5slots")
    fd = open_file(data)
    second = next(each for each in image.about["unlock"] if each.get("slot") == 1)
    secret = load(corpus.read_key(second["keyfile"]))
    header = read_header(pread_from(fd), len(data))
    opened = open_luks(engine, header, fd, secret, data_size=len(data), read_only=True)
    assert opened.keyslot == 1


@pytest.mark.parametrize("cipher", ["cipher_null-ecb", "null-ecb-plain64", "cipher_null"])
def test_a_keyslot_that_keeps_its_key_in_the_clear_is_refused(attempt, cipher):
    with pytest.raises(UnsupportedError, match=f"keyslot 0: .*{cipher}"):
        attempt(edited(lambda r: r["keyslots"]["0"]["area"].update(encryption=cipher)))


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (lambda r: r["segments"]["0"].update(type="linear"), r"segments\.0\.type: linear"),
        (lambda r: r["segments"]["0"].update(type="foo"), r"segments\.0\.type: foo"),
        (lambda r: r["segments"]["0"].update(sector_size=8192), r"segments\.0\.sector_size"),
        (lambda r: r["keyslots"]["0"]["area"].update(size="4096"), r"keyslots\.0\.area\.size"),
        (lambda r: r["keyslots"]["0"].update(key_size=2**32 - 1), r"keyslots\.0\.area\.size"),
        (lambda r: kdf(r).update(salt="A" * 4000), r"keyslots\.0\.kdf\.salt: 3000 bytes"),
        (lambda r: kdf(r).update(iterations=-1), r"keyslots\.0\.kdf\.iterations: got -1"),
        (lambda r: kdf(r).update(hash="x" * 70), r"name of 70 bytes"),
        (lambda r: r["digests"]["0"].update(digest="A" * 4000), r"digests\.0\.digest: 3000"),
        (lambda r: r["config"].update(requirements={"mandatory": ["online-reencrypt-v2"]}),
         r"config\.requirements: online-reencrypt"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_refused_by_its_path(attempt, edit, wanted):
    with pytest.raises(MapperError, match=wanted):
        attempt(edited(edit))


def test_areas_beyond_the_end_of_the_file_are_refused():
    data = edited()
    with pytest.raises(FormatError, match="the file is too small, 200000 bytes"):
        read(data[:200_000])


def test_nesting_too_deep_is_refused_with_the_path():
    deep = reduce(lambda inner, _: {"a": inner}, range(40), 1)
    with pytest.raises(FormatError, match=r"tokens\.a\.a\.a.*: nested deeper than 32 levels"):
        parse_json_area(pack_json({"tokens": deep}) + b"\0" * 9)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "1" * 400 + ".0"])
def test_numbers_that_could_not_be_written_back_are_refused(number):
    with pytest.raises(FormatError, match="too large a number"):
        parse_json_area(f'{{"a":{number}}}'.encode().ljust(2000, b"\0"))


def test_keys_that_stand_there_twice_are_named():
    area = b'{"a":{"x":1,"y":2,"x":3},"b":[{"c":1,"c":1}],"a":{"x":1,"x":2}}\0'
    parse_json_area(area + bytes(20))
    assert find_duplicates(area) == ("a", "a.x", "b.0.c")
    assert find_duplicates(b'{"a":{"x":1},"b":{"x":1}}\0') == ()


def test_a_header_of_doubled_keys_is_judged_in_good_time():
    text = ",".join(f'"{n}":0' for n in range(40_000))
    area = f'{{"a":{{{text},{text}}}}}\0'.encode()
    began = time.monotonic()
    assert len(find_duplicates(area)) == 40_000
    assert time.monotonic() - began < 3


def test_a_key_that_stands_there_twice_is_told_when_opening(attempt):
    text = pack_json(read(edited()).root).decode()
    data = with_area(text.replace('"tokens":{}', '"tokens":{},"tokens":{}').encode())
    opened = attempt(data)
    assert opened.notes == ("tokens: stands there more than once, the last counts",)


def test_a_header_with_doubled_keys_is_opened_and_not_changed(open_file):
    text = pack_json(read(edited()).root).decode()
    data = with_area(text.replace('"tokens":{}', '"tokens":{},"tokens":{}').encode())
    fd = open_file(data)

    def relabel(header):
        return edit.set_labels(header, edit.LabelChange("new"))

    with pytest.raises(FormatError, match=r"^tokens: stands there more than once"):
        edit_header(fd, relabel, lambda _old: None)
    assert os.pread(fd, len(data) + 1, 0) == data


def test_names_that_are_not_utf8_outlive_a_change(open_file):
    fd = open_file(edited(label="gr\udcfcn", subsystem="\udcff"))
    before, after = edit_header(fd, lambda header: edit.set_priority(header, 0, 2), lambda _: None)
    assert after.binary.seqid > before.binary.seqid
    assert (after.label, after.subsystem) == (r"gr\xfcn", r"\xff")
    assert os.pread(fd, 48, 24) == b"gr\xfcn".ljust(48, b"\0")
