"""The files of a crypttab entry: opened together, and closed together."""

import os

import pytest

from fusecrypt.daemon.crypttab import parse_crypttab
from fusecrypt.daemon.crypttab_files import OwnRights
from fusecrypt.daemon.entry_files import close_entry_files
from fusecrypt.keystore.errors import MapperError, NotFoundError


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(bytes(1 << 20))
    return path


def open_entry(line):
    (entry,) = parse_crypttab(line, "crypttab", whole=True).entries
    entry.check()
    return OwnRights(()).open_entry(entry, own_device=0)


def list_fds():
    return sorted(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("plain,cipher=nonsense-xts-plain64,size=512", MapperError),
        ("plain,cipher=aes-xts-plain64,size=512,skip=0,header=/nowhere", NotFoundError),
        ("luks,header=/nowhere", NotFoundError),
    ],
)
def test_an_entry_that_is_not_opened_leaves_nothing_open(image, options, error):
    before = list_fds()
    with pytest.raises(error):
        open_entry(f"v {image} /dev/urandom {options}")
    assert list_fds() == before


def test_source_and_header_are_open_until_they_are_closed(image):
    before = list_fds()
    recipe = open_entry(f"v {image} none luks,header={image}")
    assert os.path.samestat(os.fstat(recipe.source.fd), image.stat())
    assert len(list_fds()) == len(before) + 2
    close_entry_files(recipe)
    assert list_fds() == before
