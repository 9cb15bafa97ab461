"""Keyslots that we add, change and convert, tried by the real cryptsetup."""

import shutil
from pathlib import Path

import pytest

from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_volume import Lab

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

ARGON = ("--pbkdf-force-iterations", "4", "--pbkdf-memory", "32", "--pbkdf-parallel", "1")
KDFS = {
    "pbkdf2": QUICK_PBKDF,
    "argon2i": ("--pbkdf", "argon2i", *ARGON),
    "argon2id": ("--pbkdf", "argon2id", *ARGON),
}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.mark.parametrize("kdf", list(KDFS))
@pytest.mark.parametrize(
    ("cipher", "bits"),
    [("aes-xts-plain64", "512"), ("aes-cbc-essiv:sha256", "256"), ("aes-xts-plain64", "256")],
)
def test_the_real_tool_opens_what_we_add_change_and_convert(
    lab: Lab, kdf: str, cipher: str, bits: str
) -> None:
    image = lab.image("img", "p1", "-c", cipher, "-s", bits)
    lab.ours_ok("luksAddKey", *KDFS[kdf], "-d", lab.key("p1"), image, lab.key("p2"))
    assert lab.opens(image, "p1", 0)
    assert lab.opens(image, "p2", 1)
    lab.ours_ok("luksChangeKey", *KDFS[kdf], "-d", lab.key("p2"), image, lab.key("p3"))
    assert lab.opens(image, "p3", 1)
    assert not lab.opens(image, "p2")
    lab.ours_ok("luksConvertKey", *KDFS[kdf], "--hash", "sha512", "-d", lab.key("p3"), image)
    slot = lab.metadata(image)["keyslots"]["1"]
    assert (slot["kdf"]["type"], slot["af"]["hash"]) == (kdf, "sha512")
    assert slot["area"]["encryption"] == cipher
    assert slot["area"]["key_size"] == int(bits) // 8
    assert lab.opens(image, "p3", 1)
    # and the real tool goes on from there
    lab.real_ok("luksAddKey", *QUICK_PBKDF, "-q", "-d", lab.key("p3"), image, lab.key("p4"))
    assert lab.ours("open", "--test-passphrase", "-d", lab.key("p4"), image).code == 0


def test_both_tools_choose_the_same_slots_areas_and_fields(lab: Lab) -> None:
    """The same commands on the same image give the same JSON, but for salts."""
    ours = lab.image()
    theirs = lab.directory / "theirs"
    shutil.copyfile(ours, theirs)
    p1, p2, p3 = (lab.key(name) for name in ("p1", "p2", "p3"))
    for words in (
        ["luksAddKey", "-d", p1, "IMAGE", p2],
        ["luksAddKey", "-d", p1, "--key-slot", "7", "--keyslot-cipher", "aes-cbc-plain64",
         "--keyslot-key-size", "256", "IMAGE", p2],
        ["luksChangeKey", "-d", p1, "IMAGE", p3],
        ["luksAddKey", "--unbound", "--key-size", "128", "IMAGE", p2],
    ):  # fmt: skip
        lab.ours_ok(*[ours if word == "IMAGE" else word for word in words], *QUICK_PBKDF)
        lab.real_ok(*[theirs if word == "IMAGE" else word for word in words], *QUICK_PBKDF)
        assert _without_salts(lab.metadata(ours)) == _without_salts(lab.metadata(theirs)), words


def _without_salts(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_salts(v) for k, v in value.items() if k not in {"salt", "digest"}}
    return value


def test_slots_and_passphrases_may_be_chosen(lab: Lab) -> None:
    image = lab.image()
    add = ("luksAddKey", *QUICK_PBKDF)
    # two lines of standard input: the existing passphrase, then the new one
    out = lab.ours_ok(*add, "-v", image, stdin=b"p1\np2\n")
    assert "Key slot 0 unlocked.\nKey slot 1 created.\n" in out
    lab.ours_ok(*add, "-S", "1", "--new-key-slot", "5", "-d", lab.key("p2"), image, lab.key("p3"))
    assert lab.opens(image, "p3", 5)
    wrong = lab.ours(*add, "-S", "0", "--new-key-slot", "6", "-d", lab.key("p2"), image)
    assert wrong.code == 2
    part = ("--new-keyfile", lab.key("xxp4yy"), "--new-keyfile-offset", 2, "--new-keyfile-size", 2)
    lab.ours_ok(*add, "-d", lab.key("p1"), *part, image)
    assert lab.opens(image, "p4", 2)


def test_the_volume_key_alone_adds_a_keyslot(lab: Lab) -> None:
    image = lab.image()
    key = lab.directory / "vk"
    lab.real_ok("luksDump", "-q", "--dump-volume-key", "--volume-key-file", key,
                "-d", lab.key("p1"), image)  # fmt: skip
    add = ("luksAddKey", *QUICK_PBKDF, "--volume-key-file")
    wrong = lab.key("x" * 64)
    assert lab.ours(*add, wrong, image, lab.key("p2")).code == 2
    lab.ours_ok(*add, key, image, lab.key("p2"))
    assert lab.opens(image, "p2", 1)
    lab.real_ok("erase", "-q", image)
    assert lab.ours(*add, key, image, lab.key("p2")).code == 1  # its size is not known any more
    lab.ours_ok(*add, key, "--key-size", "512", image, lab.key("p2"))
    assert lab.opens(image, "p2", 0)


