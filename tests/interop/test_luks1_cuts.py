"""Changes of LUKS1 headers that are cut off: each state opens with the old or new passphrases."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from fusecrypt.dmcrypt.backing import pread_of
from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.luks1 import Luks1Header, read_header
from tests.lab.header_session import opens, running_engine
from tests.lab.header_volume import Lab
from tests.lab.write_log import MARKS, Log, record_action

pytestmark = MARKS

QUICK = ("--pbkdf-force-iterations", "1000")
PASSPHRASES = ("p1", "p2", "p3", "p4")
HEADER = 4096 + 8 * 131072
SIZE = (2 << 20) + 4096


@dataclass
class Judge:
    """Which passphrases open the keyslots of a header, with a memory of what was tried."""

    engine: Engine
    known: dict[tuple[str, bytes, str], bool] = field(default_factory=dict)

    def opening(self, state: bytes) -> tuple[Luks1Header, frozenset[tuple[int, str]]]:
        """The header, and each keyslot number with the passphrase that opens it."""
        header = read_header(pread_of(state), len(state))
        found = set()
        for number in header.list_keyslots():
            area = header.get_area(number)
            material = hashlib.sha256(state[area.offset : area.end]).digest()
            for passphrase in PASSPHRASES:
                case = (str(header.keyslots[number]), material, passphrase)
                if case not in self.known:
                    self.known[case] = self._opens(state, header, number, passphrase)
                if self.known[case]:
                    found.add((number, passphrase))
        return header, frozenset(found)

    def _opens(self, state: bytes, header: Luks1Header, number: int, passphrase: str) -> bool:
        spec, wanted = header.make_keyslot_spec(number), header.make_digest_spec()
        return opens(self.engine, state[:HEADER], passphrase, spec, wanted)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with running_engine() as engine:
        yield Judge(engine)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """two: p1 in 0, p2 in 1. late: p1 in 0, p2 in 6, p3 in 7. damaged: two, to be mended."""
    lab = Lab(tmp_path_factory.mktemp("cuts"))
    two = lab.directory / "two"
    two.write_bytes(bytes(SIZE))
    lab.real_ok("luksFormat", "-q", "--type", "luks1", "-s", "256", *QUICK, two, lab.key("p1"))
    late = lab.directory / "late"
    shutil.copyfile(two, late)
    add = ("luksAddKey", *QUICK, "-d", lab.key("p1"))
    lab.real_ok(*add, two, lab.key("p2"))
    lab.real_ok(*add, "-S", "6", late, lab.key("p2"))
    lab.real_ok(*add, "-S", "7", late, lab.key("p3"))
    for base in (two, late):
        lab.real_ok("luksHeaderBackup", base, "--header-backup-file", f"{base}.bak")
    changed = lab.directory / "changed"
    shutil.copyfile(two, changed)
    lab.real_ok("luksChangeKey", *QUICK, "-S", "1", "-d", lab.key("p2"), changed, lab.key("p3"))
    damaged = bytearray(two.read_bytes())
    damaged[208 + 6 * 48 + 40 : 208 + 6 * 48 + 48] = bytes(8)
    (lab.directory / "damaged").write_bytes(damaged)
    return lab


#: Before it, the command, and what must open in every state: any of each group.
OPERATIONS = {
    "add": ("two", "luksAddKey QUICK -d p1 IMAGE p3", ["p1", "p2"]),
    "add 6": ("two", "luksAddKey QUICK -d p1 -S 6 IMAGE p3", ["p1", "p2"]),
    "add 7": ("two", "luksAddKey QUICK -d p1 -S 7 IMAGE p3", ["p1", "p2"]),
    "change": ("two", "luksChangeKey QUICK -d p2 IMAGE p3", ["p1", "p2 p3"]),
    "change 1": ("two", "luksChangeKey QUICK -d p2 -S 1 IMAGE p3", ["p1", "p2 p3"]),
    "change 6": ("late", "luksChangeKey QUICK -d p2 -S 6 IMAGE p4", ["p1", "p3", "p2 p4"]),
    "change 7": ("late", "luksChangeKey QUICK -d p3 IMAGE p4", ["p1", "p2", "p3 p4"]),
    "remove": ("two", "luksRemoveKey IMAGE p2", ["p1"]),
    "remove 6": ("late", "luksRemoveKey IMAGE p2", ["p1", "p3"]),
    "kill 7": ("late", "luksKillSlot IMAGE 7 -d p1", ["p1", "p2"]),
    "erase": ("late", "erase -q IMAGE", []),
    "uuid": ("two", "luksUUID -q IMAGE --uuid 01234567-89ab-cdef-0123-456789abcdef", ["p1", "p2"]),
    "restore": ("changed", "luksHeaderRestore -q IMAGE --header-backup-file two.bak",
                ["p1", "p2 p3"]),
    "restore late": ("two", "luksHeaderRestore -q IMAGE --header-backup-file late.bak",
                     ["p1", "p2"]),
    "restore early": ("late", "luksHeaderRestore -q IMAGE --header-backup-file two.bak",
                      ["p1", "p2"]),
}  # fmt: skip


def run(lab: Lab, base: str, line: str) -> Log:
    places = {passphrase: [lab.key(passphrase)] for passphrase in PASSPHRASES}
    places |= {name: [lab.directory / name] for name in ("two.bak", "late.bak")}
    return record_action(lab, base, line, {"QUICK": QUICK, **places})


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_state_opens_with_the_old_or_the_new_passphrases(
    lab: Lab, judge: Judge, operation: str
) -> None:
    base, line, groups = OPERATIONS[operation]
    log = run(lab, base, line)
    assert all(write.end <= HEADER for write in log.writes)
    assert not log.epochs[-1], "what was written last was not synced"
    states = list(log.states())
    assert states[-1][1] == (lab.directory / "image").read_bytes()  # the log is whole
    known = {p for state in (log.base, states[-1][1]) for _, p in judge.opening(state)[1]}
    bad, tried = [], 0
    for name, state in log.different_states():
        tried += 1
        try:
            _, opened = judge.opening(state)
        except Exception as error:  # whatever it is, it is a verdict
            bad.append(f"{name}: {error}")
            continue
        found = {passphrase for _, passphrase in opened}
        if not all(found & set(group.split()) for group in groups) or not found <= known:
            bad.append(f"{name}: {sorted(opened)}")
    assert not bad, (tried, bad)
    assert tried >= 2
    for name, state in states[:: max(1, len(states) // 4)]:
        lab.check_opening(name, state, judge.opening(state)[1])


def test_a_mended_header_is_cut_into_the_old_or_the_new(lab: Lab, judge: Judge) -> None:
    """The damaged one reads as nothing, so that no state can be worse."""
    log = run(lab, "damaged", "repair -q IMAGE")
    states = list(log.states())
    assert judge.opening(states[-1][1]) == judge.opening((lab.directory / "two").read_bytes())
    for _, state in states:
        assert state[HEADER:] == log.base[HEADER:]
        assert state[4096:HEADER] == log.base[4096:HEADER]


def test_the_judge_sees_what_is_lost(lab: Lab, judge: Judge) -> None:
    """A change whose key material is not synced before its header is found out."""
    log = run(lab, *OPERATIONS["change"][:2])
    merged = Log(log.base, [[write for epoch in log.epochs[:5] for write in epoch]])
    verdicts = [judge.opening(state)[1] for _, state in merged.states()]
    assert any({p for _, p in verdict} == {"p1"} for verdict in verdicts)
