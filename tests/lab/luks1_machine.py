"""A LUKS1 header under a random sequence of changes, a model of it, and two judges of each step.

As `header_machine`, of the older format: changes by our functions and by the real cryptsetup.
"""

import os
import re
import shutil
import uuid
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fusecrypt.dmcrypt.backing import get_size, pread_from
from fusecrypt.dmcrypt.engine.client import Engine
from fusecrypt.dmcrypt.luks1 import Luks1Header, edit, key_change, read_header
from fusecrypt.dmcrypt.luks1.change import edit_header
from fusecrypt.dmcrypt.luks1.header import KEYSLOTS
from fusecrypt.dmcrypt.luks1.key_change import UnlockedKey
from fusecrypt.dmcrypt.luks1.restore import mend_header, open_backup, restore
from fusecrypt.dmcrypt.pbkdf import PbkdfParams
from fusecrypt.keystore.errors import ConfigError, NoKeyError
from tests.lab.header_session import given
from tests.lab.header_volume import Lab

COSTS = PbkdfParams("pbkdf2", iterations=1000)
#: Where the data begin: eight keyslots of 128 bits lie before.
DATA = 1 << 20

_PASSPHRASES = st.sampled_from(["a", "b", "c", "d"])
_CHOICES = st.integers(0, 2**32)


class Luks1Machine(RuleBasedStateMachine):
    """One image; ``lab`` has the image that each run begins with, ``start``, opened by ``a``."""

    def __init__(self, lab: Lab, engine: Engine) -> None:
        super().__init__()
        self.lab, self.engine = lab, engine
        self.image = lab.directory / "machine"
        shutil.copyfile(lab.directory / "start", self.image)
        self.slots = {0: "a"}
        self.saved: tuple[Path, list[str]] | None = None
        self.kept = self.steps = 0
        self.fd = os.open(self.image, os.O_RDWR)
        self.data = os.pread(self.fd, 1 << 20, DATA)

    def teardown(self) -> None:
        os.close(self.fd)

    # What the rules need.

    def keep(self, _old: object) -> None:
        self.kept += 1

    def read(self) -> Luks1Header:
        return read_header(pread_from(self.fd), get_size(self.fd))

    def unlock(self, number: int, passphrase: str) -> UnlockedKey:
        with given(self.engine, passphrase) as secret:
            return key_change.unlock(self.engine, self.read(), self.fd, secret, number=number)

    def pick(self, choice: int) -> int:
        return sorted(self.slots)[choice % len(self.slots)]

    @property
    def free(self) -> list[int]:
        return [number for number in range(KEYSLOTS) if number not in self.slots]

    # The rules.

    @rule(choice=_CHOICES, passphrase=_PASSPHRASES)
    @precondition(lambda self: self.slots)
    def add(self, choice: int, passphrase: str) -> None:
        source = self.pick(choice)
        unlocked = self.unlock(source, self.slots[source])
        wanted = self.free[choice // 2 % len(self.free)] if self.free and choice % 2 else None
        with given(self.engine, passphrase) as secret:
            try:
                _, number = key_change.add_keyslot(
                    self.engine, self.fd, unlocked, secret, COSTS, wanted, self.keep
                )
            except ConfigError:
                assert not self.free
                return
        assert number == (self.free[0] if wanted is None else wanted)
        self.slots[number] = passphrase

    @rule(choice=_CHOICES, passphrase=_PASSPHRASES, keep_number=st.booleans())
    @precondition(lambda self: self.slots)
    def change(self, choice: int, passphrase: str, keep_number: bool) -> None:
        number = self.pick(choice)
        unlocked = self.unlock(number, self.slots[number])
        expected = number if keep_number or not self.free else self.free[0]
        with given(self.engine, passphrase) as secret:
            _, got = key_change.change_keyslot(
                self.engine, self.fd, unlocked, secret, COSTS, self.keep,
                keep_number=keep_number, may_overwrite=True,
            )  # fmt: skip
        assert got == expected
        del self.slots[number]
        self.slots[got] = passphrase

    @rule(choice=_CHOICES)
    @precondition(lambda self: self.slots)
    def remove(self, choice: int) -> None:
        if len(self.slots) == 1 and choice % 4:
            return  # seldom, since nothing but a backup brings one back
        number = self.pick(choice)
        key_change.remove_keyslot(self.fd, number, self.keep, lambda _header: None)
        del self.slots[number]

    @rule(number=st.uuids())
    def name(self, number: uuid.UUID) -> None:
        edit_header(self.fd, lambda header: edit.set_uuid(header, str(number)), self.keep)
        assert self.read().uuid == str(number)

    @rule()
    def back_up(self) -> None:
        path = self.lab.directory / "machine-backup"
        path.write_bytes(os.pread(self.fd, DATA, 0))
        self.saved = (path, sorted(self.slots.values()))

    @rule()
    @precondition(lambda self: self.saved is not None)
    def restore(self) -> None:
        """Keyslots may get other numbers; each of the backup's passphrases opens one again."""
        assert self.saved is not None
        path, passphrases = self.saved
        with path.open("rb") as file:
            old = open_backup(pread_from(file.fileno()), get_size(file.fileno()))
            restore(self.fd, old, self.keep, self.read(), may_overwrite=True)
        self.slots = {number: self.find(number) for number in self.read().list_keyslots()}
        assert sorted(self.slots.values()) == passphrases

    def find(self, number: int) -> str:
        for passphrase in "abcd":
            try:
                self.unlock(number, passphrase)
            except NoKeyError:
                continue
            return passphrase
        raise AssertionError(f"nothing opens keyslot {number}")

    @rule(choice=_CHOICES)
    @precondition(lambda self: self.free and self.free[-1] > 0)
    def damage_and_mend(self, choice: int) -> None:
        number = max(self.free)
        at = 208 + 48 * number + (0, 40, 44)[choice % 3]  # state, offset, stripes
        os.pwrite(self.fd, b"\x00\x00\x12\x34", at)
        assert mend_header(self.fd, self.keep)
        assert not mend_header(self.fd, self.keep)

    @rule(choice=_CHOICES, passphrase=_PASSPHRASES)
    @precondition(lambda self: self.slots and self.free)
    def let_the_real_tool_change(self, choice: int, passphrase: str) -> None:
        number = self.pick(choice)
        key = self.lab.key(self.slots[number])
        words = ("-q", "--pbkdf-force-iterations", 1000, "-d", key)
        if choice % 2:
            free = self.free[0]
            self.lab.real_ok(
                *("luksAddKey", *words, "--new-key-slot", free, self.image),
                self.lab.key(passphrase),
            )
            self.slots[free] = passphrase
        else:
            self.lab.real_ok("luksKillSlot", *words[:1], self.image, number)
            del self.slots[number]

    # The judges.

    @invariant()
    def our_reader_sees_the_model(self) -> None:
        header = self.read()
        assert header.list_keyslots() == tuple(sorted(self.slots))
        for number, passphrase in self.slots.items():
            assert self.unlock(number, passphrase).keyslot is not None

    @invariant()
    def the_real_tool_sees_the_model(self) -> None:
        self.steps += 1
        said = self.lab.real_ok("luksDump", self.image)
        assert re.findall(r"Key Slot (\d): ENABLED", said) == [str(n) for n in sorted(self.slots)]
        assert f"UUID:          \t{self.read().uuid}\n" in said
        if self.slots:
            number = self.pick(self.steps)
            assert self.lab.opens(self.image, self.slots[number], number)

    @invariant()
    def the_data_are_not_touched(self) -> None:
        assert os.pread(self.fd, len(self.data) + 1, DATA) == self.data
