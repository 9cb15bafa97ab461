"""Hand-made headers with the verdicts that cryptsetup 2.6.1 gave on each of them."""

import contextlib
import copy
from functools import reduce

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusecrypt.dmcrypt.luks2 import keyslot
from fusecrypt.dmcrypt.luks2.json_area import pack_json
from fusecrypt.dmcrypt.luks2.metadata import parse_metadata
from fusecrypt.dmcrypt.luks2.validate import validate
from fusecrypt.keystore.errors import FormatError
from tests.golden import corpus
from tests.unit.dmcrypt.headers import BASE, edited, read, with_area


def slot(root):
    return root["keyslots"]["0"]


def segment(root):
    return root["segments"]["0"]


def digest(root):
    return root["digests"]["0"]


def rename(root, section, old, new):
    root[section][new] = root[section].pop(old)


def add_slot(root, **fields):
    area = {
        "type": "raw",
        "offset": "290816",
        "size": "4096",
        "encryption": "aes-xts-plain64",
        "key_size": 64,
    }
    root["keyslots"]["5"] = slot(root) | {"area": area} | fields


def second_segment(root, first_size):
    root["segments"]["1"] = segment(root) | {"offset": "1048576"}
    segment(root)["size"] = first_size
    digest(root)["segments"] = ["0", "1"]


ACCEPTED = {
    "unknown requirement": lambda r: r["config"].update(requirements={"mandatory": ["foo", "bar"]}),
    "empty requirements": lambda r: r["config"].update(requirements={}),
    "unknown flag": lambda r: r["config"].update(flags=["allow-discards", "foo"]),
    "unknown top-level section": lambda r: r.update(foo=1),
    "segment in sectors of 8192": lambda r: segment(r).update(sector_size=8192),
    "segment in sectors of 1536": lambda r: segment(r).update(sector_size=1536),
    "segment flags": lambda r: segment(r).update(flags=["a", "b"]),
    "segment offset with zeros in front": lambda r: segment(r).update(offset="0000524288"),
    "segment at 0 (detached)": lambda r: segment(r).update(offset="0"),
    "two segments": lambda r: second_segment(r, "524288"),
    "greatest IV offset": lambda r: segment(r).update(iv_tweak=str(2**64 - 1)),
    "extra field in the area": lambda r: slot(r)["area"].update(x=1),
    "extra field in the AF": lambda r: slot(r)["af"].update(x=1),
    "fields of another KDF left behind": lambda r: slot(r)["kdf"].update(time=4, memory=5),
    "unknown KDF": lambda r: slot(r)["kdf"].update(type="foo"),
    "negative stripes": lambda r: slot(r)["af"].update(stripes=-1),
    "huge iterations": lambda r: slot(r)["kdf"].update(iterations=2**70),
    "area too small for its key": lambda r: slot(r)["area"].update(size="4096"),
    "priority as a string": lambda r: slot(r).update(priority="1"),
    "no priority": lambda r: slot(r).update(priority=None),
    "token 40": lambda r: r["tokens"].update({"40": {"type": "x", "keyslots": ["0"]}}),
    "keyslot of unknown type": lambda r: r["keyslots"].update(
        {
            "5": {
                "type": "q",
                "key_size": 1,
                "area": {"type": "z", "offset": "290816", "size": "4096"},
            }
        }
    ),
    "digest of unknown type": lambda r: r["digests"].update(
        {"1": {"type": "q", "keyslots": [], "segments": []}}
    ),
    "digest iterations as a string": lambda r: digest(r).update(iterations="1000"),
    "digest without salt": lambda r: digest(r).pop("salt"),
    "nested as deep as can be": lambda r: r.update(x=reduce(lambda a, _: [a], range(29), 1)),
}

