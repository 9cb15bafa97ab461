"""The scenarios as scripts, and what they leave behind, as cryptsetup and another AES see it."""

import hashlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab import sectors
from tests.lab.cryptsetup import data_segment, volume_key
from tests.product import command, running, why_no_fuse
from tests.unit.keystore.independent import unwrap

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup"),
    pytest.mark.skipif(why_no_fuse() is not None, reason=str(why_no_fuse())),
]

SCRIPTS = sorted(Path(__file__).with_name("scenarios").glob("[0-9][0-9]-*.sh"))
BOTH = ("one", "two")


@dataclass(frozen=True)
class Proof:
    """What a scenario must leave: which master key wraps what; the clear key is ``clear.key``'s."""

    keys: dict[str, str] = field(default_factory=dict)
    #: LUKS2 images, the master key of the key in the header, and the files that open keyslots. An
    #: EP11-AES key has none: what it does is seen by the data.
    volumes: dict[str, tuple[str | None, tuple[str, ...]]] = field(default_factory=dict)
    #: Plain images and their sector sizes.
    plain: dict[str, int] = field(default_factory=dict)
    clear: dict[str, str] = field(default_factory=dict)  # of keys that wrap another file's


PROOFS = {
    "01": Proof(
        keys={f"zkey/{t}-{s}.skey": "mk1"
              for t in ("CCA-AESDATA", "CCA-AESCIPHER")
              for s in ("cbc-128", "cbc-192", "cbc-256", "xts-128", "xts-256")},
        clear={f"zkey/{t}-{s}.skey": s
               for t in ("CCA-AESDATA", "CCA-AESCIPHER")
               for s in ("cbc-128", "cbc-192", "cbc-256", "xts-128", "xts-256")},
    ),
    "02": Proof({"zkey/a.skey": "mk2", "zkey/b.skey": "mk2", "file.key": "mk1", "file.new": "mk2"}),
    "03": Proof({"zkey/a.skey": "mk2", "file.key": "mk2"}, {"volume": (None, BOTH)}),
    "04": Proof({"zkey/archive.skey": "mk3"}, {"volume": ("mk3", BOTH)}),
    "05": Proof({"zkey/a.skey": "mk2"}, {"volume": ("mk2", BOTH)}),
    "06": Proof({}, {"volume": ("mk3", BOTH)}),
    "07": Proof({"secure.key": "mk1", "again.key": "mk3"}, {"volume": ("mk3", BOTH)}),
    "08": Proof(),
    "09": Proof(),
    "10": Proof({}, {"volume": ("mk1", BOTH)}),
    "11": Proof(),
    "12": Proof(),
    "13": Proof({"zkey/disk.skey": "mk1"}, {"volume": ("mk1", BOTH)}),
    "14": Proof(),
    "15": Proof({}, {"volume": (None, BOTH)}),
    "16": Proof(),
    "20": Proof({"zkey/luks.skey": "mk1", "zkey/plain.skey": "mk1"},
                {"luks.img": ("mk1", ("zkey/luks.pass", "another"))}, {"plain.img": 512}),
    "21": Proof({"zkey/archive.skey": "mk3", "plain.key": "mk3"}, {"luks.img": ("mk3", BOTH)},
                {"plain.img": 512}),
    "22": Proof({"zkey/disk.skey": "mk2"}, {"volume": ("mk2", BOTH)}),
    "23": Proof({"zkey/plain.skey": "mk2"}, {}, {"volume": 4096}),
}  # fmt: skip


def run(script: Path, directory: Path, environment: dict[str, str]) -> tuple[int, str]:
    programs = os.path.dirname(command("fusecrypt")[0])
    done = subprocess.run(
        ["sh", "-eu", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **environment,
            "PATH": f"{programs}:{environment['PATH']}",
            "SCENARIO_DIR": str(directory),
        },
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def prove(directory: Path, proof: Proof) -> None:
    """Keys, headers and data are what the proof says; nothing of ours is asked."""
    masters = {}
    for first in directory.glob("mk*.first"):
        parts = [first.read_bytes(), first.with_suffix(".last").read_bytes()]
        masters[first.stem] = bytes(a ^ b for a, b in zip(*parts, strict=True))
    clear = {
        name: (directory / proof.clear.get(name, "clear.key")).read_bytes() for name in proof.keys
    }
    for name, master in proof.keys.items():
        assert unwrap((directory / name).read_bytes(), masters[master]) == clear[name], name
    for name, (master, files) in proof.volumes.items():
        key = (directory / "clear.key").read_bytes()
        for file in files:
            token = volume_key(directory / name, "--key-file", directory / file)
            if master is None:
                assert token == (directory / "zkey/ep11.skey").read_bytes()
            else:
                assert unwrap(token, masters[master]) == key, (name, file)
        image = (directory / name).read_bytes()
        segment = data_segment(directory / name, len(image))
        assert segment.cipher == "paes-xts-plain64"
        assert_data(directory, image[segment.offset :], key, segment.sector_size)
    for name, size in proof.plain.items():
        key = (directory / "clear.key").read_bytes()
        assert_data(directory, (directory / name).read_bytes(), key, size)


def assert_data(directory: Path, enciphered: bytes, key: bytes, sector_size: int) -> None:
    data = (directory / "data").read_bytes()
    found = sectors.crypt(enciphered[: len(data)], "aes-xts-plain64", key, sector_size=sector_size)
    assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()


@pytest.fixture(scope="module")
def finished(scratch, request):
    """Every scenario that is wanted, as many at a time as there are processors."""
    wanted = {getattr(item, "callspec", None) and item.callspec.params.get("name")
              for item in request.session.items}  # fmt: skip

    def whole(script: Path) -> tuple[int, str, BaseException | None]:
        with running(scratch) as place:
            status, said = run(script, place.directory, place.environment)
            try:
                if status == 0:
                    prove(place.directory, PROOFS[script.name[:2]])
            except BaseException as error:
                return status, said, error
            return status, said, None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            script.name: pool.submit(whole, script) for script in SCRIPTS if script.name in wanted
        }


@pytest.mark.parametrize("name", [script.name for script in SCRIPTS])
def test_the_scenario_goes_as_it_says(finished, name):
    status, said, error = finished[name].result()
    assert status == 0, said
    if error is not None:
        raise error


def test_all_sixteen_scenarios_and_the_chapters_are_there():
    heads = [script.read_text().splitlines()[0] for script in SCRIPTS]
    numbers = [int(found[1]) for head in heads if (found := re.match(r"# Scenario (\d+):", head))]
    assert numbers == list(range(1, 17))
    assert sum(head.startswith("# Chapter: ") for head in heads) == 4
    assert set(PROOFS) == {script.name[:2] for script in SCRIPTS}
