"""zkey-cryptsetup on volumes of the real cryptsetup, which reads what comes out of it."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.verification import make_mkvp
from tests.lab.cryptsetup import QUICK_PBKDF, CryptsetupError, cryptsetup, metadata, volume_key
from tests.lab.terminal import talk
from tests.product import Instance, command, running
from tests.unit.keystore.independent import unwrap
from tests.unit.keystore.samples import FIRST, master_key, put_adapter

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

CLEAR = bytes(range(64))
PATTERN = "cd6b103236fbd87dba93e9001e29bc3d5e885d6abd1577e3e0e0a5f49e444894"
ONE, TWO, THREE = master_key(0), master_key(1), master_key(2)
LAYOUT = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "5m", "--offset", "12288")
ARGON = ("--pbkdf", "argon2i", "--pbkdf-memory", "32", "--pbkdf-force-iterations", "4",
         "--pbkdf-parallel", "1")  # fmt: skip
TOKEN = {"type": "paes-verification-pattern", "keyslots": [], "verification-pattern": PATTERN}


@dataclass
class Lab:
    """An instance with an adapter, a volume, and three passphrases."""

    place: Instance
    image: Path

    def registers(self, **content) -> None:
        put_adapter(self.place.directory / "state/keystore", FIRST, **content)

    def key(self, name: str) -> Path:
        return self.place.write_file(f"pass-{name}", name.encode())

    def keys(self, *names: str) -> list[object]:
        return [word for name in names for word in ("-d", self.key(name))]

    def run(self, action: str, *words, stdin: bytes = b""):
        return self.place.run("zkey-cryptsetup", action, self.image, *words, stdin=stdin)

    def ok(self, action: str, *words, stdin: bytes = b"") -> str:
        result = self.run(action, *words, stdin=stdin)
        assert result.status == 0, result
        return result.stdout

    def real(self, *words, **more) -> bytes:
        return cryptsetup(*map(str, words), **more)

    def opens(self, name: str, slot: int) -> bool:
        try:
            self.real("open", "--test-passphrase", "-S", slot, "-d", self.key(name), self.image)
        except CryptsetupError:
            return False
        return True

    def volume_key(self, name: str = "a") -> bytes:
        """As the real cryptsetup takes it out of a keyslot."""
        return volume_key(self.image, "--key-file", self.key(name))

    @property
    def json(self) -> dict:
        return metadata(self.image)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A volume with three keyslots: 0 argon2i, 1 pbkdf2 and preferred, 4 pbkdf2."""
    with running(tmp_path_factory.mktemp("zkey-cryptsetup")) as place:
        lab = Lab(place, place.directory / "base.img")
        lab.registers(current=ONE)
        place.write_file("clear", CLEAR)
        place.cli("zkey", "generate", "skey", "-x", "-c", "clear")
        lab.image.touch()
        os.truncate(lab.image, 7 << 20)
        lab.real("luksFormat", "-q", "--type", "luks2", *LAYOUT, *ARGON, "--cipher",
                 "paes-xts-plain64", "--key-size", 1024, "--volume-key-file",
                 place.directory / "skey", "-d", lab.key("a"), lab.image)  # fmt: skip
        add = ("luksAddKey", "-q", *QUICK_PBKDF, "-d", lab.key("a"))
        lab.real(*add, lab.image, lab.key("b"))
        lab.real(*add, "-S", "4", lab.image, lab.key("c"))
        lab.real("config", lab.image, "--priority", "prefer", "-S", "1")
        lab.real("token", "add", lab.image, "--key-description", "d", "-S", "1")
        yield lab


@pytest.fixture
def lab(base):
    copy = base.place.directory / "img"
    shutil.copyfile(base.image, copy)
    base.registers(current=ONE)
    return Lab(base.place, copy)


def kept(content: dict) -> dict:
    """What must survive of keyslots: numbers, costs, priority, ciphers."""
    result = {}
    for number, slot in content["keyslots"].items():
        kdf = {name: value for name, value in slot["kdf"].items() if name != "salt"}
        area = slot["area"]
        result[number] = (kdf, slot["af"], slot.get("priority"), area["encryption"],
                          area["key_size"])  # fmt: skip
    return result


