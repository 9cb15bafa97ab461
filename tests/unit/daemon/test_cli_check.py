"""`fusecrypt check` on images that the real cryptsetup made, whole and damaged."""

import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess

import pytest

from fusecrypt.daemon.cli import main
from fusecrypt.dmcrypt.extent import Extent
from fusecrypt.dmcrypt.finding import Severity
from fusecrypt.dmcrypt.key_material import find_damage
from fusecrypt.dmcrypt.plaintext_check import check_plaintext
from tests.golden import corpus
from tests.lab import cryptsetup

pytestmark = [
    pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup"),
    pytest.mark.usefixtures("places"),
]

DERIVED = {case.name.removeprefix("derived-"): case for case in corpus.derived()}
MIB = 1 << 20
OFFSET = 512 << 10
SIZE = OFFSET + MIB

#: What each damage adds to the findings of the good image: severity and id.
ADDED = {
    "l2-primary-binhdr-wiped": {"error header-copy"},
    "l2-primary-json-wiped": {"error header-copy"},
    "l2-primary-checksum-flip": {"error header-copy"},
    "l2-secondary-wiped": {"error header-copy"},
    "l2-primary-hdr-offset-wrong": {"error header-copy"},
    "l2-both-json-flip": {"error header"},
    "l2-primary-hdr-size-32k": {"error header"},
    "l2-segment-size-unaligned": {"error header"},
    "l2-no-segments": {"error header"},
    "l2-iterations-string": {"error header"},
    "l2-truncated-header": {"error header"},
    "l2-segment-size-too-big": {"error size"},
    "l2-truncated-nodata": {"error size"},
    "l2-segment-linear": {"error segment"},
    "l2-flags-unknown": {"note flag"},
    "l2-keyslot-unknown-type": {"note keyslot-type"},
    "l2-no-keyslots": {"error no-keyslot"},
    "l2-salt-badb64": {"error keyslot"},
    "l2-iterations-0": {"error keyslot"},
    "l2-json-duplicate-key": {"warning duplicate"},
    "l2-uuid-empty": {"error uuid"},
    "l2-priority-0": {"warning priority"},
    "l1-keymaterial-overlap": {"error header"},
    "l1-keymaterial-offset-0": {"error header"},
    "l1-mkiter-0": {"error digest"},
    # Only a key shows that a key material or a digest is another one by a bit.
    "l2-digest-flip": set(),
    "l2-area-flip": set(),
    "l1-digest-flip": set(),
}
#: What the real tool takes for whole, too.
WHOLE = {"csum-alg-sha512", "sector-4096-mismatch", "keyslot-id-32", "stripes-4001"}
WHOLE |= {"json-whitespace", "json-escapes"}
ADDED |= {f"l2-{name}": set() for name in WHOLE}
# A version of 0 is no header at all, as for cryptsetup.
REFUSED = {"l2-version-3": 9, "l1-version-0": 1, "l1-hash-unknown": 9}


@pytest.fixture
def check(capsys):
    """Run it, insist that nothing was written, and return exit code and findings."""

    def run(image, *words):
        before = hashlib.sha256(image.read_bytes()).digest()
        code = main([*map(str, ("check", "--json", *words, image))])
        said = json.loads(capsys.readouterr().out)
        assert hashlib.sha256(image.read_bytes()).digest() == before
        findings = said.get("findings")
        if findings is not None:
            grave = [f for f in findings if f["severity"] != "note"]
            assert code == (1 if grave else 0)
            for severity in Severity:
                count = sum(f["severity"] == severity for f in findings)
                assert said[f"{severity}s"] == count
        return code, findings

    return run


def ids(findings):
    return {f"{f['severity']} {f['id']}" for f in findings}


@pytest.fixture
def image(tmp_path, key):
    return cryptsetup.luks_format(tmp_path / "image", key, SIZE)


def test_every_damaged_image_is_in_the_list():
    assert ADDED.keys() | REFUSED.keys() == DERIVED.keys()


