"""A LUKS2 header under a random sequence of changes, a model of it, and two judges of each step.

Changes are made by our functions and, now and then, by the real cryptsetup; after each of them our
own reader and the real one must see what the model says.
"""

import contextlib
import copy
import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fusecrypt.dmcrypt.backing import get_size, pread_from
from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.luks2 import Luks2Header, edit, key_change, read_header, token_edit
from fusecrypt.dmcrypt.luks2.change import edit_header, read_whole
from fusecrypt.dmcrypt.luks2.key_change import NewKeyslot, UnlockedKey
from fusecrypt.dmcrypt.luks2.restore import find_present, open_backup, restore
from fusecrypt.dmcrypt.luks2.update import repair_header
from fusecrypt.dmcrypt.pbkdf import PbkdfParams
from fusecrypt.keystore.errors import ConfigError, NoKeyError
from tests.lab.cryptsetup import QUICK_PBKDF
from tests.lab.header_session import given
from tests.lab.header_volume import Lab

KDFS = {
    "sha256": PbkdfParams("pbkdf2", "sha256", iterations=1000),
    "sha512": PbkdfParams("pbkdf2", "sha512", iterations=1000),
    "argon2id": PbkdfParams("argon2id", iterations=4, memory_kib=32, parallel=1),
}
HEADER = 2 * 16384 + (1 << 20)
#: So many keyslots of a 256-bit key fit into the keyslots area.
ROOM = 8

_PASSPHRASES = st.sampled_from(["a", "b", "c", "d"])
_KDFS = st.sampled_from(sorted(KDFS))
_CHOICES = st.integers(0, 2**32)


@dataclass
class Slot:
    passphrase: str
    kdf: str
    is_unbound: bool = False
    priority: int = 1


@dataclass
class Model:
    """What a header must say."""

    slots: dict[int, Slot] = field(default_factory=dict)
    tokens: dict[int, set[int]] = field(default_factory=dict)
    label: str = ""

    @property
    def bound(self) -> list[int]:
        return [n for n, slot in sorted(self.slots.items()) if not slot.is_unbound]


