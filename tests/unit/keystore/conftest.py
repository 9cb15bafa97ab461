"""Adapters in a directory of the test's own."""

import pytest

from fusecrypt.keystore.coprocessors import Coprocessors


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "keystore"


@pytest.fixture
def coprocessors(directory):
    return Coprocessors(directory, now=lambda: 1_769_860_800.0)