@pytest.mark.parametrize("name", sorted(ADDED))
def test_damage_is_found_and_named(check, tmp_path, name):
    case = DERIVED[name]
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(corpus.get_image(case.about["base"]).data)
    bad.write_bytes(case.data)
    usual, found = ids(check(good)[1]), ids(check(bad)[1])
    assert found - usual == ADDED[name]
    if ADDED[name] == {"error header"}:
        return  # then nothing else can be said
    # What the real tool cannot open without naming a keyslot is at least a warning.
    if case.real["open"] == 1:
        assert any(not word.startswith("note") for word in found - usual)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_not_known_at_all_is_refused(check, tmp_path, name):
    image = tmp_path / "image"
    image.write_bytes(DERIVED[name].data)
    assert check(image) == (REFUSED[name], None)
    image.write_bytes(bytes(MIB))
    assert check(image) == (1, None)


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_nothing_is_said_of_a_good_volume_but_what_is_good_to_know(check, tmp_path, key, kind):
    image = tmp_path / "image"
    image.write_bytes(bytes(20 * MIB))
    costs = {
        "luks1": ["--hash", "sha512", "--pbkdf-force-iterations", "210000"],
        "luks2": ["--pbkdf", "argon2id", "--pbkdf-memory", "65536", "--pbkdf-force-iterations", 4],
    }
    words = ["luksFormat", "-q", "--type", kind, *costs[kind], "--key-file", key, image]
    cryptsetup.cryptsetup(*words)
    code, findings = check(image, "--key-file", key)
    assert (code, ids(findings)) == (0, {"note one-keyslot"})
    other = tmp_path / "other"
    other.write_bytes(b"other")
    cryptsetup.cryptsetup(*("luksAddKey", "-q", "--key-file", key, *costs[kind][-4:]), image, other)
    assert check(image) == (0, [])


def test_a_cheap_kdf_is_named_with_the_command_that_replaces_it(check, image, key):
    code, findings = check(image)
    (kdf,) = (f for f in findings if f["id"] == "kdf")
    assert (code, "1000 iterations" in kdf["message"]) == (1, True)
    words = shlex.split(kdf["command"])
    assert words[:2] == ["fusecrypt", "luksConvertKey"]
    cheap = ["--pbkdf-memory", "65536", "--pbkdf-force-iterations", "4", "--key-file", str(key)]
    assert main([*words[1:], *cheap, "-q"]) == 0
    findings = check(image)[1]
    assert "warning kdf" not in ids(findings)
    # The change left a copy of the old header behind, which is told.
    assert "note old-headers" in ids(findings)


def test_after_an_erase_the_kept_header_is_offered_and_not_its_end(check, image, key):
    assert main(["erase", "-q", str(image)]) == 0
    findings = {f["id"]: f for f in check(image)[1]}
    assert findings["no-keyslot"]["command"] == f"fusecrypt header restore {image} 1"
    assert findings["old-headers"]["command"] == ""
    # A second one, which has no keyslot, is the newest now; the offer passes over it.
    assert main(["config", "--label", "empty", str(image)]) == 0
    findings = {f["id"]: f for f in check(image)[1]}
    words = shlex.split(findings["no-keyslot"]["command"])
    assert words == ["fusecrypt", "header", "restore", str(image), "2"]
    assert main([*words[1:], "-q"]) == 0
    cryptsetup.cryptsetup("open", "--test-passphrase", "--key-file", key, image)
    findings = {f["id"]: f for f in check(image)[1]}
    assert "no-keyslot" not in findings
    assert "header forget" in findings["old-headers"]["command"]


def test_a_damaged_copy_is_mended_by_the_command_that_is_named(check, image):
    with image.open("r+b") as file:
        file.seek(0x4000 + 100)
        file.write(b"damage")
    (found,) = (f for f in check(image)[1] if f["id"] == "header-copy")
    assert found["where"] == "secondary header, bytes 16384 to 32768"
    assert main(shlex.split(found["command"])[1:]) == 0
    assert "error header-copy" not in ids(check(image)[1])


