"""The adapters of an IBM Z machine as its sysfs tells them. Only reads.

Source: linux/drivers/s390/crypto (ap_card.c, ap_queue.c, zcrypt_card.c, zcrypt_cex4.c) and "Device
Drivers, Features, and Commands", chapter "Generic cryptographic device driver": the attributes of
cards and queues. The text of ``mkvps`` as machines gave it stands in the tests.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .coprocessor import (
    MODE_ACCEL,
    MODE_CCA,
    MODE_EP11,
    AdapterInfo,
    Apqn,
    Fill,
    Register,
    RegisterState,
)
from .ep11_token import WKVP_SIZE
from .errors import AccessError, CoprocessorError, FormatError, NotFoundError, UnsupportedError
from .key_type import MKVP_SIZE

ROOT: Final = Path("/sys/bus/ap/devices")
_QUEUE: Final = re.compile(r"([0-9a-f]{2})\.([0-9a-f]{4})")
_TYPE: Final = re.compile(r"CEX[5-8]([ACP])")
_SERIAL: Final = re.compile("[0-9A-Za-z]{8,16}")
_LINE: Final = re.compile(r"(AES|APKA|ASYM|WK) (NEW|CUR|OLD): (\S+) (\S+)")
_MODES: Final = {"A": MODE_ACCEL, "C": MODE_CCA, "P": MODE_EP11}
_REGISTERS: Final = {"NEW": Register.NEW, "CUR": Register.CURRENT, "OLD": Register.OLD}
_OTHERS: Final = (Fill.VALID, Fill.INVALID)
_WHOLE: Final = (Fill.FULL, Fill.UNCOMMITTED, Fill.COMMITTED, Fill.VALID)


@dataclass(frozen=True, slots=True)
class _Family:
    """What the lines about the master keys of volumes look like in one mode."""

    name: str
    pattern: re.Pattern[str]
    pattern_size: int  # bytes that keys have of it, and we
    fills: dict[Register, tuple[Fill, ...]]


_FAMILIES: Final = {
    MODE_CCA: _Family(
        "AES",
        re.compile("0x([0-9a-f]{16})"),
        MKVP_SIZE,
        {
            Register.NEW: (Fill.EMPTY, Fill.PARTIAL, Fill.FULL),
            Register.CURRENT: _OTHERS,
            Register.OLD: _OTHERS,
        },
    ),
    MODE_EP11: _Family(
        "WK",
        re.compile("0x([0-9a-f]{64})"),
        WKVP_SIZE,
        {
            Register.NEW: (Fill.EMPTY, Fill.UNCOMMITTED, Fill.COMMITTED),
            Register.CURRENT: _OTHERS,
        },
    ),
}
_UNKNOWN: Final = ("-", "-")
#: Reads of ``mkvps`` that a signal spoils have dashes instead of states; then it is read again.
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class ApBus:
    """The directory with a directory for each card and each queue."""

    root: Path = ROOT

    def list_apqns(self) -> tuple[Apqn, ...]:
        """The queues that there are, in order; none where there is no such bus.

        Raises:
            AccessError: the directory cannot be read.
        """
        try:
            names = [path.name for path in self.root.iterdir()]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise AccessError(f"{self.root}: {error.strerror}") from None
        matches = [match for match in map(_QUEUE.fullmatch, names) if match]
        return tuple(sorted(Apqn(int(m[1], 16), int(m[2], 16)) for m in matches))

    def read(self, apqn: Apqn, created: str) -> AdapterInfo:
        """What can be told of a queue and its card; ``created``: since when it is known here.

        Raises:
            NotFoundError: the machine has no such queue.
            UnsupportedError: a card of a type that is not supported.
            FormatError: an attribute says what it cannot say.
            CoprocessorError: the state of its master keys is not told.
            AccessError: an attribute cannot be read.
        """
        if apqn not in self.list_apqns():
            raise NotFoundError(f"adapter {apqn}: {self.root} has none")
        card, queue = self.root / f"card{apqn.card:02x}", self.root / str(apqn)
        card_type, mode = self._read_type(card)
        serial = self._read_serial(card)
        is_configured = _read_flag(card, "config") and _read_flag(queue, "config")
        is_checkstopped = _read_flag(card, "chkstop", usual=False) or _read_flag(
            queue, "chkstop", usual=False
        )
        is_online = _read_flag(card, "online") and _read_flag(queue, "online")
        registers = dict.fromkeys(Register, RegisterState(Fill.INVALID))
        registers[Register.NEW] = RegisterState(Fill.EMPTY)
        if mode in _FAMILIES and is_configured and not is_checkstopped:
            registers |= _read_registers(queue, mode)
        return AdapterInfo(
            apqn=apqn,
            serial=serial,
            is_online=is_online and is_configured and not is_checkstopped,
            new=registers[Register.NEW],
            current=registers[Register.CURRENT],
            old=registers[Register.OLD],
            created=created,
            mode=mode,
            type=card_type,
            is_configured=is_configured,
            is_checkstopped=is_checkstopped,
            requests=_read_count(queue, "request_count"),
        )

    def _read_type(self, card: Path) -> tuple[str, str]:
        text = _read(card / "type")
        match = _TYPE.fullmatch(text)
        if match is None:
            wanted = "wanted CEX5 to CEX8 and its mode, like CEX8C"
            raise UnsupportedError(f"{card / 'type'}: {text!r}, {wanted}")
        return text, _MODES[match[1]]

    def _read_serial(self, card: Path) -> str:
        """Of an accelerator there is none: zeros."""
        try:
            text = _read(card / "serialnr")
        except NotFoundError:
            return "00000000"
        if not _SERIAL.fullmatch(text):
            raise FormatError(f"{card / 'serialnr'}: {text!r}, wanted 8 or 16 letters and digits")
        return text.upper()


def parse_registers(text: str, mode: str, where: str) -> dict[Register, RegisterState] | None:
    """The registers that ``mkvps`` tells, EP11 having no OLD; None: it tells nothing now.

    Raises:
        FormatError: not of its form.
    """
    family = _FAMILIES[mode]
    found: dict[Register, RegisterState] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[1] != family.name:
            continue  # another family, or one of a later kernel
        register, state = _REGISTERS[match[2]], (match[3], match[4])
        if state == _UNKNOWN:
            return None
        found[register] = _parse_register(family, register, *state, f"{where}: {line!r}")
    if found.keys() != family.fills.keys():
        missing = ", ".join(sorted(family.fills.keys() - found.keys()))
        raise FormatError(f"{where}: tells nothing of the {family.name} registers {missing}")
    return found


def _parse_register(
    family: _Family, register: Register, fill: str, value: str, where: str
) -> RegisterState:
    known = [one for one in family.fills.get(register, ()) if one == fill]
    pattern = family.pattern.fullmatch(value)
    if not known or (pattern is None and (known[0] in _WHOLE or value != "-")):
        raise FormatError(f"{where}: wanted a state and a pattern as of {family.name}")
    if known[0] in _WHOLE and pattern is not None:
        return RegisterState(known[0], bytes.fromhex(pattern[1])[: family.pattern_size])
    return RegisterState(known[0])


def _read_registers(queue: Path, mode: str) -> dict[Register, RegisterState]:
    path = queue / "mkvps"
    for _ in range(_TRIES):
        registers = parse_registers(_read(path), mode, str(path))
        if registers is not None:
            return registers
    raise CoprocessorError(f"{path}: does not tell the master keys; is the adapter busy?")


def _read_flag(directory: Path, name: str, *, usual: bool = True) -> bool:
    """An attribute of 0 or 1; older kernels do not have all of them."""
    path = directory / name
    try:
        text = _read(path)
    except NotFoundError:
        return usual
    if text not in ("0", "1"):
        raise FormatError(f"{path}: {text!r}, wanted 0 or 1")
    return text == "1"


def _read_count(directory: Path, name: str) -> int:
    try:
        text = _read(directory / name)
    except NotFoundError:
        return 0
    return int(text) if text.isascii() and text.isdigit() else 0


def _read(path: Path) -> str:
    """An attribute without its line feed.

    Raises:
        NotFoundError: there is none.
        AccessError: it cannot be read.
    """
    try:
        return path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        raise NotFoundError(f"{path}: does not exist") from None
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EIO):
            raise CoprocessorError(f"{path}: {error.strerror}") from None
        raise AccessError(f"{path}: {error.strerror}") from None
