"""Conversions that are cut off: every state is LUKS1 or LUKS2, and opens with every passphrase."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fusecrypt.dmcrypt.backing import pread_of
from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.luks_header import LuksHeader, read_luks_header
from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_session import opens, running_engine
from tests.lab.header_volume import PROGRAM, Lab
from tests.lab.write_log import MARKS, Log, record

pytestmark = MARKS

QUICK = ("--pbkdf-force-iterations", "1000")
LUKS2 = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "1m", "--offset", "4096")


@dataclass
class Judge:
    """Which keyslots of a header open with the passphrase of their number."""

    engine: Engine
    known: dict[tuple[str, bytes, int], bool] = field(default_factory=dict)

    def opening(self, state: bytes, numbers: tuple[int, ...]) -> tuple[str, set[int]]:
        """The type of the header, and whose passphrases open any of its keyslots."""
        header = read_luks_header(pread_of(state), len(state))
        found = set()
        for slot in header.list_keyslots():
            spec = header.make_keyslot_spec(slot)
            at = spec.area_offset
            material = hashlib.sha256(state[at : at + spec.key_size * 4000]).digest()
            about = str(header.make_digest_spec().salt) + str(spec.kdf)
            # The passphrase of its number first: but for copies that is the one.
            for number in sorted(numbers, key=lambda n: n != slot):
                case = (about, material, number)
                if case not in self.known:
                    self.known[case] = self._opens(state, header, slot, number)
                if self.known[case]:
                    found.add(number)
                    break
        return header.type, found

    def _opens(self, state: bytes, header: LuksHeader, slot: int, number: int) -> bool:
        spec, wanted = header.make_keyslot_spec(slot), header.make_digest_spec()
        return opens(self.engine, state, f"p{number}", spec, wanted)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with running_engine() as engine:
        yield Judge(engine)


def convert(lab: Lab, image: Path, kind: str) -> Log:
    words = ["convert", "-q", "--type", kind, str(image)]
    return record(image, [sys.executable, "-c", PROGRAM, *words], lab.environment)


#: What it is before, with which options, its keyslots, and how many may be lost.
CASES = {
    "luks1": ("luks1", ("-s", "256"), (0, 2), 0),
    "luks1, a keyslot free": ("luks1", ("-s", "512"), (0, 1, 6, 7), 0),
    "luks1, all in use, a gap": ("luks1", ("-s", "256"), tuple(range(8)), 0),
    "luks1, no way": ("luks1", ("-s", "512"), tuple(range(8)), 1),
    "luks2": ("luks2", ("-s", "256", *LUKS2), (0, 2), 0),
    "luks2, moved to and fro": ("moved", ("-s", "512"), (0, 3, 6, 7), 0),
}


@pytest.mark.parametrize(("kind", "options", "slots", "lost"), CASES.values(), ids=CASES)
def test_every_state_opens_with_every_passphrase(
    tmp_path: Path,
    judge: Judge,
    kind: str,
    options: tuple[str, ...],
    slots: tuple[int, ...],
    lost: int,
) -> None:
    lab = Lab(tmp_path)
    image = tmp_path / "image"
    image.write_bytes(bytes((2 << 20) + 4096))
    before = "luks2" if kind == "luks2" else "luks1"
    pbkdf = ("--sector-size", "512", *QUICK_PBKDF) if kind == "luks2" else QUICK
    first = lab.key(f"p{slots[0]}")
    lab.real_ok(
        "luksFormat", "-q", "--type", before, *pbkdf, "-S", slots[0], *options, image, first
    )
    for slot in slots[1:]:
        lab.real_ok("luksAddKey", *QUICK_PBKDF, "-d", first, "-S", slot, image,
                    lab.key(f"p{slot}"))  # fmt: skip
    if kind == "moved":
        lab.real_ok("convert", "-q", "--type", "luks2", image)
        before = "luks2"
    after = "luks1" if before == "luks2" else "luks2"
    log = convert(lab, image, after)
    assert not log.epochs[-1], "what was written last was not synced"
    assert all(write.end <= 2 << 20 for write in log.writes)
    bad, seen, tried = [], [], 0
    for name, state in log.different_states():
        tried += 1
        try:
            found, opened = judge.opening(state[: 2 << 20], slots)
        except Exception as error:  # whatever it is, it is a verdict
            bad.append(f"{name}: {error}")
            continue
        seen.append(found)
        if len(set(slots) - opened) > lost:
            bad.append(f"{name}: {found}, {sorted(opened)}")
    assert not bad, (tried, len(bad), bad[:5])
    assert (seen[0], seen[-1], tried > 20) == (before, after, True)
    _ask_the_real_tool(lab, list(log.states()), slots, lost)


def _ask_the_real_tool(
    lab: Lab, states: list[tuple[str, bytes]], slots: tuple[int, ...], lost: int
) -> None:
    """Of some of the states, those around the switch among them."""
    copy = lab.directory / "cut"
    magic = [state[:512] for _, state in states]
    switch = next(n for n, each in enumerate(magic) if each[6:8] != magic[0][6:8])
    for n in {0, len(states) // 3, switch - 1, switch, switch + 1, len(states) - 2}:
        name, state = states[n]
        copy.write_bytes(state)
        opening = [slot for slot in slots if lab.opens(copy, f"p{slot}")]
        assert len(opening) >= len(slots) - lost, (name, opening)
