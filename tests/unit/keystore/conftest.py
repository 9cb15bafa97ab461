"""Adapters in a directory of the test's own, tokens of SoftHSM, and who gets effective keys."""

import itertools

import pytest

from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.pkcs11_uri import TokenUri
from tests.lab import tokens
from tests.unit.keystore.engine import Engine

_numbers = itertools.count()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "keystore"


@pytest.fixture
def coprocessors(directory):
    return Coprocessors(directory, now=lambda: 1_769_860_800.0)


@pytest.fixture(scope="session")
def engine():
    return Engine()


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        hsm = tokens.SoftHsm(tmp_path_factory.mktemp("softhsm"))
        patch.setenv("SOFTHSM2_CONF", hsm.environment["SOFTHSM2_CONF"])
        yield hsm


@pytest.fixture
def make_token(softhsm):
    """The URI of another token of SoftHSM."""
    return lambda pin=tokens.PIN: TokenUri.parse(softhsm.make(f"token {next(_numbers)}", pin))
