"""Headers converted between LUKS1 and LUKS2, and what the real cryptsetup makes of them."""

import os
import shutil
import struct
from pathlib import Path

import pytest

from tests.golden import corpus
from tests.lab.cryptsetup import QUICK_PBKDF, volume_key
from tests.lab.header_volume import Lab

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

QUICK = ("--pbkdf-force-iterations", "1000")
ARGON = ("--pbkdf-force-iterations", "4", "--pbkdf-memory", "32", "--pbkdf-parallel", "1")
DATA = 4096


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def make(lab: Lab, kind: str, *options: object, slots: tuple[int, ...] = (0,)) -> Path:
    """An image with p<N> in keyslot N, and something in its data."""
    image = lab.directory / "img"
    size = (5 << 19 if kind == "luks1" else 5 << 20) + DATA
    image.write_bytes(bytes(size - DATA) + os.urandom(DATA))
    pbkdf = QUICK_PBKDF if kind == "luks2" else QUICK
    if kind == "luks2" and "--offset" not in options:
        options = (*options, "--offset", "10240")
    format_options = ("luksFormat", "-q", "--type", kind, *pbkdf, "-S", slots[0], *options)
    lab.real_ok(*format_options, image, lab.key(f"p{slots[0]}"))
    where = options[options.index("--header") + 1] if "--header" in options else image
    for slot in slots[1:]:
        lab.real_ok("luksAddKey", *pbkdf, "-d", lab.key(f"p{slots[0]}"), "-S", slot, where,
                    lab.key(f"p{slot}"))  # fmt: skip
    return image


def check(lab: Lab, header: Path, kind: str, slots: tuple[int, ...]) -> None:
    """The real tool reads it, and each passphrase opens the keyslot that it opened before."""
    lab.real_ok("isLuks", "--type", kind, header)
    for slot in slots:
        assert lab.opens(header, f"p{slot}", slot), slot
    lab.ours_ok("open", "--test-passphrase", "-d", lab.key(f"p{slots[-1]}"), header)


LAYOUTS = {
    "defaults": ("-s", "512"),
    "128 bit": ("-c", "aes-cbc-plain64", "-s", "128"),
    "192 bit, sha512": ("-c", "aes-cbc-essiv:sha256", "-s", "192", "--hash", "sha512"),
    "256 bit, sha1": ("-s", "256", "--hash", "sha1"),
    "far": ("-s", "256", "--offset", "4608"),
}
SLOTS = {"some": (1, 5, 7), "no 6": (0, 1, 2, 3, 4, 5, 7), "no 0": tuple(range(1, 8))}
CASES = {layout: (options, (0, 3)) for layout, options in LAYOUTS.items()}
CASES |= {slots: (LAYOUTS["defaults"], numbers) for slots, numbers in SLOTS.items()}


@pytest.mark.parametrize(("layout", "slots"), CASES.values(), ids=CASES)
def test_luks1_becomes_luks2_and_luks1_again(
    lab: Lab, layout: tuple[str, ...], slots: tuple[int, ...]
) -> None:
    image = make(lab, "luks1", *layout, slots=slots)
    before = image.read_bytes()
    key = volume_key(image, "--key-file", lab.key(f"p{slots[0]}"))
    (offset,) = struct.unpack_from(">I", before, 104)
    lab.ours_ok("convert", "-q", "--type", "luks2", image)
    check(lab, image, "luks2", slots)
    assert volume_key(image, "--key-file", lab.key(f"p{slots[0]}")) == key
    segment = lab.metadata(image)["segments"]["0"]
    assert (segment["offset"], segment["sector_size"]) == (str(offset * 512), 512)
    # the real tool goes on from there
    back = lab.directory / "back"
    shutil.copyfile(image, back)
    lab.real_ok("convert", "-q", "--type", "luks1", back)
    check(lab, back, "luks1", slots)
    lab.ours_ok("convert", "-q", "--type", "luks1", image)
    check(lab, image, "luks1", slots)
    assert volume_key(image, "--key-file", lab.key(f"p{slots[0]}")) == key
    free = next(n for n in range(8) if n not in slots)
    lab.real_ok("luksAddKey", *QUICK, "-d", lab.key(f"p{slots[0]}"), image, lab.key(f"p{free}"))
    check(lab, image, "luks1", (*slots, free))
    assert image.read_bytes()[offset * 512 :] == before[offset * 512 :]


