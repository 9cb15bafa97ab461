"""The corpus as one crypttab: everything that a crypttab can say opens at start, at once."""

import hashlib

import pytest

from tests.lab import golden

pytestmark = pytest.mark.fuse


def entry(image, directory):
    """An image as a crypttab line; None when it takes what crypttab has no word for."""
    plain = image.get("plain")
    if plain is not None:
        if "passphrase" in plain or plain["iv_large_sectors"] or plain["size"]:
            return None
        options = ["plain", f"cipher={plain['cipher']}", f"size={plain['key_bits']}"]
        options += [f"offset={plain['offset']}", f"skip={plain['skip']}"]
        options += [f"sector-size={plain['sector_size']}"]
        if plain.get("keyfile_offset"):
            options.append(f"keyfile-offset={plain['keyfile_offset']}")
    else:
        options = ["luks"]
        for name in ("offset", "size"):
            if name in image["unlock"][0]:
                options.append(f"keyfile-{name}={image['unlock'][0][name]}")
    files = golden.unpack(image, directory)
    if "header" in files:
        options.append(f"header={files['header']}")
    key = files.get("key", golden.GOLDEN / (image["unlock"] or [{}])[0].get("keyfile", ""))
    return f"{image['name']} {files['data']} {key} {','.join([*options, 'read-only'])}"


def test_the_corpus_opens_from_one_crypttab(instance, tmp_path):
    lines = {}
    for number, image in enumerate(golden.images("opens")):
        directory = tmp_path / str(number)
        directory.mkdir()
        line = entry(image, directory)
        if line is not None:
            lines[image["name"]] = line
    assert len(lines) > 40
    instance.start(*lines.values())
    for name in lines:
        with instance.device(name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        assert found == golden.find(name)["plaintext"]["sha256"], lines[name]
    listed = instance.cli("list", "--json").json
    assert {volume["name"] for volume in listed["volumes"]} == set(lines)
    assert instance.stop() == 0


def test_the_same_entries_again_after_a_restart(instance, tmp_path):
    names = ("luks2-aes-xts-plain64-512-s512", "luks2-detached", "plain-keyfile-xts512")
    lines = [entry(golden.find(name), tmp_path) for name in names]
    for _ in range(3):
        instance.start(*lines)
        for name in names:
            content = instance.device(name).read_bytes()
            wanted = golden.find(name)["plaintext"]["sha256"]
            assert hashlib.sha256(content).hexdigest() == wanted
        assert instance.stop() == 0


@pytest.mark.parametrize("slot", [0, 1, 7])
def test_key_slot_chooses_the_keyslot(instance, tmp_path, slot):
    image = golden.find("luks2-5slots")
    data = golden.unpack(image, tmp_path)["data"]
    unlock = next(u for u in image["unlock"] if u["slot"] == slot)
    key = golden.GOLDEN / unlock["keyfile"]
    instance.start(f"v {data} {key} luks,read-only,key-slot={slot}")
    assert instance.cli("status", "v", "--json").json["keyslot"] == slot
    assert instance.stop() == 0


def test_read_only_never_writes_not_even_a_repair(instance, tmp_path):
    image = golden.find("luks2-aes-xts-plain64-512-s512")
    data = golden.unpack(image, tmp_path)["data"]
    with data.open("r+b") as file:
        file.write(bytes(4096))  # the primary binary header is gone; the second copy is used
    before = hashlib.sha256(data.read_bytes()).digest()
    data.chmod(0o400)
    instance.start(f"v {data} {golden.GOLDEN / 'keys/pw'} luks,read-only")
    content = instance.device("v").read_bytes()
    assert hashlib.sha256(content).hexdigest() == image["plaintext"]["sha256"]
    with pytest.raises(OSError, match=r"Read-only|Permission|not permitted"):
        instance.device("v").open("r+b").close()
    assert instance.stop() == 0
    assert hashlib.sha256(data.read_bytes()).digest() == before
