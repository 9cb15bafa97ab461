"""`pkcs11:` URIs as RFC 7512 writes them."""

import pytest

from fusecrypt.keystore.errors import ConfigError, PolicyError
from fusecrypt.keystore.pkcs11_uri import TokenUri

MODULE = "?module-path=/usr/lib/module.so"


def test_an_example_of_the_rfc_is_understood():
    uri = TokenUri.parse(
        "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc."
        "?module-name=snake&pin-source=file:/etc/token_pin"
    )
    assert uri.token == "Software PKCS#11 softtoken"
    assert uri.manufacturer == "Snake Oil, Inc."
    assert uri.pin_source == "/etc/token_pin"
    assert str(uri) == (
        "pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc."
        "?module-name=snake"
    )
    assert TokenUri.parse(str(uri)).token == uri.token


def test_a_token_is_found_by_all_that_is_said_of_it():
    known = {"label": "a", "serial": "1", "manufacturer": "m", "model": "x", "slot_id": 7}
    for text, fits in (
        ("token=a", True),
        ("serial=1", True),
        ("slot-id=7", True),
        ("token=a;serial=1;manufacturer=m;model=x;slot-id=7", True),
        ("token=b", False),
        ("token=a;serial=2", False),
        ("token=a;slot-id=8", False),
    ):
        assert TokenUri.parse(f"pkcs11:{text}{MODULE}").matches(**known) is fits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("token=a", "wanted pkcs11:"),
        ("pkcs11:" + MODULE, "names no token"),
        ("pkcs11:token=a", "one of module-path and module-name"),
        (f"pkcs11:token=a{MODULE}&module-name=b", "one of module-path and module-name"),
        ("pkcs11:token=a?module-path=module.so", "absolute path"),
        ("pkcs11:token=a?module-name=../module", "without a path"),
        (f"pkcs11:slot-id=x{MODULE}", "wanted a number"),
        (f"pkcs11:token=a;token=b{MODULE}", "given twice"),
        (f"pkcs11:token{MODULE}", "wanted a value"),
        (f"pkcs11:token={MODULE}", "wanted a value"),
        (f"pkcs11:token=%ff{MODULE}", "not UTF-8"),
        (f"pkcs11:token=a;object=b{MODULE}", "names an object"),
        (f"pkcs11:token=a;colour=b{MODULE}", "colour: wanted"),
        (f"pkcs11:token=a{MODULE}&pin-source=pin", "absolute path"),
    ],
)
def test_others_are_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        TokenUri.parse(text)


def test_a_pin_in_the_uri_is_refused_and_not_repeated():
    with pytest.raises(PolicyError, match="seen by every process") as caught:
        TokenUri.parse(f"pkcs11:token=a{MODULE}&pin-value=31415926")
    assert "31415926" not in str(caught.value)


def test_a_module_is_found_by_its_path_and_missed_by_its_name():
    assert str(TokenUri.parse(f"pkcs11:token=a{MODULE}").find_module()) == "/usr/lib/module.so"
    with pytest.raises(ConfigError, match="no no-such-module"):
        TokenUri.parse("pkcs11:token=a?module-name=no-such-module").find_module()