class HeaderMachine(RuleBasedStateMachine):
    """One image; ``lab`` has the image that each run begins with, ``start``, opened by ``a``."""

    def __init__(self, lab: Lab, engine: Engine) -> None:
        super().__init__()
        self.lab, self.engine = lab, engine
        self.image = lab.directory / "machine"
        shutil.copyfile(lab.directory / "start", self.image)
        self.model = Model({0: Slot("a", "sha256")})
        self.saved: tuple[Path, Model] | None = None
        self.kept = 0
        self.is_damaged = False
        self.fd = os.open(self.image, os.O_RDWR)
        self.data = self.image.read_bytes()[2 << 20 :]

    def teardown(self) -> None:
        os.close(self.fd)

    # What the rules need.

    def keep(self, _old: object) -> None:
        self.kept += 1
        self.is_damaged = False  # a change mends first

    def read(self) -> Luks2Header:
        return read_header(pread_from(self.fd), get_size(self.fd))

    def unlock(self, number: int, passphrase: str) -> UnlockedKey:
        with given(self.engine, passphrase) as secret:
            return key_change.unlock(self.engine, self.read(), self.fd, secret, number=number)

    def pick(self, choice: int, numbers: list[int]) -> int:
        return sorted(numbers)[choice % len(numbers)]

    # The rules.

    @rule(choice=_CHOICES, passphrase=_PASSPHRASES, kdf=_KDFS)
    @precondition(lambda self: self.model.bound)
    def add(self, choice: int, passphrase: str, kdf: str) -> None:
        source = self.pick(choice, self.model.bound)
        unlocked = self.unlock(source, self.model.slots[source].passphrase)
        free = [n for n in range(32) if n not in self.model.slots]
        number = free[0] if choice % 2 else self.pick(choice // 2, free)
        new = NewKeyslot(KDFS[kdf], None if choice % 2 else number)
        with given(self.engine, passphrase) as secret:
            try:
                _, got = key_change.add_keyslot(
                    self.engine, self.fd, unlocked, secret, new, self.keep
                )
            except ConfigError:
                assert len(self.model.slots) == ROOM
                return
        assert got == number
        self.model.slots[number] = Slot(passphrase, kdf)

    @rule(passphrase=_PASSPHRASES, kdf=_KDFS)
    @precondition(lambda self: len(self.model.slots) < ROOM)
    def add_unbound(self, passphrase: str, kdf: str) -> None:
        key = self.engine.generate_key(32, xts=False)
        new = NewKeyslot(KDFS[kdf])
        digests = len(self.read().metadata.digests)
        with given(self.engine, passphrase) as secret:
            try:
                _, number = key_change.add_unbound_keyslot(
                    self.engine, self.fd, key, 32, secret, new, self.keep
                )
            except ConfigError:
                assert digests == edit.DIGESTS_MAX
                return
        self.model.slots[number] = Slot(passphrase, kdf, is_unbound=True)

    @rule(choice=_CHOICES, passphrase=_PASSPHRASES, kdf=_KDFS)
    @precondition(lambda self: self.model.slots)
    def change(self, choice: int, passphrase: str, kdf: str) -> None:
        number = self.pick(choice, list(self.model.slots))
        slot = self.model.slots[number]
        unlocked = self.unlock(number, slot.passphrase)
        with given(self.engine, passphrase) as secret:
            key_change.change_keyslot(
                self.engine, self.fd, unlocked, secret, NewKeyslot(KDFS[kdf]), self.keep,
                may_overwrite=True,
            )  # fmt: skip
        slot.passphrase, slot.kdf = passphrase, kdf

    @rule(choice=_CHOICES)
    @precondition(lambda self: len(self.model.bound) > 1)
    def remove(self, choice: int) -> None:
        number = self.pick(choice, list(self.model.slots))
        key_change.remove_keyslot(self.fd, number, self.keep, lambda _header: None)
        del self.model.slots[number]
        for keyslots in self.model.tokens.values():
            keyslots.discard(number)

    @rule(choice=_CHOICES, priority=st.sampled_from([0, 1, 2]), label=st.sampled_from(["", "x"]))
    @precondition(lambda self: self.model.slots)
    def configure(self, choice: int, priority: int, label: str) -> None:
        number = self.pick(choice, list(self.model.slots))

        def change(header: Luks2Header) -> Luks2Header:
            header = edit.set_priority(header, number, priority)
            return edit.set_labels(header, edit.LabelChange(label=label))

        edit_header(self.fd, change, self.keep)
        self.model.slots[number].priority, self.model.label = priority, label

    @rule(choice=_CHOICES)
    def token(self, choice: int) -> None:
        if self.model.tokens and choice % 3 == 0:
            number = self.pick(choice, list(self.model.tokens))
            edit_header(self.fd, lambda h: token_edit.remove_token(h, number), self.keep)
            del self.model.tokens[number]
            return
        slots = sorted(self.model.slots)[: choice % 4]
        token: dict[str, object] = {"type": "x", "keyslots": [str(n) for n in slots], "y": choice}
        numbers: list[int] = []

        def change(header: Luks2Header) -> Luks2Header:
            changed, number = token_edit.add_token(header, token)
            numbers.append(number)
            return changed

        edit_header(self.fd, change, self.keep)
        self.model.tokens[numbers[0]] = set(slots)

    @rule()
    def back_up(self) -> None:
        path = self.lab.directory / "machine-backup"
        path.write_bytes(b"".join(read_whole(self.fd)[1]))
        self.saved = (path, copy.deepcopy(self.model))

    @rule()
    @precondition(lambda self: self.saved is not None)
    def restore(self) -> None:
        assert self.saved is not None
        path, model = self.saved
        with path.open("rb") as file:
            old = open_backup(pread_from(file.fileno()), get_size(file.fileno()))
            present = find_present(self.fd)
            assert present is not None
            restore(self.fd, old, self.keep, present, may_overwrite=True)
        self.model = copy.deepcopy(model)

    @rule(is_secondary=st.booleans(), seed=_CHOICES, is_repaired=st.booleans())
    def damage(self, is_secondary: bool, seed: int, is_repaired: bool) -> None:
        if self.is_damaged:
            repair_header(self.fd)
        chance = random.Random(seed)
        begin = 16384 if is_secondary else 0
        at = begin + chance.choice([0, 16, 64, 448, 4096 + chance.randrange(300)])
        before = os.pread(self.fd, 1, at)
        os.pwrite(self.fd, bytes([before[0] ^ 0x55]), at)
        self.is_damaged = True
        assert self.read().is_damaged
        if is_repaired:
            assert not repair_header(self.fd).is_damaged
            self.is_damaged = False

    @rule(choice=_CHOICES, passphrase=_PASSPHRASES)
    @precondition(lambda self: self.model.bound and len(self.model.slots) < ROOM)
    def let_the_real_tool_add(self, choice: int, passphrase: str) -> None:
        number = self.pick(choice, self.model.bound)
        free = next(n for n in range(32) if n not in self.model.slots)
        words = ("--key-slot", number, "--new-key-slot", free, "--pbkdf-force-iterations", 1000)
        self.lab.real_ok("luksAddKey", "--pbkdf", "pbkdf2", *words, "-d",
                         self.lab.key(self.model.slots[number].passphrase), self.image,
                         self.lab.key(passphrase))  # fmt: skip
        self.is_damaged = False  # it repairs what it reads
        self.model.slots[free] = Slot(passphrase, "sha256")

    # The judges.

    @initialize()
    def begin(self) -> None:
        assert QUICK_PBKDF[1] == "pbkdf2"
        assert self.unlock(0, "a").keyslot is not None

    @invariant()
    def our_reader_sees_the_model(self) -> None:
        header = self.read()
        assert header.is_damaged == self.is_damaged
        assert header.label == self.model.label
        assert {slot.id for slot in header.metadata.keyslots} == set(self.model.slots)
        assert {t.id: set(t.keyslots) for t in header.metadata.tokens} == self.model.tokens
        for number, slot in self.model.slots.items():
            assert self.unlock(number, slot.passphrase).keyslot is not None
        if self.model.slots:
            number = min(self.model.slots)
            with contextlib.suppress(NoKeyError):
                self.unlock(number, "wrong")
                raise AssertionError("a wrong passphrase opens")

    @invariant()
    def the_real_tool_sees_the_model(self) -> None:
        """It would repair what is damaged, and so gets a copy."""
        image = self.lab.directory / "machine-copy"
        image.write_bytes(os.pread(self.fd, HEADER, 0))
        found: dict[str, Any] = self.lab.metadata(image)
        bound = {int(n) for digest in found["digests"].values() if digest["segments"]
                 for n in digest["keyslots"]}  # fmt: skip
        assert bound == set(self.model.bound)
        slots = {int(number): slot for number, slot in found["keyslots"].items()}
        assert slots.keys() == self.model.slots.keys()
        for number, slot in self.model.slots.items():
            assert slots[number].get("priority", 1) == slot.priority
            kdf = slots[number]["kdf"]
            assert kdf.get("hash", kdf["type"]) == slot.kdf
        tokens = {int(n): {int(s) for s in t["keyslots"]} for n, t in found["tokens"].items()}
        assert tokens == self.model.tokens
        if self.model.bound:
            number = self.model.bound[self.kept % len(self.model.bound)]
            assert self.lab.opens(image, self.model.slots[number].passphrase, number)

    @invariant()
    def the_data_are_not_touched(self) -> None:
        assert os.pread(self.fd, len(self.data) + 1, 2 << 20) == self.data