@pytest.mark.parametrize(
    ("at", "what", "message"),
    [
        (0x8000, bytes(512), "only bytes of 0x00"),
        (0x8000 + 128_000, b"\xff" * 4096, "only bytes of 0xff"),
        (0x8000 + 255_488, b"plain text, as of a file system. " * 16, "no random bytes"),
    ],
)
def test_overwritten_key_material_is_found_where_it_lies(check, image, key, at, what, message):
    with image.open("r+b") as file:
        file.seek(at)
        file.write(what[: len(what) // 512 * 512])
    (found,) = (f for f in check(image)[1] if f["id"] == "key-material")
    assert found["severity"] == "error"
    assert message in found["message"]
    end = at + len(what) // 512 * 512
    assert found["where"] == f"keyslot 0, bytes {at} to {end}"
    with pytest.raises(cryptsetup.CryptsetupError):
        cryptsetup.volume_key(image, "--key-file", key)


def test_random_sectors_are_never_taken_for_damage_and_poor_ones_always():
    chance = random.Random(4)
    data = chance.randbytes(4 * MIB)
    pread = lambda offset, length: data[offset : offset + length]  # noqa: E731
    assert find_damage(pread, Extent(0, len(data))) == []
    data = bytes(chance.randrange(100) for _ in range(1024)) + data
    ((extent, what),) = find_damage(pread, Extent(0, 1 << 16))
    assert (extent, what) == (Extent(0, 1024), "no random bytes")
    ((extent, what),) = find_damage(pread, Extent(len(data) - 512, 2048))[-1:]
    assert (extent.end, what) == (len(data) + 1536, "not in the file")


def test_both_copies_may_be_whole_and_differ(check, image):
    from fusecrypt.dmcrypt.backing import pread_from
    from fusecrypt.dmcrypt.luks2 import read_header, update

    data = bytearray(image.read_bytes())
    with image.open("r+b") as file:
        header = read_header(pread_from(file.fileno()), SIZE)
        root = json.loads(json.dumps(header.root))
        root["config"]["flags"] = ["same-cpu-crypt"]
        update.write_header(file.fileno(), header.binary, root)
        # The primary copy as it was before.
        file.seek(0)
        file.write(data[:0x4000])
    assert "error header-copies-differ" in ids(check(image)[1])


@pytest.mark.parametrize(
    ("words", "added"),
    [
        (["--cipher", "aes-ecb", "--key-size", "256"], {"error cipher"}),
        (["--cipher", "aes-cbc-plain64", "--key-size", "256"], {"warning cipher"}),
        (["--cipher", "aes-cbc-essiv:sha256", "--key-size", "256"], set()),
        (["--cipher", "aes-xts-plain64", "--key-size", "256"], set()),
    ],
)
def test_ciphers_that_show_too_much_are_named(check, tmp_path, key, words, added):
    image = cryptsetup.luks_format(tmp_path / "image", key, SIZE, *words)
    assert {word for word in ids(check(image)[1]) if word.endswith("cipher")} == added


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("luks2-cipher_null-ecb-128-s512", {"error cipher"}),
        ("luks2-blowfish-cbc-plain64-256-s512", {"warning cipher"}),
        ("luks2-aes-xts-plain64-512-s512", set()),
    ],
)
def test_weak_ciphers_of_images_that_the_kernel_wrote_are_named(check, tmp_path, name, added):
    image = tmp_path / "image"
    image.write_bytes(corpus.get_image(name).header)
    assert {word for word in ids(check(image)[1]) if word.endswith("cipher")} == added


def test_data_that_fit_no_sectors_are_named_with_the_size_that_helps(check, image, tmp_path, key):
    image = cryptsetup.luks_format(tmp_path / "big", key, SIZE, "--sector-size", "4096")
    os.truncate(image, SIZE + 512)
    (found,) = (f for f in check(image)[1] if f["id"] == "size")
    words = shlex.split(found["command"])
    assert words[:2] == ["truncate", "-s"]
    os.truncate(image, int(words[2]))
    assert "error size" not in ids(check(image)[1])


