"""loop-AES volumes of the real cryptsetup, through the command line and the mount."""

import hashlib
import shlex

import pytest

from tests.lab import golden, sectors
from tests.lab.writes import odd_writes

pytestmark = pytest.mark.fuse


def open_words(image, data, key):
    """cryptsetup's own words, with our files."""
    (command,) = image["commands"]
    words = shlex.split(command)[1:-2]
    words[words.index("--key-file") + 1] = str(key)
    return [*words, str(data)]


def test_cryptsetups_volumes_open_with_its_own_words_and_take_writes(instance, tmp_path):
    instance.start()
    for image in golden.loopaes():
        name = image["name"]
        data = golden.unpack(image, tmp_path)["data"]
        key = golden.GOLDEN / image["unlock"][0]["keyfile"]
        instance.cli(*open_words(image, data, key), name)
        content = bytearray(instance.device(name).read_bytes())
        assert hashlib.sha256(content).hexdigest() == image["plaintext"]["sha256"], name
        status = instance.cli("status", name, "--json").json
        dm = image["dm"]
        assert (status["type"], status["cipher"]) == ("LOOPAES", dm["cipher"])
        assert (status["offset"], status["iv_offset"]) == (dm["offset"], dm["iv_offset"])
        odd_writes(instance.device(name), content)
        instance.cli("loopaesClose", name)
        if sectors.has(dm["cipher"]):
            stored = data.read_bytes()[dm["offset"] * 512 :]
            volume_key = bytes.fromhex(image["volume_key_hex"])
            assert content == sectors.crypt(
                stored, dm["cipher"], volume_key, first_iv=dm["iv_offset"]
            )

    # Standard input, and the older verb.
    instance.cli("loopaesOpen", "--key-file", "-", data, "v", stdin=key.read_bytes())
    assert instance.device("v").stat().st_size == data.stat().st_size
    # What LUKS can, and loop-AES cannot.
    for words in (("luksSuspend", "v"), ("open", "--test-passphrase", "--type", "loopaes", data)):
        assert instance.run(*words).status in (1, 9), words
    instance.cli("close", "v")
    for words, why in (
        (("loopaesOpen", data, "v"), "--key-file is required"),
        (("loopaesOpen", "--key-file", data, data, "v"), "wanted 1, 64 or 65 lines"),
        (("loopaesOpen", "--key-file", key, "--size", 8, data, "v"), "--size: not for"),
    ):
        result = instance.run(*words)
        assert result.status in (1, 2), result
        assert why in result.stderr
    assert instance.stop() == 0
