import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusecrypt.daemon.cli.passphrase import Passphrase
from fusecrypt.daemon.cli.table_text import take_apart
from fusecrypt.keystore.errors import ConfigError, MapperError, UnsupportedError

KEY = b"0123456789abcdefABCDEF0123456789"


def take(text):
    passphrase = Passphrase(len(text) + 1)
    passphrase.append(text)
    with passphrase:
        table = take_apart(passphrase)
    with table.keys:
        return table.lines, table.keys.get_bytes()


def test_keys_are_taken_out_and_the_rest_is_kept():
    lines, keys = take(
        b"# comment\n\n  0 8\tcrypt aes-cbc-plain64 " + KEY + b" 0 /a\xff 0\n"
        b"8 8 zero\n16 8 crypt aes-ecb " + KEY[:4] + b" 0 f 0"
    )
    assert lines == [
        "0 8 crypt aes-cbc-plain64 :16: 0 /a\udcff 0",
        "8 8 zero",
        "16 8 crypt aes-ecb :2: 0 f 0",
    ]
    assert keys == KEY + KEY[:4]


@pytest.mark.parametrize("key", [b"-", b":32:logon:name", b":"])
def test_what_is_no_key_stays(key):
    lines, keys = take(b"0 8 crypt cipher_null-ecb " + key + b" 0 f 0\n")
    assert lines == [f"0 8 crypt cipher_null-ecb {key.decode()} 0 f 0"]
    assert keys == b""


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        (b"0 8 crypt aes-ecb xyz 0 f 0", ConfigError, "line 1: key: wanted hexadecimal"),
        (b"0 8 crypt aes-ecb abc 0 f 0", ConfigError, "line 1: key: wanted hexadecimal"),
        (b"0 8 crypt aes-ecb -ab 0 f 0", ConfigError, "line 1: key: wanted hexadecimal"),
        (b"0 8 zero\n" + KEY, UnsupportedError, "line 2: wanted START LENGTH TARGET"),
        (b"0 8 " + KEY + b" x", UnsupportedError, "line 1: wanted START LENGTH TARGET"),
        (b"0 8 CRYPT aes-ecb " + KEY, UnsupportedError, "line 1: wanted START"),
    ],
)
def test_other_text_is_refused_and_not_repeated(text, error, what):
    with pytest.raises(error, match=what) as raised:
        take(text)
    assert KEY.decode() not in str(raised.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_apart_or_refused(text):
    try:
        lines, keys = take(text + b"\n")
    except MapperError:
        return
    assert keys == b"" or any(":" in line for line in lines)