def test_a_volume_is_validated_and_named(lab):
    shown = lab.ok("validate", *lab.keys("b"))
    for row in ("    Status:                Valid", "    Secure key size:       128 bytes",
                "    XTS type key:          Yes", "    Key type:              CCA-AESDATA",
                f"    Enciphered with:       CURRENT master key (MKVP: {make_mkvp(ONE).hex()})",
                "    Verification pattern:  Not available"):  # fmt: skip
        assert row in shown
    assert lab.ok("setvp", *lab.keys("a")) == ""
    assert TOKEN in lab.json["tokens"].values()
    lab.ok("setvp", stdin=b"c")  # once more changes nothing but the epoch
    assert list(lab.json["tokens"].values()).count(TOKEN) == 1
    shown = lab.ok("val", *lab.keys("c"))
    assert f"Verification pattern:  {PATTERN[:32]}\n{' ' * 27}{PATTERN[32:]}\n" in shown
    lab.registers(current=TWO)
    result = lab.run("validate", *lab.keys("a"))
    assert (result.status, "ATTENTION" in result.stdout) == (1, True), result
    assert lab.run("setvp", *lab.keys("a")).status == 6
    assert lab.run("validate", *lab.keys("wrong")).status == 2


def test_a_staged_change_keeps_every_keyslot(lab):
    before, old = lab.json, lab.volume_key()
    lab.registers(current=ONE, new=TWO)
    refused = lab.run("reencipher", *lab.keys("a", "b"))
    assert (refused.status, "keyslots 4" in refused.stderr) == (8, True), refused
    assert lab.json == before
    lab.ok("reencipher", *lab.keys("a", "b", "c"))
    staged = lab.json
    assert len(staged["keyslots"]) == 6
    assert lab.volume_key() == old
    tokens = [t for t in staged["tokens"].values() if t["type"] == "paes-reencipher"]
    assert {(t["original-keyslot"], t["unbound-keyslot"]) for t in tokens} == {
        (0, 2),
        (1, 3),
        (4, 5),
    }
    assert all(t["keyslots"] == [str(t["unbound-keyslot"])] for t in tokens)
    assert all(t["verification-pattern"] == PATTERN for t in tokens)
    assert "pending" in lab.ok("validate", *lab.keys("a"))
    checked = lab.place.run("check", lab.image)
    for number in (2, 3, 5):
        assert f"keyslot {number}: waits for the NEW master key" in checked.stdout + checked.stderr
    assert "fusecrypt zkey-cryptsetup reencipher --complete" in checked.stdout + checked.stderr
    assert "does not open the volume" not in checked.stdout + checked.stderr
    early = lab.run("reencipher", *lab.keys("a"))  # a plain one completes
    assert (early.status, "may yet have to be set" in early.stderr) == (6, True), early
    assert lab.json == staged

    lab.registers(current=TWO, old=ONE)
    assert "successfully" in lab.ok("re", "--complete", *lab.keys("b"))
    after = lab.json
    assert kept(after) == kept(before)
    assert len(after["digests"]) == 1
    assert after["segments"] == before["segments"]
    assert [t for t in after["tokens"].values() if t["type"] == "luks2-keyring"] == [
        {"type": "luks2-keyring", "keyslots": ["1"], "key_description": "d"}
    ]
    assert not any(t["type"] == "paes-reencipher" for t in after["tokens"].values())
    for name, slot in (("a", 0), ("b", 1), ("c", 4)):
        assert lab.opens(name, slot)
    assert unwrap(lab.volume_key("c"), TWO) == CLEAR
    assert lab.run("re", "--complete", *lab.keys("a")).status == 1
    # and both tools go on from there
    lab.real("luksAddKey", "-q", *QUICK_PBKDF, "-d", lab.key("a"), lab.image, lab.key("d"))
    lab.ok("validate", *lab.keys("d"))


def test_from_old_is_done_at_once_and_passphrases_may_be_lines(lab):
    before = lab.json
    lab.registers(current=TWO, old=ONE)
    assert lab.run("reencipher", stdin=b"c\na\n").status == 8
    lab.ok("reencipher", stdin=b"c\na\nb\n")
    assert kept(lab.json) == kept(before)
    assert unwrap(lab.volume_key("b"), TWO) == CLEAR
    again = lab.run("reencipher", "--from-old", *lab.keys("a", "b", "c"))
    assert (again.status, "already" in again.stderr) == (1, True), again


def test_keyslots_are_given_up_only_by_force(lab):
    lab.registers(current=TWO, old=ONE)
    lab.ok("reencipher", "--force", *lab.keys("c"))
    assert list(lab.json["keyslots"]) == ["4"]
    assert lab.opens("c", 4)
    assert not any("1" in t["keyslots"] for t in lab.json["tokens"].values())


def test_in_place_for_new(lab):
    lab.registers(current=ONE, new=TWO)
    lab.ok("reencipher", "--to-new", "--in-place", *lab.keys("a", "b", "c"))
    assert lab.run("validate", *lab.keys("a")).status == 1
    lab.registers(current=TWO, old=ONE)
    lab.ok("validate", *lab.keys("a"))