def test_an_unbound_keyslot_holds_a_key_of_its_own(lab: Lab) -> None:
    image = lab.image()
    key = lab.directory / "own"
    key.write_bytes(bytes(range(32)))
    lab.ours_ok("luksAddKey", *QUICK_PBKDF, "--unbound", "-s", "256", "--volume-key-file", key,
                image, lab.key("p2"))  # fmt: skip
    out = lab.real_ok("luksDump", "--unbound", "-S", "1", "-q", "-d", lab.key("p2"), image)
    assert out.split("Unbound Key:")[1].split() == [f"{n:02x}" for n in range(32)]
    assert not lab.opens(image, "p2")
    # changing it keeps its key
    lab.ours_ok("luksChangeKey", *QUICK_PBKDF, "-S", "1", "-d", lab.key("p2"), image, lab.key("p3"))
    again = lab.real_ok("luksDump", "--unbound", "-S", "1", "-q", "-d", lab.key("p3"), image)
    assert again == out


def test_a_changed_keyslot_keeps_its_number_priority_and_tokens(lab: Lab) -> None:
    image = lab.image()
    lab.real_ok("config", image, "--priority", "prefer", "--key-slot", "0")
    lab.real_ok("token", "add", image, "--key-description", "d", "--key-slot", "0")
    lab.ours_ok("luksChangeKey", *QUICK_PBKDF, "-d", lab.key("p1"), image, lab.key("p2"))
    now = lab.metadata(image)
    assert now["keyslots"]["0"]["priority"] == 2
    assert now["tokens"]["0"]["keyslots"] == ["0"]


def test_where_there_is_no_room_the_old_material_is_overwritten_in_place(lab: Lab) -> None:
    image = lab.image("small", "p1", "--luks2-metadata-size", "16k", "--luks2-keyslots-size",
                      "256k", "--offset", "1024")  # fmt: skip
    assert lab.ours("luksAddKey", *QUICK_PBKDF, "-d", lab.key("p1"), image, lab.key("p2")).code == 1
    done = lab.ours("luksChangeKey", *QUICK_PBKDF, "-d", lab.key("p1"), image, lab.key("p2"))
    assert (done.code, "no room" in done.err) == (0, True)
    assert lab.opens(image, "p2", 0)
    assert not lab.opens(image, "p1")


def test_old_key_material_is_gone(lab: Lab) -> None:
    image = lab.image()
    area = lab.metadata(image)["keyslots"]["0"]["area"]
    at, size = int(area["offset"]), int(area["size"])
    before = image.read_bytes()[at : at + size]
    lab.ours_ok("luksChangeKey", *QUICK_PBKDF, "-d", lab.key("p1"), image, lab.key("p2"))
    after = image.read_bytes()[at : at + size]
    same = sum(before[i : i + 512] == after[i : i + 512] for i in range(0, size, 512))
    assert same == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["luksAddKey", "-d", "KB", "IMAGE", "K2"], 2),
        (["luksAddKey", "-d", "K1", "-S", "0", "IMAGE", "K2"], 1),
        (["luksAddKey", "-d", "K1", "-S", "32", "IMAGE", "K2"], 1),
        (["luksAddKey", "-d", "K1", "-S", "9", "--new-key-slot", "3", "IMAGE", "K2"], 1),
        (["luksAddKey", "--unbound", "IMAGE", "K2"], 1),
        (["luksAddKey", "--unbound", "-s", "257", "IMAGE", "K2"], 1),
        (["luksAddKey", "-d", "K1", "--keyslot-cipher", "aes-xts-plain64", "IMAGE", "K2"], 1),
        (["luksAddKey", "-d", "K1", "K1", "K2"], 1),
        (["luksChangeKey", "-d", "KB", "IMAGE", "K2"], 2),
        (["luksChangeKey", "-S", "7", "-d", "K1", "IMAGE", "K2"], 1),
        (["luksConvertKey", "-S", "7", "-d", "K1", "IMAGE"], 1),
        (["luksConvertKey", "-d", "KB", "IMAGE"], 2),
    ],
)
def test_mistakes_end_as_with_the_real_tool_and_change_nothing(
    lab: Lab, words: list[str], code: int
) -> None:
    image = lab.image()
    names = {"KB": lab.key("bad"), "K1": lab.key("p1"), "K2": lab.key("p2"), "IMAGE": image}
    full = [names.get(word, word) for word in words] + list(QUICK_PBKDF)
    before = image.read_bytes()
    theirs = lab.real(*full)
    result = lab.ours(*full)
    assert image.read_bytes() == before
    assert (result.code, theirs.code) == (code, code), (result, theirs)


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(lab: Lab) -> None:
    image = lab.image()
    before = image.read_bytes()
    out = lab.ours_ok("luksAddKey", "--dry-run", "-d", lab.key("p1"), image)
    assert "Key slot 1 would be created" in out
    assert lab.ours("luksAddKey", "--dry-run", "-d", lab.key("bad"), image).code == 2
    out = lab.ours_ok("luksChangeKey", "--dry-run", "-d", lab.key("p1"), image)
    assert "Key slot 0 would be replaced" in out
    assert image.read_bytes() == before
    assert not (lab.directory / "state").exists()