def test_a_requirement_is_an_error(check, image):
    from fusecrypt.dmcrypt.backing import pread_from
    from fusecrypt.dmcrypt.luks2 import read_header, update

    with image.open("r+b") as file:
        header = read_header(pread_from(file.fileno()), SIZE)
        root = json.loads(json.dumps(header.root))
        root["config"]["requirements"] = {"mandatory": ["something-new"]}
        update.write_header(file.fileno(), header.binary, root)
    (found,) = (f for f in check(image)[1] if f["id"] == "requirement")
    assert found["severity"] == "error"
    assert "something-new" in found["message"]


def test_a_backup_is_compared_with_the_header(check, image, key, tmp_path):
    backup, other = tmp_path / "backup", tmp_path / "other"
    words = ("luksHeaderBackup", "--header-backup-file")
    cryptsetup.cryptsetup(*words, backup, image)
    assert "warning backup" not in ids(check(image, "--header-backup-file", backup)[1])
    cryptsetup.cryptsetup("config", "--label", "new", image)
    (found,) = (f for f in check(image, "--header-backup-file", backup)[1] if f["id"] == "backup")
    assert found["severity"] == "warning"
    assert "older" in found["message"]
    assert shlex.split(found["command"])[1] == "luksHeaderBackup"
    stranger = cryptsetup.luks_format(tmp_path / "stranger", key, SIZE)
    cryptsetup.cryptsetup(*words, other, stranger)
    assert "error backup" in ids(check(image, "--header-backup-file", other)[1])


def test_a_detached_header_is_checked_with_its_data(check, tmp_path, key):
    header = tmp_path / "header"
    image = cryptsetup.luks_format(tmp_path / "image", key, SIZE, "--header", header)
    code, findings = check(image, "--header", header, "--key-file", key)
    assert code == 1
    assert ids(findings) == {"note one-keyslot", "warning kdf"}


def write_plaintext(image, key, plaintext):
    """Put bytes at the start of the volume: through another AES."""
    from tests.lab import sectors

    segment = cryptsetup.data_segment(image, image.stat().st_size)
    volume_key = cryptsetup.volume_key(image, "--key-file", key)
    padded = plaintext.ljust(-len(plaintext) // 4096 * -4096, b"\0")
    with image.open("r+b") as file:
        file.seek(segment.offset)
        file.write(
            sectors.crypt(
                padded, segment.cipher, volume_key, sector_size=segment.sector_size, encrypt=True
            )
        )


@pytest.mark.parametrize(
    ("sector_size", "block", "added"),
    [
        (4096, 1024, {"warning sector-size"}),
        (4096, 4096, set()),
        (512, 4096, {"note sector-size"}),
        (512, 1024, set()),
    ],
)
def test_the_file_system_inside_is_looked_at_with_a_key(
    check, tmp_path, key, sector_size, block, added
):
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4")
    image = cryptsetup.luks_format(tmp_path / "image", key, SIZE, "--sector-size", str(sector_size))
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(MIB))
    subprocess.run(["mkfs.ext4", "-q", "-b", str(block), plain], check=True)
    write_plaintext(image, key, plain.read_bytes()[:8192])
    assert "sector-size" not in {f["id"] for f in check(image)[1]}
    findings = check(image, "--key-file", key)[1]
    assert {word for word in ids(findings) if "sector-size" in word} == added
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"wrong")
    assert check(image, "--key-file", wrong) == (2, None)


def test_units_of_other_file_systems_are_read_where_they_stand():
    xfs = bytearray(512)
    xfs[:4], xfs[4:8], xfs[102:104] = b"XFSB", (4096).to_bytes(4, "big"), b"\x02\x00"
    btrfs = bytearray(66_000)
    btrfs[65536 + 64 : 65536 + 72] = b"_BHRfS_M"
    btrfs[65536 + 144 : 65536 + 148] = (4096).to_bytes(4, "little")
    for data, sector_size, wanted in (
        (xfs, 4096, ["sector-size"]),
        (xfs, 512, []),
        (btrfs, 4096, []),
        (btrfs, 512, ["sector-size"]),
        (bytes(100), 4096, []),
    ):
        found = check_plaintext(lambda at, n, data=data: bytes(data[at : at + n]), sector_size)
        assert [finding.id for finding in found] == wanted
