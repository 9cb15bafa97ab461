"""A header with a hash that nobody knows: refused, and the message says which field holds what."""

import json
import shutil
from pathlib import Path

import pytest

from fusecrypt.dmcrypt.backing import pread_from
from fusecrypt.dmcrypt.luks2 import read_header
from fusecrypt.dmcrypt.luks2.update import write_header
from tests.lab.header_volume import Lab

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

FIELDS = {
    "digests.0.hash": "digest hash 'nosuch'",
    "keyslots.0.af.hash": "AF hash 'nosuch'",
    "keyslots.0.kdf.hash": "KDF pbkdf2 with hash 'nosuch'",
    "keyslots.0.area.encryption": "area cipher 'nosuch'",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    made = Lab(tmp_path_factory.mktemp("unknown-hashes"))
    made.image()
    return made


def spoil(image: Path, path: str) -> None:
    """Put ``nosuch`` into a field of the JSON area."""
    with image.open("r+b") as file:
        header = read_header(pread_from(file.fileno()), image.stat().st_size)
        root = json.loads(json.dumps(header.root))
        *places, name = path.split(".")
        value = root
        for place in places:
            value = value[place]
        value[name] = "nosuch"
        write_header(file.fileno(), header.binary, root)


@pytest.mark.parametrize("path", FIELDS)
def test_the_field_is_named_with_what_it_holds(lab: Lab, tmp_path: Path, path: str) -> None:
    image = tmp_path / "image"
    shutil.copyfile(lab.directory / "img", image)
    spoil(image, path)
    result = lab.ours("open", "--test-passphrase", "--key-file", lab.key("p1"), image)
    assert result.code == 9, result
    assert FIELDS[path] in result.err
