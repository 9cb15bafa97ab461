"""An IBM Z machine without one: a tree as its sysfs, and a kernel that answers pkey's requests.

Requests are taken apart by offset, big-endian, as the table of pkey.h's structures has them, and
pointers are followed in this process. Nothing of ours but the wrapping of keys is used, in place of
the firmware. The text of `mkvps` is of machines: CEX6 queues under Linux 6.19.
"""

import ctypes
import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path

from fusecrypt.keystore import cca, ep11
from fusecrypt.keystore.ap_bus import ApBus
from fusecrypt.keystore.coprocessor import Apqn
from fusecrypt.keystore.drivers.pkey import Machine
from fusecrypt.keystore.errors import MapperError
from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.pkey_device import PkeyDevice
from fusecrypt.keystore.tokens import KeyType
from fusecrypt.keystore.verification import make_mkvp, make_pattern, make_wkvp
from tests.unit.keystore.samples import clear_key, master_key

#: Request: bytes of its structure (64 bits).
SIZES = {0x11: 40, 0x12: 72, 0x17: 32, 0x1B: 32, 0x1C: 88, 0x1D: 48}
TYPES = {
    1: KeyType.CCA_AESDATA,
    2: KeyType.CCA_AESCIPHER,
    3: KeyType.EP11_AES,
    6: KeyType.EP11_AES,
}
OTHERS = """\
APKA NEW: empty 0x0000000000000000
APKA CUR: valid 0x755cb8e7740dae51
APKA OLD: invalid 0x0000000000000000
ASYM NEW: empty -
ASYM CUR: empty -
ASYM OLD: empty -
"""


def number(content, offset, size):
    return int.from_bytes(content[offset : offset + size], "big")


def mkvps(current=None, old=None, new=None):
    """The attribute of a queue in CCA mode."""

    def line(name, key, words):
        value = make_mkvp(key).hex() if key else "0" * 16
        return f"AES {name}: {words[bool(key)]} 0x{value}\n"

    return (
        line("NEW", new, ("empty", "full"))
        + line("CUR", current, ("invalid", "valid"))
        + line("OLD", old, ("invalid", "valid"))
        + OTHERS
    )


def ep11_mkvps(current=None, new=None, state="committed"):
    """The attribute of a queue in EP11 mode: patterns of 32 bytes."""

    def pattern(key):
        return f"0x{hashlib.sha256(bytes([2]) + key).hexdigest()}"

    return (
        f"WK CUR: {'valid ' + pattern(current) if current else 'invalid -'}\n"
        f"WK NEW: {f'{state} ' + pattern(new) if new else 'empty -'}\n"
    )


def wrap(key_type, bits=256, key=0, **options):
    """A CCA key that counts up from 0, under the master key that counts up from ``key``."""
    clear = clear_key(bits, False)
    return cca.wrap_key(key_type, clear, master_key(key), is_xts=False, **options)


