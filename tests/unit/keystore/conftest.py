"""Adapters in a directory of the test's own, tokens, a machine, and who gets effective keys."""

import itertools

import pytest

from fusecrypt.keystore.coprocessors import Coprocessors
from fusecrypt.keystore.pkcs11_uri import TokenUri
from tests.lab import tokens
from tests.unit.keystore.engine import Engine
from tests.unit.keystore.fake_machine import FakeMachine
from tests.unit.keystore.samples import FIRST, master_key

_numbers = itertools.count()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "keystore"


@pytest.fixture
def coprocessors(directory):
    return Coprocessors(directory, now=lambda: 1_769_860_800.0)


@pytest.fixture
def fake(tmp_path):
    """An IBM Z machine with one queue."""
    machine = FakeMachine(tmp_path)
    machine.add(str(FIRST), current=master_key(0), old=master_key(1))
    return machine


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