def test_what_waits_is_replaced_after_a_question(lab):
    lab.registers(current=ONE, new=TWO)
    lab.ok("reencipher", *lab.keys("a", "b", "c"))
    lab.registers(current=ONE, new=THREE)
    files = lab.keys("a", "b", "c")
    assert lab.run("reencipher", "--staged", *files, stdin=b"n\n").status == 2
    lab.ok("reencipher", "--staged", *files, stdin=b"y\n")
    assert len(lab.json["keyslots"]) == 6
    lab.registers(current=THREE, old=ONE)
    lab.ok("reencipher", "--complete", *lab.keys("c"))
    assert unwrap(lab.volume_key("a"), THREE) == CLEAR


def test_completed_too_late_it_goes_on_from_the_old_register(lab):
    lab.registers(current=ONE, new=TWO)
    lab.ok("reencipher", *lab.keys("a", "b", "c"))
    lab.registers(current=THREE, old=TWO)
    files = lab.keys("a", "b", "c")
    assert lab.run("reencipher", "--complete", *files, stdin=b"\n").status == 2
    lab.ok("reencipher", "--complete", "-q", *files)
    assert unwrap(lab.volume_key("b"), THREE) == CLEAR
    assert len(lab.json["keyslots"]) == 3


def test_what_zkey_cryptsetup_staged_is_completed(lab, tmp_path):
    """One unbound keyslot and one token, as the tool of s390-tools leaves them."""
    lab.registers(current=ONE, new=TWO)
    lab.place.cli("zkey", "reencipher", "skey", "-n", "-f", tmp_path / "new")
    lab.real("luksAddKey", "-q", "--unbound", "-s", "1024", "--volume-key-file", tmp_path / "new",
             *QUICK_PBKDF, "-S", "7", lab.image, lab.key("a"))  # fmt: skip
    token = {"type": "paes-reencipher", "keyslots": ["7"], "verification-pattern": PATTERN,
             "original-keyslot": 0, "unbound-keyslot": 7}  # fmt: skip
    for content in (TOKEN, token):
        (tmp_path / "token").write_text(json.dumps(content))
        lab.real("token", "import", "--json-file", tmp_path / "token", lab.image)
    lab.registers(current=TWO, old=ONE)
    assert lab.run("reencipher", "--complete", *lab.keys("a")).status == 8
    lab.ok("reencipher", "--complete", "--force", *lab.keys("a"))
    assert list(lab.json["keyslots"]) == ["0"]
    assert unwrap(lab.volume_key("a"), TWO) == CLEAR


def test_a_lost_volume_is_brought_back_by_a_copy_of_its_key(lab, tmp_path):
    lab.ok("setvp", *lab.keys("a"))
    copy, other = tmp_path / "copy", tmp_path / "other"
    lab.registers(current=TWO)  # the first master key is gone
    lab.place.cli("zkey", "generate", copy, "-x", "-c", "clear", "-K", "CCA-AESCIPHER")
    lab.place.cli("zkey", "generate", other, "-x")
    files = lab.keys("a", "b", "c")
    wrong = lab.run("setkey", "-m", other, *files)
    assert (wrong.status, "do not match" in wrong.stderr) == (7, True), wrong
    lab.ok("setkey", "-m", copy, *files)
    assert lab.volume_key("c") == copy.read_bytes()  # another type: a larger key
    assert len(lab.json["keyslots"]) == 3
    lab.ok("validate", *lab.keys("b"))
    again = lab.run("setkey", "-m", copy, *files)
    assert (again.status, "already" in again.stderr) == (0, True), again


def test_without_a_pattern_a_key_that_cannot_be_compared_is_asked_about(lab, tmp_path):
    lab.registers(current=TWO)
    lab.place.cli("zkey", "generate", tmp_path / "new", "-x", "-c", "clear")
    words = ("-m", tmp_path / "new", *lab.keys("a", "b", "c"))
    declined = lab.run("setkey", *words, stdin=b"n\n")
    assert (declined.status, "lose all data" in declined.stderr) == (2, True), declined
    lab.ok("setkey", *words, stdin=b"yes\n")
    assert TOKEN in lab.json["tokens"].values()