class FakeMachine:
    """Queues, their master keys, and what was asked."""

    def __init__(self, root: Path):
        self.root = root / "devices"
        self.root.mkdir()
        self.device = root / "pkey"
        self.device.touch()
        self.keys = {}  # APQN: (CURRENT, OLD)
        self.asked = []  # request, structure before the answer
        self.fail = {}  # request: errno
        self.hidden = 0  # so many queues come after the first question how many there are
        self.is_old_kernel = False  # without the form of EP11 keys that has a header

    def machine(self, name="s390x"):
        def pattern(token, *, is_xts):
            return make_pattern(self.unwrap(SecureKey(token)), is_xts=is_xts)

        return Machine(
            name,
            ApBus(self.root),
            lambda: PkeyDevice(str(self.device), self.ioctl),
            pattern,
        )

    def add(self, text, current=None, old=None, new=None, card_type="CEX8C", **attributes):
        apqn = Apqn.parse(text)
        card, queue = self.root / f"card{apqn.card:02x}", self.root / str(apqn)
        card.mkdir(exist_ok=True)
        queue.mkdir()
        of_card = {"type": card_type, "online": "1", "config": "1", "chkstop": "0",
                   "serialnr": "93AADFK7", "hwtype": "14", "request_count": "7"}  # fmt: skip
        of_queue = {"online": "1", "config": "1", "chkstop": "0", "request_count": "3"}
        if card_type.endswith("C"):
            of_queue["mkvps"] = mkvps(current, old, new)
        elif card_type.endswith("P"):
            of_queue["mkvps"] = ep11_mkvps(current, new)
        for name, value in of_card.items():
            (card / name).write_text(attributes.get(f"card_{name}", value) + "\n")
        for name, value in of_queue.items():
            (queue / name).write_text(attributes.get(name, value).rstrip("\n") + "\n")
        self.keys[apqn] = (current, old)
        return apqn

    def unwrap(self, key):
        for master_keys in self.keys.values():
            for one in filter(None, master_keys):
                if make_mkvp(one) == key.mkvp:
                    return cca.unwrap_key(key, one)
                if make_wkvp(one) == key.mkvp:
                    return ep11.unwrap_key(key, one)
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def ioctl(self, fd, request, content):
        os.fstat(fd)  # it is open
        nr = request & 0xFF
        assert request == 3 << 30 | SIZES[nr] << 16 | ord("p") << 8 | nr
        assert len(content) == SIZES[nr]
        self.asked.append((nr, bytes(content)))
        if nr in self.fail:
            raise OSError(self.fail[nr], os.strerror(self.fail[nr]))
        getattr(self, f"_answer_{nr:02x}")(content)

    def _get_apqns(self, content, address_at, count_at):
        address, count = number(content, address_at, 8), number(content, count_at, 4)
        data = ctypes.string_at(address, 4 * count)
        return [Apqn(number(data, i, 2), number(data, i + 2, 2)) for i in range(0, 4 * count, 4)]

    def _get_key(self, content):
        return ctypes.string_at(number(content, 0, 8), number(content, 8, 4))

    def _put_key(self, content, token, address_at, size_at):
        if number(content, size_at, 4) < len(token):
            raise OSError(errno.EINVAL, "too small")
        ctypes.memmove(number(content, address_at, 8), token, len(token))
        content[size_at : size_at + 4] = len(token).to_bytes(4, "big")

    def _make(self, content, clear, bits_at=16):
        apqns = self._get_apqns(content, 0, 8)
        key_type = TYPES.get(number(content, 12, 4))
        if key_type is None or number(content, bits_at, 4) not in (128, 192, 256):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flags = number(content, 20, 4)
        for apqn in apqns:
            master_key = self.keys.get(apqn, (None, None))[0]
            if master_key and key_type is KeyType.EP11_AES:
                key = ep11.wrap_key(key_type, clear, master_key, is_xts=False,
                                    is_exportable=flags == 0x200C01)  # fmt: skip
                (half,) = key.halves
                token = replace(half, version=number(content, 12, 4)).pack()
                return token[: number(token, 2, 2)]
            if master_key:
                key = cca.wrap_key(key_type, clear, master_key, is_xts=False,
                                   is_exportable=flags == 0xF0C8)  # fmt: skip
                size = number(key.token, 2, 2) or len(key.token)  # firmware pads nothing
                return key.token[:size]
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def _answer_11(self, content):
        clear = bytearray(os.urandom(number(content, 16, 4) // 8))
        self._put_key(content, self._make(content, clear), 24, 32)

    def _answer_12(self, content):
        clear = content[24 : 24 + number(content, 16, 4) // 8]
        self.content = content
        self._put_key(content, self._make(content, clear), 56, 64)

    def _parse(self, content):
        try:
            return SecureKey(self._get_key(content))
        except MapperError:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from None

    def _answer_17(self, content):
        key = self._parse(content)
        apqn = Apqn(number(content, 12, 2), number(content, 14, 2))
        flags = self._match(apqn, key.mkvp)
        if not flags:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        kind = key.token[4] if key.key_type is KeyType.EP11_AES else key.token[4] - 3
        bits = key.clear_bits or 0xFFFFFFFF
        content[16:28] = b"".join(n.to_bytes(4, "big") for n in (kind, bits, flags))

    def _match(self, apqn, mkvp):
        current, old = self.keys.get(apqn, (None, None))
        return sum(
            flag
            for flag, key in ((2, current), (4, old))
            if key and mkvp in (make_mkvp(key), make_wkvp(key))
        )

    def _list(self, content, found, address_at, count_at):
        room = number(content, count_at, 4)
        content[count_at : count_at + 4] = len(found).to_bytes(4, "big")
        if room == 0:
            if self.hidden:  # they come now
                self.hidden -= 1
                content[count_at : count_at + 4] = max(1, len(found) - 1).to_bytes(4, "big")
            return
        if room < len(found):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = b"".join(a.card.to_bytes(2, "big") + a.domain.to_bytes(2, "big") for a in found)
        ctypes.memmove(number(content, address_at, 8), data, len(data))

    def _answer_1b(self, content):
        key, flags = self._parse(content), number(content, 12, 4)
        if not flags:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        found = [apqn for apqn in sorted(self.keys) if self._match(apqn, key.mkvp) & flags]
        self._list(content, found, 16, 24)

    def _answer_1c(self, content):
        kind, flags = number(content, 0, 4), number(content, 68, 4)
        if kind not in TYPES or (kind == 6 and self.is_old_kernel):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        found = [
            apqn
            for apqn in sorted(self.keys)
            if self._has_type(apqn, kind)
            and (not flags or self._match(apqn, bytes(content[4:12])) & flags)
        ]
        self._list(content, found, 72, 80)

    def _has_type(self, apqn, kind):
        card_type = (self.root / f"card{apqn.card:02x}" / "type").read_text().strip()
        if kind in (3, 6):
            return card_type.endswith("P") and card_type >= "CEX7"
        return card_type.endswith("C") and (kind == 1 or card_type >= "CEX6")

    def _answer_1d(self, content):
        key = self._parse(content)
        for apqn in self._get_apqns(content, 16, 24):
            if self._match(apqn, key.mkvp):
                try:
                    clear = self.unwrap(key)
                except MapperError:
                    break
                protected = os.urandom(len(clear) + 32)
                self._put_key(content, protected, 40, 32)
                content[28:32] = (len(clear) // 8 - 1).to_bytes(4, "big")
                return
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
