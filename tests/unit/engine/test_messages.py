import pytest

from fusecrypt.dmcrypt.engine import messages
from fusecrypt.dmcrypt.engine._engine import ffi
from fusecrypt.keystore.errors import EngineError
from fusecrypt.keystore.keys import ProtectedKey


@pytest.mark.parametrize("name", sorted(messages.LAYOUTS))
def test_layouts_have_the_sizes_that_the_compiler_gives_them(name):
    assert messages.LAYOUTS[name].size == ffi.sizeof(f"struct {name}")


def test_a_name_too_long_for_its_field_is_refused():
    with pytest.raises(EngineError, match="name of 64 bytes"):
        messages.Kdf(messages.KdfType.PBKDF2, b"", 1, hash_name="x" * 64).pack()


@pytest.mark.parametrize("length", [0, 2145])
def test_a_token_of_impossible_length_is_refused(length):
    body = length.to_bytes(4, "little") + bytes(4 + messages.TOKEN_MAX)
    with pytest.raises(EngineError, match="token of"):
        messages.parse_token(body)


def test_a_protected_key_shows_nothing_of_its_token():
    assert "aa" not in repr(ProtectedKey(b"\xaa" * 80))
    assert not hasattr(ProtectedKey(b""), "__bytes__")
