"""Keys of kinds that no adapter here can use are still listed."""

import pytest

from fusecrypt.keystore.errors import FormatError
from fusecrypt.keystore.key_rules import find_weaknesses
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.token_shape import TokenShape, describe_token
from fusecrypt.keystore.tokens import AesCipherToken
from tests.unit.keystore.samples import REAL_XTS_KEY

WKVP = bytes(range(16))


def make_ep11(*, has_header: bool, bits: int, iv: int = 0) -> bytes:
    """A blob as the kernel's zcrypt_ep11misc.h lays it out, without content."""
    length = 320 + (16 if has_header else 0)
    head = length.to_bytes(4, "big") + bytes([6 if has_header else 3, 0]) + bits.to_bytes(2, "big")
    session = bytes(32) if has_header else head + bytes(24)
    blob = session + WKVP + bytes(16) + b"\x12\x34" + bytes([iv]) + bytes(253)
    return (head + bytes(8) + blob) if has_header else blob


@pytest.mark.parametrize(("has_header", "size"), [(False, 320), (True, 336)])
def test_ep11_keys_are_described(has_header, size):
    one = make_ep11(has_header=has_header, bits=256)
    assert describe_token(one) == TokenShape("EP11-AES", size, False, 256, WKVP)
    pair = one + make_ep11(has_header=has_header, bits=256, iv=1)
    assert describe_token(pair) == TokenShape("EP11-AES", 2 * size, True, 512, WKVP)
    hidden = make_ep11(has_header=has_header, bits=0)
    assert describe_token(hidden).clear_bits is None
    for broken in (one[:-1], one + b"\0", one[:90] if has_header else one[:70], one[:60]):
        with pytest.raises(FormatError):
            describe_token(broken)
    with pytest.raises(FormatError, match="1234"):
        describe_token(one.replace(b"\x12\x34", b"\x12\x35"))


@pytest.mark.parametrize(
    ("kind", "name", "bits", "is_xts"),
    [(6, "PVSECRET-AES", 256, False), (8, "PVSECRET-AES", 512, True),
     (9, "PVSECRET-HMAC", 512, False)],
)  # fmt: skip
def test_retrievable_secrets_are_described(kind, name, bits, is_xts):
    token = bytes([0, 0, 0, 0, 9, 0, 0, 0, 0, kind, 0, 32]) + bytes(32)
    assert describe_token(token) == TokenShape(name, 44, is_xts, bits, None)


def test_a_key_of_ours_is_described_as_itself():
    shape = describe_token(REAL_XTS_KEY)
    assert shape == TokenShape("CCA-AESDATA", 128, True, 512, bytes.fromhex("71ecf46a35bd8924"))


@pytest.mark.parametrize("token", [b"", b"\0" * 7, b"\0" * 44, bytes([0, 0, 0, 0, 9]) + bytes(39)])
def test_what_is_no_key_is_refused(token):
    with pytest.raises(FormatError):
        describe_token(token)


def test_rules_that_a_volume_key_should_not_have_are_told():
    def weaknesses(**fields):
        return find_weaknesses(SecureKey(AesCipherToken(bytes(8), bytes(80), **fields).pack()))

    assert weaknesses() == []
    assert find_weaknesses(SecureKey(REAL_XTS_KEY)) == []
    assert "cannot be used to decrypt" in weaknesses(usage1=0x8000)
    assert weaknesses(management1=0x88C8) == ["can be exported with a symmetric key"]
    assert weaknesses(management1=0x0888) == ["can be exported under an AES key"]
    assert weaknesses(management1=0x00C8) == ["cannot become a protected key"]
    assert len(weaknesses(management2=0x0010)) == 1
    assert weaknesses(management3=0x0412) == [
        "was made of clear components", "was converted without export control"
    ]  # fmt: skip
    exportable = SecureKey(AesCipherToken(bytes(8), bytes(80), management1=0xF800).pack())
    assert find_weaknesses(exportable, may_export=True) == []
    assert len(find_weaknesses(exportable)) == 7
