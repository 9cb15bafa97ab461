import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.dmcrypt.luks2.json_area import (
    DEPTH_MAX,
    Node,
    pack_json,
    pack_json_area,
    parse_json_area,
)
from fusecrypt.keystore.errors import FormatError

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v) | st.dictionaries(st.text("abc"), v), max_leaves=20
)


def area(text, size=4096):
    return (text if isinstance(text, bytes) else text.encode()).ljust(size, b"\0")


def nested(levels):
    return '{"a":' * levels + "1" + "}" * levels


@given(st.dictionaries(st.text("abcdef"), VALUES, max_size=4))
def test_what_is_packed_is_parsed_back(root):
    if any(abs(n) >= 1 << 64 for n in _integers(root)):
        return
    assert parse_json_area(pack_json_area(root, 1 << 16)) == root


def _integers(value):
    if isinstance(value, int):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _integers(item)


def test_last_of_duplicate_keys_wins_at_the_place_of_the_first():
    root = parse_json_area(area('{"a":1,"b":2,"a":3}'))
    assert pack_json(root) == b'{"a":3,"b":2}'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (" {}", "does not begin"),
        ("[]", "does not begin"),
        ("{} ", "more text behind"),
        ("{}{}", "more text behind"),
        ("{", "at character"),
        ('{"a":}', "at character"),
        ('{"a":NaN}', "NaN"),
        ('{"a":-Infinity}', "Infinity"),
        (b'{"a":"\xff"}', "not UTF-8"),
        ('{"a":"\\ud800"}', "surrogate"),
        (b"{}\0x", "other than NUL"),
        (nested(DEPTH_MAX + 1), "nested deeper"),
        (nested(1000), "nested|recursion"),
        ('{"a":' + "[" * 100000, "recursion|character"),
    ],
)
def test_text_that_is_no_plain_json_object_is_refused(text, what):
    with pytest.raises(FormatError, match=f"JSON area.*({what})"):
        parse_json_area(area(text, 1 << 17))


def test_text_must_end_before_its_area_does():
    text = json.dumps({"a": "x" * 100}).encode()
    with pytest.raises(FormatError, match="no NUL"):
        parse_json_area(text)
    with pytest.raises(FormatError, match="wanted less than"):
        pack_json_area({"a": "x" * 100}, len(pack_json({"a": "x" * 100})))


def test_nesting_is_limited_where_json_c_limits_it():
    assert parse_json_area(area(nested(DEPTH_MAX - 1)))
    with pytest.raises(FormatError, match="nested"):
        parse_json_area(area(nested(DEPTH_MAX)))


def test_integers_of_any_length_are_read_but_fit_no_field():
    root = Node(parse_json_area(area('{"a":' + "9" * 5000 + ',"b":-' + "9" * 5000 + "}", 1 << 14)))
    for name in ("a", "b"):
        with pytest.raises(FormatError, match="wanted 0 to"):
            root.uint32(name)


@given(st.binary(max_size=300).map(lambda b: b"{" + b))
def test_hostile_bytes_parse_or_raise_format_error(data):
    with contextlib.suppress(FormatError):
        parse_json_area(data + bytes(8))


@given(st.text('{}[]",:0123456789.eE+-\\untrfals \x00', max_size=200).map(lambda t: "{" + t))
def test_almost_json_parses_or_raises_format_error(text):
    try:
        root = parse_json_area(area(text))
    except FormatError:
        return
    assert parse_json_area(pack_json_area(root, 1 << 16)) is not None


NODE = Node(
    {
        "t": "text",
        "n": "1\0",
        "i": 7,
        "b": True,
        "f": 1.0,
        "s": "12",
        "x": "1x",
        "u": "18446744073709551616",
        "o": {"k": 1},
        "l": ["a"],
        "m": ["a", 1],
        "z": None,
        "r": ["0", "12"],
        "bad": ["00"],
        "sp": " 1",
        "ar": "\u0661",
    },
    "top",
)


def test_fields_are_read_by_type():
    assert NODE.text("t") == "text"
    assert NODE.integer("i") == 7
    assert NODE.uint64("s") == 12
    assert NODE.node("o").integer("k") == 1
    assert NODE.texts("l") == ("a",)
    assert NODE.references("r") == (0, 12)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        ("text", "i"),
        ("text", "n"),
        ("text", "z"),
        ("text", "none"),
        ("integer", "b"),
        ("integer", "f"),
        ("integer", "s"),
        ("uint64", "i"),
        ("uint64", "x"),
        ("uint64", "u"),
        ("uint64", "sp"),
        ("uint64", "ar"),
        ("node", "l"),
        ("texts", "o"),
        ("texts", "m"),
        ("references", "bad"),
        ("references", "l"),
    ],
)
def test_fields_of_other_types_are_refused_with_their_path(read, name):
    with pytest.raises(FormatError, match=rf"top\.{name}"):
        getattr(NODE, read)(name)