@pytest.mark.parametrize("bits", ["256", "512"])
def test_with_all_keyslots_in_use_it_is_converted_too(lab: Lab, bits: str) -> None:
    """With 256 bits there is room beside the keyslots, with 512 all of them must move."""
    slots = tuple(range(8))
    image = make(lab, "luks1", "-s", bits, slots=slots)
    done = lab.ours("convert", "-q", "--type", "luks2", image)
    assert (done.code, "must be moved" in done.err) == (0, bits == "512")
    check(lab, image, "luks2", slots)
    lab.ours_ok("convert", "-q", "--type", "luks1", image)
    check(lab, image, "luks1", slots)


def test_where_there_is_no_room_at_all_it_is_refused_as_the_real_tool_does(lab: Lab) -> None:
    image = make(lab, "luks1", "-s", "512", "--offset", "4040")
    before = image.read_bytes()
    for run in (lab.ours, lab.real):
        assert run("convert", "-q", "--type", "luks2", image).code == 1
    assert image.read_bytes() == before


@pytest.mark.parametrize("slots", [(0,), (0, 3), tuple(range(8))], ids=["one", "two", "all"])
def test_detached_headers_are_converted_and_grow(lab: Lab, slots: tuple[int, ...]) -> None:
    header = lab.directory / "header"
    image = make(lab, "luks1", "-s", "512", "--header", header, slots=slots)
    before = image.read_bytes()
    lab.ours_ok("convert", "-q", "--type", "luks2", "--header", header, image)
    check(lab, header, "luks2", slots)
    assert lab.metadata(header)["segments"]["0"]["offset"] == "0"
    if len(slots) == 2:
        lab.real_ok("convert", "-q", "--type", "luks1", "--header", header, image)
        lab.real_ok("convert", "-q", "--type", "luks2", "--header", header, image)
    lab.ours_ok("convert", "-q", "--type", "luks1", "--header", header, image)
    check(lab, header, "luks1", slots)
    assert image.read_bytes() == before


LUKS2 = {
    "defaults": ((), (0, 3, 7)),
    "64 KiB metadata": (("--luks2-metadata-size", "64k"), (0, 1)),
    "label": (("--label", "x", "--subsystem", "y"), (2,)),
    "sha512": (("--hash", "sha512"), (0,)),
    "small": (("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "1m", "--offset", "4096",
               "-s", "256"), (0, 1)),
}  # fmt: skip


@pytest.mark.parametrize(("options", "slots"), LUKS2.values(), ids=LUKS2)
def test_luks2_becomes_luks1(lab: Lab, options: tuple[str, ...], slots: tuple[int, ...]) -> None:
    image = make(lab, "luks2", "--sector-size", "512", *options, slots=slots)
    key = volume_key(image, "--key-file", lab.key(f"p{slots[0]}"))
    offset = int(lab.metadata(image)["segments"]["0"]["offset"])
    before = image.read_bytes()
    lab.ours_ok("convert", "-q", "--type", "luks1", image)
    check(lab, image, "luks1", slots)
    assert volume_key(image, "--key-file", lab.key(f"p{slots[0]}")) == key
    assert image.read_bytes()[offset:] == before[offset:]
    assert b"SKUL" not in image.read_bytes()[:offset]
    lab.real_ok("convert", "-q", "--type", "luks2", image)
    check(lab, image, "luks2", slots)


