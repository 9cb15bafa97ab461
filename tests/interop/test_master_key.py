"""A master key that changes under repository, key files and volumes, and is cut short meanwhile."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.verification import make_mkvp
from tests.lab.cryptsetup import QUICK_PBKDF, cryptsetup, metadata, volume_key
from tests.product import Instance, command, running
from tests.unit.keystore.independent import unwrap
from tests.unit.keystore.samples import FIRST, master_key, put_adapter

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

CLEAR = bytes(range(64))
ONE, TWO = master_key(0), master_key(1)
LAYOUT = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "2032k", "--offset", "4352")


@dataclass
class Site:
    """Keys a, b and c with a dummy passphrase; a key file; volumes by crypttab and by path."""

    place: Instance

    @property
    def path(self) -> Path:
        return self.place.directory

    def registers(self, **content) -> None:
        put_adapter(self.path / "state/keystore", FIRST, **content)

    def run(self, action: str, *words):
        return self.place.run("master-key", action, *words)

    def states(self, *words) -> dict[str, str]:
        items = self.place.run("master-key", "plan", "--json", *words).json["items"]
        return {Path(item["name"]).name: item["state"] for item in items}

    def tokens(self) -> dict[str, bytes]:
        """Every secure key there is, as others read it."""
        found = {path.name: path.read_bytes() for path in (self.path / "zkey").glob("*.skey")}
        found["file"] = (self.path / "file").read_bytes()
        for name in VOLUMES:
            for key in VOLUMES[name]:
                file = self.path / "zkey/c.pass" if key == "c" else self.path / f"word-{key}"
                token = volume_key(self.path / name, "--key-file", file)
                found[f"{name} {key}"] = token
        return found

    def are_all_under(self, master: bytearray) -> bool:
        """And all are still the same key."""
        return all(
            SecureKey(token).mkvp == make_mkvp(master) and unwrap(token, master) == CLEAR
            for token in self.tokens().values()
        )


#: Images and what opens their keyslots: c is the dummy passphrase of the repository's key c.
VOLUMES = {"one.img": "c", "two.img": "xy", "three.img": "z"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    with running(tmp_path_factory.mktemp("master-key")) as place:
        site = Site(place)
        site.registers(current=ONE)
        place.write_file("clear", CLEAR)
        for name in "ab":
            place.cli("zkey", "generate", "-N", name, "-x", "-c", "clear")
        place.cli("zkey", "generate", "-N", "c", "-x", "-c", "clear", "-l",
                  f"{site.path}/one.img:one", "--gen-dummy-passphrase")  # fmt: skip
        place.cli("zkey", "generate", "file", "-x", "-c", "clear")
        for name in "xyz":
            place.write_file(f"word-{name}", name.encode())
        for name, keys in VOLUMES.items():
            image = site.path / name
            image.touch()
            os.truncate(image, 3 << 20)
            files = [site.path / ("zkey/c.pass" if k == "c" else f"word-{k}") for k in keys]
            cryptsetup("luksFormat", "-q", "--type", "luks2", *LAYOUT, *QUICK_PBKDF, "-c",
                       "paes-xts-plain64", "-s", "1024", "--volume-key-file", site.path / "file",
                       "-d", files[0], image)  # fmt: skip
            for more in files[1:]:
                cryptsetup("luksAddKey", "-q", *QUICK_PBKDF, "-d", files[0], image, more)
        place.crypttab.write_text(
            f"two {site.path}/two.img {site.path}/word-x luks\n"
            f"plain {site.path}/plain.img {site.path}/file "
            "plain,cipher=paes-xts-plain64,size=1024\n"
            f"aes {site.path}/aes.img - luks\n"
        )
        (site.path / "saved").mkdir()
        for item in ("zkey", "file", *VOLUMES):
            _copy(site.path / item, site.path / "saved" / item)
        yield site


def _copy(source: Path, to: Path) -> None:
    if source.is_dir():
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(source, to)
    else:
        shutil.copy2(source, to)


@pytest.fixture
def site(base):
    base.registers(current=ONE, new=TWO)
    for item in ("zkey", "file", *VOLUMES):
        _copy(base.path / "saved" / item, base.path / item)
    for pending in base.path.glob("*.renc"):
        pending.unlink()
    return base


def all_words(site):
    """What a person gives: the volume that nobody knows of, and two more passphrases."""
    return [site.path / "three.img", "-d", site.path / "word-y", "-d", site.path / "word-z"]


def test_a_whole_change(site):
    words = all_words(site)
    assert site.states(*words) == dict.fromkeys(
        ["a", "b", "c", "file", *VOLUMES], "unstaged"
    )  # fmt: skip
    early = site.run("complete", *words)
    assert (early.status, "7 of 7 are not ready" in early.stderr) == (8, True), early
    staged = site.run("stage", *words)
    assert staged.status == 0, staged
    assert "7 in all: 7 staged; 0 failed" in staged.stdout
    assert site.are_all_under(ONE)
    again = site.run("stage", "-v", *words)
    assert (again.status, "staged: staged" in again.stdout) == (0, False), again
    early = site.run("complete", *words)
    assert (early.status, "for the NEW master key" in early.stderr) == (8, True), early
    site.registers(current=TWO, old=ONE)
    assert set(site.states(*words).values()) == {"ready"}
    done = site.run("complete", "--json", *words)
    assert (done.status, done.json["counts"], done.json["failed"]) == (0, {"done": 7}, 0), done
    assert site.are_all_under(TWO)
    assert not list(site.path.rglob("zkey/*.renc")) + list(site.path.glob("*.renc"))
    assert set(site.states(*words).values()) == {"done"}
    assert len(metadata(site.path / "two.img")["keyslots"]) == 2


def test_what_is_not_known_is_said_and_keeps_nothing_else(site):
    staged = site.run("stage")
    assert staged.status == 10, staged
    assert "two.img: unstaged: keyslots 1: no passphrase" in staged.stderr
    assert site.states()["two.img"] == "unstaged"
    assert site.states()["one.img"] == "staged"
    site.registers(current=TWO, old=ONE)
    refused = site.run("complete")
    assert (refused.status, "two.img" in refused.stderr) == (8, True), refused
    # From OLD straight to CURRENT: what was forgotten is staged later.
    words = all_words(site)
    assert site.run("stage", *words).status == 0
    assert site.run("complete", *words).status == 0
    assert site.are_all_under(TWO)


def test_force_does_what_is_ready(site):
    site.run("stage", *all_words(site)[1:])
    site.registers(current=TWO, old=ONE)
    result = site.run("complete", "--force", site.path / "three.img")
    assert result.status == 10, result
    assert site.states()["a"] == "done"
    assert site.states(site.path / "three.img")["three.img"] == "unknown"


def test_a_rollback_leaves_everything_as_it_was(site):
    before = site.tokens()
    site.run("stage", *all_words(site))
    done = site.run("rollback", "-v", site.path / "three.img")
    assert done.status == 0, done
    assert done.stdout.count("rolled back") == 7
    assert site.tokens() == before
    assert all(len(metadata(site.path / n)["keyslots"]) == len(k) for n, k in VOLUMES.items())
    assert set(site.states(*all_words(site)).values()) == {"unstaged"}


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
@pytest.mark.parametrize("action", ["stage", "complete"])
def test_killed_at_any_call_it_goes_on(site, action):
    words = all_words(site)
    if action == "complete":
        assert site.run("stage", *words).status == 0
        site.registers(current=TWO, old=ONE)
    run = [*command("fusecrypt"), "master-key", action, *map(str, words)]
    killed = 0
    # Each thread counts its own calls: the first that reaches the number ends the process it is in.
    for number in (1, 2, 4):
        for calls in ("fsync,fdatasync", "rename,link,unlink,unlinkat", "pwrite64"):
            kill = f"inject={calls}:signal=KILL:when={number}"
            traced = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={calls}", "-e", kill, *run]
            done = subprocess.run(
                traced, env=site.place.environment, capture_output=True, check=False
            )
            killed += done.returncode != 0
        site.tokens()  # all there, and every passphrase opens
    assert killed >= 3
    result = site.run(action, *words)
    assert result.status == 0, result
    if action == "stage":
        assert site.are_all_under(ONE)
        site.registers(current=TWO, old=ONE)
        assert site.run("complete", *words).status == 0
    assert site.are_all_under(TWO)


def test_without_an_adapter_there_is_no_telling(tmp_path):
    with running(tmp_path) as place:
        assert place.run("master-key", "plan").status == 6


def test_who_sets_a_master_key_too_early_is_warned(site):
    site.run("stage", *all_words(site)[1:])
    site.place.cli("zkey", "generate", "-N", "late", "-x")
    result = site.place.cli("adapter", "master-key", "set", str(FIRST))
    assert "key late" in result.stderr
    assert "key a" not in result.stderr


def test_under_old_with_no_new_nobody_is_told_to_set_another(site):
    site.registers(current=TWO, old=ONE)
    refused = site.run("complete", *all_words(site)[:-2])
    assert refused.status == 8
    wanted = refused.stderr.partition("wanted: ")[2]
    assert "'fusecrypt master-key stage --key-file FILE'" in wanted
    assert "no 'fusecrypt adapter master-key set'" in wanted
    assert "removes the keyslots whose passphrase is not given" in wanted
    assert "three.img: unknown: no passphrase of it is known; wanted: --key-file" in refused.stderr


def test_what_is_under_old_is_not_lost_without_a_yes(site):
    site.registers(current=TWO, old=ONE, new=master_key(2))
    words = ("adapter", "master-key", "set", str(FIRST))
    refused = site.place.run(*words, "-q")
    assert refused.status == 1
    assert "under the OLD master key" in refused.stderr
    assert "key a" in refused.stderr
    site.run("stage", *all_words(site)[1:])
    assert site.place.run(*words, "-q").status == 0  # all of them wait for NEW
    site.place.cli("adapter", "master-key", "generate", str(FIRST))
    refused = site.place.run(*words, "-q")  # what waits is all there is, and under OLD then
    assert refused.status == 0, refused
    site.place.cli("adapter", "master-key", "generate", str(FIRST))
    assert site.place.run(*words, "-q").status == 1
    forced = site.place.cli(*words, "--force")
    assert "gone with this SET: key a" in forced.stderr
