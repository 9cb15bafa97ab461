"""Each change of a header under each KDF, keyslot cipher, data cipher, sector size and place.

What of it the real cryptsetup cannot judge without the kernel's dm-crypt is judged in a virtual
machine, in one boot.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusecrypt.dmcrypt.backing import get_size, pread_from
from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.luks2 import edit, key_change, token_edit
from fusecrypt.dmcrypt.luks2.change import edit_header, read_whole
from fusecrypt.dmcrypt.luks2.key_change import NewKeyslot
from fusecrypt.dmcrypt.luks2.restore import find_present, open_backup, restore
from fusecrypt.dmcrypt.pbkdf import PbkdfParams
from tests.lab import vm
from tests.lab.header_session import HeaderSession, forget, header_session, running_engine
from tests.lab.header_volume import LAYOUT, Lab

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="no cryptsetup")

DATA = 2 << 20
KDFS = {
    **{
        name: PbkdfParams("pbkdf2", name, iterations=1000)
        for name in ("sha1", "sha256", "sha512", "whirlpool", "blake2b-512")
    },
    "argon2i": PbkdfParams("argon2i", iterations=4, memory_kib=32, parallel=1),
    "argon2id": PbkdfParams("argon2id", "sha512", iterations=4, memory_kib=32, parallel=1),
    "argon2id-2": PbkdfParams("argon2id", iterations=4, memory_kib=64, parallel=2),
}


@dataclass(frozen=True)
class Combination:
    cipher: str
    bits: int
    sector_size: int
    kdf: str
    area: tuple[str, int] | None = None  # cipher and bytes of its key
    is_detached: bool = False


HERE = (
    Combination("aes-xts-plain64", 512, 512, "argon2id"),
    Combination("aes-xts-plain64", 256, 4096, "argon2i", ("aes-cbc-plain64", 32)),
    Combination("aes-xts-plain64", 512, 4096, "sha512", ("aes-cbc-essiv:sha256", 16), True),
    Combination("aes-cbc-essiv:sha256", 256, 512, "sha256"),
    Combination("aes-cbc-essiv:sha256", 128, 1024, "argon2id-2", ("aes-xts-plain64", 64)),
    Combination("aes-cbc-plain64", 192, 2048, "whirlpool", None, True),
    Combination("camellia-cbc-plain64", 256, 512, "sha1", ("aes-xts-plain64", 32)),
    Combination("aes-xts-plain", 256, 512, "blake2b-512", ("aes-ctr-plain64", 32)),
)
IN_A_MACHINE = (
    Combination("serpent-xts-plain64", 512, 4096, "sha256"),
    Combination("aes-lrw-benbi", 384, 512, "argon2id", ("serpent-xts-plain64", 64)),
    Combination("camellia-xts-plain64", 256, 2048, "sha512", ("twofish-cbc-plain64", 32)),
)

#: The keyslots and what opens them, after a change.
Expected = dict[int, str]
Change = Callable[[HeaderSession, NewKeyslot, Path], Expected]


def add(header: HeaderSession, new: NewKeyslot, _work: Path) -> Expected:
    assert header.add("p1", "p2", new) == 1
    return {0: "p1", 1: "p2"}


def change(header: HeaderSession, new: NewKeyslot, _work: Path) -> Expected:
    header.change("p2", "p3", new)
    return {0: "p1", 1: "p3"}


def convert(header: HeaderSession, new: NewKeyslot, _work: Path) -> Expected:
    header.change("p1", "p1", new)
    return {0: "p1", 1: "p3"}


def configure(header: HeaderSession, _new: NewKeyslot, _work: Path) -> Expected:
    names = edit.LabelChange("label", "subsystem")
    edit_header(header.fd, lambda h: edit.set_labels(edit.set_priority(h, 1, 2), names), forget)
    token: dict[str, object] = {"type": "x", "keyslots": ["1"]}
    edit_header(header.fd, lambda h: token_edit.add_token(h, token)[0], forget)
    return {0: "p1", 1: "p3"}


def remove(header: HeaderSession, new: NewKeyslot, work: Path) -> Expected:
    (work / "backup").write_bytes(b"".join(read_whole(header.fd)[1]))
    header.remove(0)
    header.add_unbound("p4", new, 32)
    return {0: "p4", 1: "p3"}


def erase(header: HeaderSession, _new: NewKeyslot, _work: Path) -> Expected:
    key_change.erase_keyslots(header.fd, forget)
    return {0: "p4"}


def put_back(header: HeaderSession, _new: NewKeyslot, work: Path) -> Expected:
    present = find_present(header.fd)
    assert present is not None
    with (work / "backup").open("rb") as file:
        old = open_backup(pread_from(file.fileno()), get_size(file.fileno()))
        restore(header.fd, old, forget, present, may_overwrite=True)
    return {0: "p1", 1: "p3"}


CHANGES: tuple[Change, ...] = (add, change, convert, configure, remove, erase, put_back)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


def make(lab: Lab, combination: Combination, *, by_us: bool) -> tuple[Path, Path]:
    """A volume with random data; the file with its header, and the one with its data."""
    data = lab.directory / "data"
    data.write_bytes((b"" if combination.is_detached else bytes(DATA)) + os.urandom(1 << 20))
    header = lab.directory / "header" if combination.is_detached else data
    header.open("ab").close()
    os.truncate(header, max(header.stat().st_size, DATA))
    place = ("--header", header) if combination.is_detached else LAYOUT[4:]
    words = ("luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2",
             "--pbkdf-force-iterations", 1000, "-c", combination.cipher, "-s", combination.bits,
             "--sector-size", combination.sector_size, *LAYOUT[:4], *place,
             "-d", lab.key("p1"), data)  # fmt: skip
    (lab.ours_ok if by_us else lab.real_ok)(*words)
    return header, data


def hash_of(data: Path, *, is_detached: bool) -> str:
    return hashlib.sha256(data.read_bytes()[0 if is_detached else DATA :]).hexdigest()


def run_all(
    engine: Engine, lab: Lab, combination: Combination, header: Path,
    judge: Callable[[str, Expected], None],
) -> None:  # fmt: skip
    cipher, size = combination.area or (None, None)
    new = NewKeyslot(KDFS[combination.kdf], None, cipher, size)
    for step in CHANGES:
        with header_session(engine, header) as session:
            expected = step(session, new, lab.directory)
        judge(step.__name__, expected)


@pytest.mark.parametrize("combination", HERE, ids=lambda c: f"{c.cipher}-{c.kdf}")
def test_cryptsetup_takes_the_header_after_each_change(
    engine: Engine, tmp_path: Path, combination: Combination
) -> None:
    lab = Lab(tmp_path)
    header, data = make(lab, combination, by_us=False)
    before = hash_of(data, is_detached=combination.is_detached)

    def judge(step: str, expected: Expected) -> None:
        keyslots = lab.metadata(header)["keyslots"]
        assert {int(number) for number in keyslots} == expected.keys(), step
        for number, passphrase in expected.items():
            assert lab.opens(header, passphrase, number), (step, number)
        if step == "convert":
            kdf, area = keyslots["0"]["kdf"], keyslots["0"]["area"]
            assert kdf.get("hash", kdf["type"]) == combination.kdf.removesuffix("-2")
            wanted = combination.area or (combination.cipher, combination.bits // 8)
            assert (area["encryption"], area["key_size"]) == wanted
        assert hash_of(data, is_detached=combination.is_detached) == before

    run_all(engine, lab, combination, header, judge)


SCRIPT = """
set -e
for disk in $DISKS; do
    [ ${disk#before-} != $disk ] ||
        cryptsetup open --test-passphrase --key-slot 0 --key-file /in/key-p1 /dev/$disk
    cryptsetup open --readonly --key-file /in/key-p3 /dev/${disk#before-} volume
    echo "$disk $(sha256sum < /dev/mapper/volume)"
    cryptsetup close volume
done
"""


@pytest.mark.vm
@pytest.mark.skipif(vm.why_not() is not None, reason=str(vm.why_not()))
def test_the_kernel_takes_ciphers_that_the_tool_alone_cannot_judge(
    engine: Engine, tmp_path: Path
) -> None:
    """Each volume opens with each keyslot, and shows what it showed before the changes."""
    disks: list[Path] = []
    for number, combination in enumerate(IN_A_MACHINE):
        directory = tmp_path / str(number)
        directory.mkdir()
        lab = Lab(directory)
        header, data = make(lab, combination, by_us=True)
        with header_session(engine, header) as session:
            session.add("p1", "p3", NewKeyslot(KDFS["sha256"]))
        disks.append(directory / "before")
        shutil.copyfile(data, disks[-1])
        with header_session(engine, header) as session:
            session.remove(1)
        run_all(engine, lab, combination, header, lambda _step, _expected: None)
        disks.append(data)
    keys = [Lab(tmp_path).key(name) for name in ("p1", "p3")]
    names = [
        f"{'before-' if number % 2 == 0 else ''}vd{chr(ord('a') + number)}"
        for number in range(len(disks))
    ]
    out = vm.run(f'DISKS="{" ".join(names)}"\n{SCRIPT}', disks, keys)
    shown = dict(line.split()[:2] for line in out.splitlines() if "vd" in line)
    assert len(shown) == len(disks), out
    for before, after in zip(names[::2], names[1::2], strict=True):
        assert shown[before] == shown[after]
    assert len(set(shown.values())) == len(IN_A_MACHINE)