def test_what_the_real_tool_converted_we_open(lab: Lab) -> None:
    image = make(lab, "luks1", "-s", "512", slots=(0, 6))
    lab.real_ok("convert", "-q", "--type", "luks2", image)
    check(lab, image, "luks2", (0, 6))
    lab.real_ok("convert", "-q", "--type", "luks1", image)
    check(lab, image, "luks1", (0, 6))
    golden = corpus.get_image("luks1-to-luks2")
    image.write_bytes(golden.data)
    lab.ours_ok("convert", "-q", "--type", "luks1", image)
    key_file = lab.directory / "pw"
    key_file.write_bytes(bytes.fromhex(golden.about["unlock"][0]["secret_hex"]))
    assert volume_key(image, "--key-file", key_file) == golden.volume_key


REFUSED = {
    "sector size": (("--sector-size", "4096"), ()),
    "argon2id": ((), ("luksConvertKey", "--pbkdf", "argon2id", *ARGON, "-d", "p0", "IMAGE")),
    "keyslot 9": ((), ("luksAddKey", *QUICK_PBKDF, "-d", "p0", "-S", "9", "IMAGE", "p1")),
    "token": ((), ("token", "add", "--key-description", "x", "IMAGE")),
    "another hash": ((), ("luksAddKey", *QUICK_PBKDF, "--hash", "sha512", "-d", "p0", "IMAGE",
                          "p1")),
    "another area cipher": (("--keyslot-cipher", "aes-cbc-plain64", "--keyslot-key-size", "256"),
                            ()),
    "unbound": ((), ("luksAddKey", *QUICK_PBKDF, "--unbound", "-s", "256", "IMAGE", "p1")),
    "no keyslot": ((), ("erase", "-q", "IMAGE")),
    "no room": (("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "512k", "--offset",
                 "2048"), ()),
}  # fmt: skip


@pytest.mark.parametrize(("options", "change"), REFUSED.values(), ids=REFUSED)
def test_what_luks1_has_not_is_refused_as_the_real_tool_does(
    lab: Lab, options: tuple[str, ...], change: tuple[str, ...]
) -> None:
    sector = () if "--sector-size" in options else ("--sector-size", "512")
    image = make(lab, "luks2", *sector, *options)
    names = {"IMAGE": image, **{name: lab.key(name) for name in ("p0", "p1")}}
    if change:
        lab.real_ok(*[names.get(word, word) for word in change])
    before = image.read_bytes()
    for run in (lab.ours, lab.real):
        assert run("convert", "-q", "--type", "luks1", image).code == 1
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    "words", [("--type", "luks1"), (), ("--type", "luks"), ("--type", "plain")], ids=str
)
def test_wrong_types_end_as_with_the_real_tool(lab: Lab, words: tuple[str, ...]) -> None:
    image = make(lab, "luks1", "-s", "256")
    before = image.read_bytes()
    for run in (lab.ours, lab.real):
        assert run("convert", "-q", *words, image).code == 1
    assert image.read_bytes() == before


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_a_dry_run_writes_nothing_and_a_backup_goes_back(lab: Lab, kind: str) -> None:
    sector = ("--sector-size", "512") if kind == "luks2" else ()
    image = make(lab, kind, "-s", "256", *sector, slots=(0, 2))
    other = {"luks1": "luks2", "luks2": "luks1"}[kind]
    before = image.read_bytes()
    out = lab.ours_ok("convert", "--dry-run", "--type", other, image)
    assert "Dry run" in out
    assert image.read_bytes() == before
    lab.ours_ok("convert", "-q", "--type", other, image)
    (backup,) = (lab.directory / "state/headers").rglob(f"*-convert.{kind}")
    image.write_bytes(bytes(1 << 20) + image.read_bytes()[1 << 20 :])
    lab.ours_ok("luksHeaderRestore", "-q", "--header-backup-file", backup, image)
    check(lab, image, kind, (0, 2))
