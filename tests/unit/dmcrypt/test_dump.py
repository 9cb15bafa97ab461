import json
import shutil
import subprocess

import pytest

from fusecrypt.dmcrypt.luks2.dump import dump_json, dump_text
from tests.golden import corpus
from tests.unit.dmcrypt.headers import edited, read

HAS_CRYPTSETUP = shutil.which("cryptsetup") is not None


@pytest.mark.parametrize("image", corpus.images("luks2"), ids=lambda image: image.name)
def test_text_is_byte_for_byte_what_cryptsetup_printed(image):
    assert dump_text(read(image.header)) == image.dump


@pytest.mark.parametrize("image", corpus.images("luks2"), ids=lambda image: image.name)
def test_json_is_the_whole_json_area(image):
    header = read(image.header)
    size = header.binary.hdr_size
    assert json.loads(dump_json(header)) == json.loads(image.header[4096:size].rstrip(b"\0"))


ODD = {
    "requirements": lambda r: r["config"].update(
        flags=["no-journal", "x"], requirements={"mandatory": ["foo", "bar"]}
    ),
    "fixed size": lambda r: r["segments"]["0"].update(size="524288"),
    "segment flags": lambda r: r["segments"]["0"].update(flags=["a", "b"]),
    "integrity": lambda r: r["segments"]["0"].update(
        integrity={
            "type": "hmac(sha256)",
            "journal_encryption": "none",
            "journal_integrity": "none",
        }
    ),
    "linear": lambda r: r["segments"].update(
        {"0": {"type": "linear", "offset": "524288", "size": "dynamic"}}
    ),
    "backup": lambda r: (
        r["segments"].update({"1": r["segments"]["0"] | {"flags": ["backup-final"]}}),
        r["digests"]["0"].update(segments=["0", "1"]),
    ),
    "priority": lambda r: r["keyslots"]["0"].update(priority=7),
    "unknown KDF": lambda r: r["keyslots"]["0"]["kdf"].update(type="foo"),
    "unknown keyslot": lambda r: r["keyslots"].update(
        {
            "5": {
                "type": "z",
                "key_size": 1,
                "area": {"type": "q", "offset": "290816", "size": "4096"},
            }
        }
    ),
    "unknown digest": lambda r: r["digests"].update(
        {"1": {"type": "foo", "keyslots": [], "segments": []}}
    ),
    "tokens": lambda r: r["tokens"].update(
        {
            "3": {"type": "x", "keyslots": ["0"]},
            "1": {
                "type": "y",
                "keyslots": [],
                "a": 1.5,
                "b": None,
                "c": [],
                "d": {},
                "e": 'é/"\\\n<',
                "f": True,
            },
        }
    ),
    "numbers from 32 on": lambda r: r["tokens"].update({"40": {"type": "x", "keyslots": ["0"]}}),
}


@pytest.mark.skipif(not HAS_CRYPTSETUP, reason="no cryptsetup to compare with")
@pytest.mark.parametrize("what", ODD)
def test_odd_headers_are_printed_as_cryptsetup_prints_them(tmp_path, what):
    path = tmp_path / "image"
    path.write_bytes(edited(ODD[what], label="x" * 47, subsystem="é", uuid=""))
    header = read(path.read_bytes())
    for options, ours in ((), dump_text(header)), (("--dump-json-metadata",), dump_json(header)):
        printed = subprocess.run(
            ["cryptsetup", "luksDump", *options, path], capture_output=True, text=True, check=True
        )
        assert ours == printed.stdout


def test_salts_that_are_not_base64_do_not_keep_the_rest_from_being_shown():
    text = dump_text(read(edited(lambda r: r["keyslots"]["0"]["kdf"].update(salt="!"))))
    assert "Salt:       (not base64)" in text