@pytest.mark.parametrize("cipher", ["aes-xts-plain64", "aes-cbc-plain64"])
def test_a_clear_key_becomes_a_secure_one_and_the_data_stay(base, cipher):
    lab = Lab(base.place, base.place.directory / "clear.img")
    base.registers(current=ONE)
    with lab.image.open("wb") as file:
        file.truncate(7 << 20)
    size = 64 if "xts" in cipher else 32
    xts = ["-x"] if "xts" in cipher else []
    clear = base.place.write_file("vk", CLEAR[:size])
    lab.real("luksFormat", "-q", "--type", "luks2", *LAYOUT, *QUICK_PBKDF, "-c", cipher, "-s",
             8 * size, "--volume-key-file", clear, "-d", lab.key("a"), "--uuid",
             "11111111-2222-3333-4444-555555555555", lab.image)  # fmt: skip
    lab.real("luksAddKey", "-q", *ARGON, "-d", lab.key("a"), lab.image, lab.key("b"))
    for name, content in (
        ("right", clear),
        ("wrong", base.place.write_file("no", CLEAR[::-1][:size])),
    ):
        (base.place.directory / name).unlink(missing_ok=True)
        base.place.cli("zkey", "generate", name, *xts, "-c", content)
    before, data = lab.json, lab.image.read_bytes()[12288 * 512 :]
    words = ("convert", "-q", *lab.keys("a", "b"), "-m")
    wrong = lab.run(*words, "wrong")
    assert (wrong.status, "another key" in wrong.stderr) == (2, True), wrong
    assert lab.run("convert", "-q", *lab.keys("a"), "-m", "right").status == 8
    assert lab.run("convert", *lab.keys("a", "b"), "-m", "right", stdin=b"").status == 2
    assert lab.json == before
    lab.ok(*words, "right")
    after = lab.json
    assert after["segments"]["0"] == {**before["segments"]["0"], "encryption": f"p{cipher}"}
    assert kept(after) == kept(before)
    assert lab.image.read_bytes()[12288 * 512 :] == data
    assert unwrap(lab.volume_key("b"), ONE) == CLEAR[:size]
    assert lab.run(*words, "right").status == 1  # is no aes volume any more
    lab.ok("validate", *lab.keys("a"))


@pytest.mark.parametrize("kind", ["aes", "luks1", "fragment", "clear"])
def test_other_volumes_are_refused(lab, kind, tmp_path):
    image = tmp_path / "other"
    with image.open("wb") as file:
        file.truncate(7 << 20)
    options = {"aes": [], "luks1": [], "fragment": ["-c", "paes-xts-plain64", "-s", "512",
               "--volume-key-file", lab.place.directory / "skey"],
               "clear": ["-c", "paes-xts-plain64", "-s", "512"]}[kind]  # fmt: skip
    layout = () if kind == "luks1" else LAYOUT
    lab.real("luksFormat", "-q", "--type", "luks1" if kind == "luks1" else "luks2", *layout,
             *QUICK_PBKDF, *options, "-d", lab.key("a"), image)  # fmt: skip
    code = {"aes": 1, "luks1": 1, "fragment": 8, "clear": 9}[kind]
    for action in ("validate", "setvp", "reencipher"):
        result = lab.place.run("zkey-cryptsetup", action, image, *lab.keys("a"))
        assert result.status == code, result


def test_no_room_for_new_keyslots_is_said_and_nothing_is_changed(lab):
    for number in range(8, 14):
        lab.real("luksAddKey", "-q", *QUICK_PBKDF, "--unbound", "-s", "1024", "-S", number,
                 lab.image, lab.key("x"))  # fmt: skip
    before = lab.json
    lab.registers(current=ONE, new=TWO)
    result = lab.run("reencipher", *lab.keys("a", "b", "c"))
    assert (result.status, "no space" in result.stderr) == (1, True), result
    assert lab.json == before


def test_the_token_is_what_lies_in_the_keyslot(lab):
    assert lab.volume_key() == (lab.place.directory / "skey").read_bytes()
    assert SecureKey(lab.volume_key()).mkvp == make_mkvp(ONE)


def test_who_types_is_asked_for_every_keyslot(lab):
    lab.registers(current=TWO, old=ONE)
    words = [*command("fusecrypt"), "zkey-cryptsetup", "reencipher", lab.image]
    done = talk(words, ["wrong", "b", "a", ""], lab.place.environment)
    assert (done.code, "keyslots 4: no passphrase" in done.screen) == (8, True), done
    assert "(keyslot 0, 4; nothing" in done.screen
    assert "no key available" in done.screen
    assert talk(words, ["1", "2", "3"], lab.place.environment).code == 2
    done = talk(words, ["c", "a", "b"], lab.place.environment)
    assert (done.code, "successfully" in done.screen) == (0, True), done
