"""Changes of secure keys, killed at every system call by which files change: no key is lost.

Each call is a run of its own, in a directory of its own. Then all that the killed ones left is
taken up again by one command. The keystored runs on; test_kill_keystored.py kills that.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.verification import make_mkvp
from tests.lab.cryptsetup import QUICK_PBKDF, cryptsetup, metadata, volume_key
from tests.lab.kill_calls import Call, choose, find_calls, strace
from tests.product import Instance, command, running
from tests.unit.keystore.independent import unwrap
from tests.unit.keystore.samples import FIRST, master_key, put_adapter

pytestmark = [
    pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup"),
    pytest.mark.skipif(shutil.which("strace") is None, reason="no strace"),
    pytest.mark.root,  # strace(1) traces the engine as root only
]

CLEAR = bytes(range(64))
ONE, TWO = master_key(0), master_key(1)
#: Of each kind of call, where not all are tried: all that change the repository, which are few.
MOST = 4
LAYOUT = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "2032k", "--offset", "4352")


@dataclass
class Site:
    """A place with one adapter, and a directory that every run begins with."""

    place: Instance
    start: Path

    def registers(self, **content) -> None:
        put_adapter(self.place.directory / "state/keystore", FIRST, **content)
        self.place.cli("lszcrypt")  # the keystored runs, and is not traced

    def environment(self, work: Path) -> dict[str, str]:
        return {
            **self.place.environment,
            "FUSECRYPT_STATE_DIR": str(work / "state"),
            "ZKEY_REPOSITORY": str(work / "zkey"),
            "FUSECRYPT_CRYPTTAB": str(work / "crypttab"),
        }

    def run(self, work: Path, *words: str) -> None:
        done = subprocess.run(
            [*command("fusecrypt"), *words], env=self.environment(work), cwd=work, check=False,
            capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    def trace(
        self, name: str, words: tuple[str, ...], kill: Call | None = None
    ) -> tuple[Path, str]:
        """Run it in a directory of its own; what it leaves, and the calls."""
        work = self.place.directory / f"at-{name}"
        shutil.copytree(self.start, work, copy_function=shutil.copy)
        subprocess.run(
            [*strace(work / "trace", kill), *command("fusecrypt"), *words],
            env=self.environment(work), cwd=work, stdin=subprocess.DEVNULL, capture_output=True,
            check=False,
        )  # fmt: skip
        return work, (work / "trace").read_text()

    def kill_everywhere(
        self,
        words: tuple[str, ...],
        check: Callable[[Path], None],
        record_figure: Callable[[str, object], None],
    ) -> list[Path]:
        """What is left by each run that is killed at one of the calls, and by one that is not."""
        whole, trace = self.trace("end", words)
        assert "killed by" not in trace
        check(whole)
        calls = find_calls(trace)
        assert {"write", "pwrite64"} & {call.name for call in calls}
        chosen = choose(calls, MOST)

        def kill(call: Call) -> Path:
            work, trace = self.trace(f"{call.name}-{call.number}", words, call)
            assert "killed by SIGKILL" in trace, (call, trace)
            check(work)
            return work

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            left = [*pool.map(kill, chosen), whole]
        record_figure("killed", f"at {len(chosen)} of {len(calls)} calls")
        return left


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with running(tmp_path_factory.mktemp("kill")) as instance:
        put_adapter(instance.directory / "state/keystore", FIRST, current=ONE)
        instance.write_file("clear", CLEAR)
        instance.cli("zkey", "generate", "file", "-x", "-c", "clear")
        instance.cli("zkey", "generate", "-N", "k", "-x", "-c", "clear")
        yield instance


@pytest.fixture
def site(place):
    start = place.directory / "start"
    start.mkdir()
    (start / "crypttab").write_text("")
    yield Site(place, start)
    for directory in (start, *place.directory.glob("at-*"), *place.directory.glob("all")):
        shutil.rmtree(directory)


def check_token(token: bytes, *masters: bytearray) -> None:
    """A secure key is whole, and the same key, under one of these master keys."""
    (master,) = [each for each in masters if make_mkvp(each) == SecureKey(token).mkvp]
    assert unwrap(token, master) == CLEAR


def check_keys(work: Path) -> None:
    """Every secure key of the directory."""
    for path in (work / "file", work / "zkey/k.skey", *work.glob("zkey/k.renc")):
        check_token(path.read_bytes(), ONE, TWO)
    assert (work / "zkey/k.info").exists()


def check_volume(work: Path) -> None:
    """The real cryptsetup opens the volume with both passphrases."""
    for word in ("one", "two"):
        check_token(volume_key(work / "image", "--key-file", work / word), ONE, TWO)


#: Words, the registers, whether keys wait already, and the words that take up what was left.
CHANGES = {
    "in place": (("reencipher",), {"current": TWO, "old": ONE}, False,
                 ("reencipher", "--from-old")),
    "staged": (("reencipher",), {"current": ONE, "new": TWO}, False, ("reencipher", "--to-new")),
    "complete": (("reencipher", "--complete"), {"current": TWO, "old": ONE}, True,
                 ("reencipher", "--complete")),
}  # fmt: skip


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_key_of_the_repository_outlives_it(site, change, record_figure):
    words, registers, is_pending, again = CHANGES[change]
    shutil.copytree(site.place.directory / "zkey", site.start / "zkey")
    shutil.copy(site.place.directory / "file", site.start)
    if is_pending:
        site.registers(current=ONE, new=TWO)
        site.run(site.start, "zkey", "reencipher", "--staged")
    site.registers(**registers)
    left = site.kill_everywhere(("zkey", *words), check_keys, record_figure)
    whole = site.place.directory / "all"
    (whole / "zkey").mkdir(parents=True, mode=0o700)
    (whole / "crypttab").write_text("")
    for work in left:
        for path in work.glob("zkey/k.*"):
            shutil.copy(path, whole / "zkey" / f"{work.name}{path.suffix}")
    site.run(whole, "zkey", *again)
    if change == "staged":
        site.registers(current=TWO, old=ONE)
        site.run(whole, "zkey", "reencipher", "--complete")
    tokens = [path.read_bytes() for path in (whole / "zkey").glob("*.skey")]
    assert len(tokens) == len(left)
    for token in tokens:
        check_token(token, TWO)
    assert not list((whole / "zkey").glob("*.renc"))


def test_a_key_file_outlives_it(site, record_figure):
    (site.start / "zkey").mkdir(mode=0o700)
    shutil.copy(site.place.directory / "file", site.start)
    site.registers(current=TWO, old=ONE)
    left = site.kill_everywhere(
        ("zkey", "reencipher", "file"),
        lambda work: check_token((work / "file").read_bytes(), ONE, TWO),
        record_figure,
    )
    check_token((left[0] / "file").read_bytes(), ONE)
    check_token((left[-1] / "file").read_bytes(), TWO)


@pytest.fixture(scope="module")
def volume(place):
    """A volume with two passphrases and a key under ONE, whose verification pattern it knows."""
    path = place.directory / "image"
    path.touch()
    os.truncate(path, 3 << 20)
    one, two = place.write_file("one", b"1"), place.write_file("two", b"2")
    put_adapter(place.directory / "state/keystore", FIRST, current=ONE)
    cryptsetup("luksFormat", "-q", "--type", "luks2", *LAYOUT, *QUICK_PBKDF, "-c",
               "paes-xts-plain64", "-s", "1024", "--volume-key-file",
               place.directory / "file", "-d", one, path)  # fmt: skip
    cryptsetup("luksAddKey", "-q", *QUICK_PBKDF, "-d", one, path, two)
    place.cli("zkey-cryptsetup", "setvp", path, "-d", one)
    return path


BOTH = ("-d", "one", "-d", "two")
STAGE, COMPLETE = ("master-key", "stage", *BOTH), ("master-key", "complete", *BOTH)
SETKEY = ("zkey-cryptsetup", "setkey", "-m", "new", *BOTH)


@pytest.mark.parametrize("words", [STAGE, COMPLETE, SETKEY], ids=["stage", "complete", "setkey"])
def test_a_volume_outlives_it_and_all_are_taken_up(site, volume, words, record_figure):
    for path in (volume, volume.with_name("one"), volume.with_name("two")):
        shutil.copy(path, site.start)
    if words is not SETKEY:
        site.registers(current=ONE, new=TWO)
    if words is COMPLETE:
        site.run(site.start, *STAGE, "image")
    if words is not STAGE:
        site.registers(current=TWO, old=ONE)
    if words is SETKEY:
        site.registers(current=TWO)  # ONE is lost
        site.run(site.start, "zkey", "generate", "new", "-x", "-c", "../clear")
    left = site.kill_everywhere((*words, "image"), check_volume, record_figure)
    images = [work / "image" for work in left]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # it takes one volume at a time
        groups = [[image] for image in images] if words is SETKEY else [images]
        list(pool.map(lambda group: site.run(site.start, *words, *map(str, group)), groups))
    if words is STAGE:
        site.registers(current=TWO, old=ONE)
        site.run(site.start, *COMPLETE, *map(str, images))
    for each in images:
        assert len(metadata(each)["keyslots"]) == 2
        for word in ("one", "two"):
            check_token(volume_key(each, "--key-file", site.start / word), TWO)
