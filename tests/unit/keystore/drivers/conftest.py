"""A new token of SoftHSM, and an adapter that it is."""

import pytest

from tests.unit.keystore.samples import FIRST, pin


@pytest.fixture
def uri(make_token):
    return make_token()


@pytest.fixture
def adapters(coprocessors, uri):
    """With a CURRENT master key."""
    coprocessors.create_token(FIRST, uri, pin())
    return coprocessors


@pytest.fixture
def session(adapters, uri):
    """Another application's, of which the token knows that it is logged in."""
    adapters.list_info()
    library = pytest.importorskip("pkcs11").lib(uri.module_path)
    # Not closed: that would log all of the process out.
    return library.get_token(token_label=uri.token).open(rw=True)
