"""`check` and `luksDump` on the trap of a forgotten --key-size: half a secure key as clear key."""

import json
import shutil

import pytest

from fusecrypt.daemon.cli import main
from tests.lab import cryptsetup
from tests.unit.keystore.samples import REAL_XTS_KEY

pytestmark = [
    pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup"),
    pytest.mark.usefixtures("places"),
]

SIZE = (512 << 10) + (1 << 20)


@pytest.fixture
def check(capsys):
    """Run it; severities and names of what it finds."""

    def run(image, *words):
        code = main([*map(str, ("check", "--json", *words, image))])
        findings = json.loads(capsys.readouterr().out)["findings"]
        assert code == any(f["severity"] != "note" for f in findings)
        return {f"{f['severity']} {f['id']}" for f in findings}

    return run


@pytest.mark.parametrize(("cipher", "size"), [
    ("aes-xts-plain64", 64), ("aes-xts-plain64", 32), ("aes-cbc-essiv:sha256", 32),
])  # fmt: skip
def test_a_secure_key_cut_short_is_seen_with_the_passphrase(check, tmp_path, key, cipher, size):
    """The trap of a forgotten --key-size: the first 64 bytes of a token are the clear key."""
    beginning = tmp_path / "beginning"
    beginning.write_bytes(REAL_XTS_KEY[:size])
    image = cryptsetup.luks_format(
        *(tmp_path / "image", key, SIZE, "--volume-key-file", beginning),
        *("--cipher", cipher, "--key-size", str(size * 8)),
    )
    assert "error key" not in check(image)
    assert "error key" in check(image, "--key-file", key)


@pytest.mark.parametrize(
    ("cipher", "size", "is_marked"),
    [("paes-xts-plain64", 64, True), ("paes-xts-plain64", 32, True),
     ("paes-cbc-plain64", 32, True), ("paes-xts-plain64", 128, False),
     ("paes-cbc-plain64", 64, False), ("aes-xts-plain64", 64, False)],
)  # fmt: skip
def test_the_trap_is_seen_without_the_passphrase(
    check, tmp_path, key, capsys, cipher, size, is_marked
):
    """The header alone shows a key too short for a token; `luksDump` says so on standard error."""
    token = tmp_path / "token"
    token.write_bytes(REAL_XTS_KEY[:size])
    image = cryptsetup.luks_format(
        *(tmp_path / "image", key, SIZE * 2, "--luks2-keyslots-size", "1m"),
        *("--offset", "2176", "--luks2-metadata-size", "16k", "--volume-key-file", token),
        *("--cipher", cipher, "--key-size", str(size * 8)),
    )
    assert ("warning clear-key" in check(image)) is is_marked
    is_used_as_clear = is_marked or cipher.startswith("aes")
    assert ("error key" in check(image, "--key-file", key)) is is_used_as_clear
    capsys.readouterr()
    assert main(["luksDump", str(image)]) == 0
    told = capsys.readouterr()
    assert told.out.encode() == cryptsetup.cryptsetup("luksDump", image)
    assert (f"a key of {size * 8} bits" in told.err) is is_marked
    assert is_marked or not told.err