REFUSED = {
    "keyslot in two digests": lambda r: r["digests"].update({"1": digest(r) | {"segments": []}}),
    "keyslot in no digest": lambda r: digest(r).update(keyslots=[]),
    "luks2 keyslot without digest": lambda r: (
        r["config"].update(keyslots_size="303104"),
        add_slot(r),
    ),
    "segment in no digest": lambda r: digest(r).update(segments=[]),
    "digest of a missing keyslot": lambda r: digest(r).update(keyslots=["0", "7"]),
    "digest of a missing segment": lambda r: digest(r).update(segments=["0", "7"]),
    "keyslot called 00": lambda r: (
        rename(r, "keyslots", "0", "00"),
        digest(r).update(keyslots=["00"]),
    ),
    "keyslot called by a word": lambda r: rename(r, "keyslots", "0", "x"),
    "first segment missing": lambda r: (
        rename(r, "segments", "0", "1"),
        digest(r).update(segments=["1"]),
    ),
    "no segment": lambda r: r["segments"].clear(),
    "only a backup segment": lambda r: segment(r).update(flags=["backup-final"]),
    "dynamic segment before another": lambda r: second_segment(r, "dynamic"),
    "overlapping segments": lambda r: second_segment(r, "1048576"),
    "segment of size 0": lambda r: segment(r).update(size="0"),
    "segment at an odd place": lambda r: segment(r).update(offset="524289"),
    "segment at a negative place": lambda r: segment(r).update(offset="-524288"),
    "segment with a blank": lambda r: segment(r).update(offset=" 524288"),
    "segment offset as a number": lambda r: segment(r).update(offset=524288),
    "segment beyond 64 bits": lambda r: segment(r).update(offset=str(2**64)),
    "segment within the keyslots": lambda r: segment(r).update(offset="262144"),
    "sector size 0": lambda r: segment(r).update(sector_size=0),
    "sector size as a string": lambda r: segment(r).update(sector_size="512"),
    "sector size as a float": lambda r: segment(r).update(sector_size=512.0),
    "negative IV offset": lambda r: segment(r).update(iv_tweak="-1"),
    "empty IV offset": lambda r: segment(r).update(iv_tweak=""),
    "incomplete integrity": lambda r: segment(r).update(integrity={"type": "x"}),
    "flags no array": lambda r: r["config"].update(flags="x"),
    "flags no strings": lambda r: r["config"].update(flags=[1]),
    "requirements no object": lambda r: r["config"].update(requirements=[]),
    "mandatory requirements no array": lambda r: r["config"].update(
        requirements={"mandatory": "x"}
    ),
    "JSON size unlike the header's": lambda r: r["config"].update(json_size="12287"),
    "odd keyslots size": lambda r: r["config"].update(keyslots_size="262143"),
    "keyslots size beyond the data": lambda r: r["config"].update(keyslots_size="495616"),
    "keyslots size beyond 128 MiB": lambda r: r["config"].update(keyslots_size="134221824"),
    "no tokens": lambda r: r.pop("tokens"),
    "no config": lambda r: r.pop("config"),
    "token without keyslots": lambda r: r["tokens"].update({"0": {"type": "x"}}),
    "token of a missing keyslot": lambda r: r["tokens"].update(
        {"0": {"type": "x", "keyslots": ["3"]}}
    ),
    "area within the headers": lambda r: slot(r)["area"].update(offset="28672"),
    "area beyond the keyslots": lambda r: slot(r)["area"].update(offset="36865"),
    "overlapping areas": lambda r: (
        add_slot(r, type="q"),
        r["keyslots"]["5"]["area"].update(offset="40960"),
    ),
    "empty area": lambda r: slot(r)["area"].update(size="0"),
    "area of unknown type": lambda r: slot(r)["area"].update(type="x"),
    "area key size as a string": lambda r: slot(r)["area"].update(key_size="64"),
    "AF of unknown type": lambda r: slot(r)["af"].update(type="x"),
    "stripes as a string": lambda r: slot(r)["af"].update(stripes="4000"),
    "no KDF": lambda r: slot(r).pop("kdf"),
    "KDF without salt": lambda r: slot(r)["kdf"].pop("salt"),
    "iterations as a string": lambda r: slot(r)["kdf"].update(iterations="1000"),
    "iterations as a bool": lambda r: slot(r)["kdf"].update(iterations=True),
    "negative key size": lambda r: slot(r).update(key_size=-1),
    "key size beyond 32 bits": lambda r: slot(r).update(key_size=2**32),
    "keyslot no object": lambda r: r["keyslots"].update({"1": 5}),
    "nested too deep": lambda r: r.update(x=reduce(lambda a, _: [a], range(40), 1)),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_cryptsetup_takes_it_and_so_do_we(what):
    assert not read(edited(ACCEPTED[what])).notes


@pytest.mark.parametrize("what", REFUSED)
def test_cryptsetup_refuses_it_and_so_do_we(what):
    with pytest.raises(FormatError, match="both headers are damaged: "):
        read(edited(REFUSED[what]))


def test_error_says_what_where_got_wanted():
    with pytest.raises(FormatError, match=r"segments\.0\.offset: 524289 is not a multiple of 512"):
        read(edited(REFUSED["segment at an odd place"]))
    with pytest.raises(
        FormatError, match=r'keyslots\.0\.kdf\.iterations: got "1000", wanted an integer'
    ):
        read(edited(REFUSED["iterations as a string"]))


def test_largest_header_is_judged_in_good_time():
    """Tens of thousands of keyslots fit; nothing may take time that grows with their square."""

    def fill(root):
        area = {"type": "z", "offset": "0", "size": "0"}
        for number in range(5, 35000):
            root["keyslots"][str(number)] = {"type": "q", "key_size": 1, "area": area}
        root["tokens"]["0"] = {"type": "x", "keyslots": [str(n) for n in range(5, 35000)]}

    data = corpus.get_image("luks2-metadata-1m").data
    header = read(data)
    root = copy.deepcopy(header.root)
    fill(root)
    root["segments"]["0"]["offset"] = str(64 * 1024 * 1024)
    root["config"]["json_size"] = str(4 * 1024 * 1024 - 4096)
    metadata = parse_metadata(root)
    with pytest.raises(FormatError, match=r"keyslots\.\d+\.area: bytes"):
        validate(metadata, 4 * 1024 * 1024 - 4096)
    assert len(keyslot.list_candidates(metadata, 0)) == 1


JSON = pack_json(read(corpus.get_image(BASE).data).root)
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "0", "-1", "dynamic", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["0", "1", "type"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from places(inner, (*path, key))


PLACES = [path for path in places(read(corpus.get_image(BASE).data).root) if path]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(PLACES), JUNK | st.just(...))
def test_any_field_may_be_anything_or_missing(path, junk):
    def spoil(root):
        for key in path[:-1]:
            root = root[key]
        if junk is ...:
            del root[path[-1]]
        else:
            root[path[-1]] = junk

    with contextlib.suppress(FormatError):
        read(edited(spoil))


@settings(deadline=None)
@given(st.integers(0, len(JSON) - 1), st.binary(min_size=1, max_size=3))
def test_any_byte_of_the_json_may_be_any_other(at, junk):
    with contextlib.suppress(FormatError):
        read(with_area(JSON[:at] + junk + JSON[at + len(junk) :]))
