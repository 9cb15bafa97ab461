"""Header changes that are cut off: every state opens with the old or the new passphrases."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from fusecrypt.dmcrypt.backing import pread_of
from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.luks2 import Luks2Header, digest, keyslot, read_header
from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_session import opens, running_engine
from tests.lab.header_volume import Lab
from tests.lab.write_log import MARKS, Log, record_action

pytestmark = MARKS

PASSPHRASES = ("p1", "p2", "p3", "p4")
HEADER = 2 * 16384 + (1 << 20)


@dataclass
class Judge:
    """Which passphrases open the keyslots of a header, with a memory of what was tried."""

    engine: Engine
    known: dict[tuple[str, bytes, str], bool] = field(default_factory=dict)

    def opening(self, state: bytes) -> tuple[Luks2Header, frozenset[tuple[int, str]]]:
        """The header, and each keyslot number with the passphrase that opens it."""
        header = read_header(pread_of(state), len(state))
        found = set()
        for slot in header.metadata.keyslots:
            area = slot.area.extent
            material = hashlib.sha256(state[area.offset : area.end]).digest()
            for passphrase in PASSPHRASES:
                case = (f"{slot.kdf} {slot.area.encryption}", material, passphrase)
                if case not in self.known:
                    self.known[case] = self._opens(state, header, slot.id, passphrase)
                if self.known[case]:
                    found.add((slot.id, passphrase))
        return header, frozenset(found)

    def _opens(self, state: bytes, header: Luks2Header, number: int, passphrase: str) -> bool:
        slot = header.metadata.find_keyslot(number)
        assert slot is not None
        bound = next(each for each in header.metadata.digests if number in each.keyslots)
        spec, wanted = keyslot.make_spec(slot), digest.make_spec(bound)
        return opens(self.engine, state[:HEADER], passphrase, spec, wanted)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with running_engine() as engine:
        yield Judge(engine)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """``two``: p1, p2. ``full``: p1 to p4. ``damaged``: two without its first copy."""
    lab = Lab(tmp_path_factory.mktemp("cuts"))
    two = lab.image("two")
    add = ("luksAddKey", *QUICK_PBKDF, "-d", lab.key("p1"))
    lab.real_ok(*add, two, lab.key("p2"))
    lab.real_ok("luksHeaderBackup", two, "--header-backup-file", lab.directory / "backup")
    full = lab.directory / "full"
    shutil.copyfile(two, full)
    for name in ("p3", "p4"):
        lab.real_ok(*add, full, lab.key(name))
    damaged = lab.directory / "damaged"
    damaged.write_bytes(bytes(4096) + two.read_bytes()[4096:])
    outdated = lab.directory / "outdated"
    shutil.copyfile(two, outdated)
    lab.real_ok("config", outdated, "--label", "newer")
    newer = outdated.read_bytes()
    outdated.write_bytes(two.read_bytes()[:16384] + newer[16384:])
    token = {"type": "foo", "keyslots": ["1"]}
    (lab.directory / "token.json").write_text(str(token).replace("'", '"'))
    return lab


OPERATIONS = {
    "add": ("two", "luksAddKey PBKDF -d p1 IMAGE p3"),
    "add unbound": ("two", "luksAddKey PBKDF --unbound -s 256 IMAGE p3"),
    "change": ("two", "luksChangeKey PBKDF -d p2 IMAGE p3"),
    "convert": ("two", "luksConvertKey PBKDF -d p1 --hash sha512 IMAGE"),
    "remove": ("two", "luksRemoveKey IMAGE p2"),
    "kill": ("two", "luksKillSlot IMAGE 0 -d p2"),
    "erase": ("two", "erase -q IMAGE"),
    "priority": ("two", "config IMAGE --priority prefer -S 1 --label new"),
    "uuid": ("two", "luksUUID IMAGE --uuid 01234567-89ab-cdef-0123-456789abcdef"),
    "token": ("two", "token add IMAGE --key-description d"),
    "import": ("two", "token import IMAGE --json-file token.json"),
    "restore, two of four": ("full", "luksHeaderRestore -q IMAGE --header-backup-file backup"),
    "repair": ("damaged", "repair IMAGE"),
    "label, a copy damaged": ("damaged", "config IMAGE --label new"),
    "change, a copy damaged": ("damaged", "luksChangeKey PBKDF -d p2 IMAGE p3"),
    "label, a copy outdated": ("outdated", "config IMAGE --label new"),
}


def run(lab: Lab, base: str, line: str) -> Log:
    places = {passphrase: [lab.key(passphrase)] for passphrase in PASSPHRASES}
    places |= {name: [lab.directory / name] for name in ("backup", "token.json")}
    return record_action(lab, base, line, {"PBKDF": QUICK_PBKDF, **places})


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_state_opens_with_the_old_or_the_new_passphrases(
    lab: Lab, judge: Judge, operation: str, record_figure: Callable[[str, object], None]
) -> None:
    base, line = OPERATIONS[operation]
    log = run(lab, base, line)
    assert all(write.end <= HEADER for write in log.writes)
    assert not log.epochs[-1], "what was written last was not synced"
    states = list(log.states())
    old, old_opens = judge.opening(log.base)
    new, new_opens = judge.opening(states[-1][1])
    opened = (lab.directory / "image").read_bytes()
    assert states[-1][1] == opened  # the log is whole
    bad, tried = [], 0
    for name, state in log.different_states():
        tried += 1
        try:
            header, found = judge.opening(state)
        except Exception as error:  # whatever it is, it is a verdict
            bad.append(f"{name}: {error}")
            continue
        is_whole = header.root == old.root or header.root == new.root
        # What is being removed may be gone before the header says so.
        may_open = old_opens if header.root == old.root else new_opens
        must_open = may_open & (new_opens if not new_opens - old_opens else may_open)
        if not (is_whole and must_open <= found <= may_open):
            bad.append(f"{name}: {sorted(found)}")
    assert not bad, (tried, bad)
    assert tried >= 3
    record_figure("states", f"{len(states)}, {tried} of them different, 0 unacceptable")
    for name, state in states[:: max(1, len(states) // 4)]:
        lab.check_opening(name, state, judge.opening(state)[1])


def test_the_judge_sees_what_is_lost(lab: Lab, judge: Judge) -> None:
    """A change whose key material is not synced before its header is found out."""
    log = run(lab, *OPERATIONS["change"])
    _, found = judge.opening(log.base)
    assert {passphrase for _, passphrase in found} == {"p1", "p2"}
    merged = Log(log.base, [log.epochs[0] + log.epochs[1] + log.epochs[2], *log.epochs[3:]])
    verdicts = [judge.opening(state)[1] for _, state in merged.states()]
    assert any({p for _, p in verdict} == {"p1"} for verdict in verdicts)
