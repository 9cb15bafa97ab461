"""An adapter at rest: what may be told of it, and its master keys; the two as files hold them."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass, replace
from typing import Any, Final

from .cca import MASTER_KEY_SIZE
from .clear_bytes import wipe
from .control_points import DEFAULT, ControlPoint
from .coprocessor import (
    MODE_CCA,
    MODE_EP11,
    MODE_LETTERS,
    MODE_PKCS11,
    PKCS11_TYPE,
    AdapterInfo,
    Apqn,
    Fill,
    Register,
    RegisterState,
)
from .ep11_token import WKVP_SIZE
from .errors import FormatError
from .json_object import JsonObject
from .tokens import MKVP_SIZE
from .verification import make_check_value, make_mkvp, make_wkvp

#: Of what files tell of an adapter; version 1 had no state of its card, version 2 no control
#: points: all are on then. They are read, never written.
VERSION: Final = 3
#: The order in which files hold the registers.
_ORDER: Final = (Register.NEW, Register.CURRENT, Register.OLD)
MASTER_KEYS_SIZE: Final = len(_ORDER) * MASTER_KEY_SIZE
_FILLS: Final = {
    MODE_CCA: {
        Register.NEW: (Fill.EMPTY, Fill.PARTIAL, Fill.FULL),
        Register.CURRENT: (Fill.INVALID, Fill.VALID),
        Register.OLD: (Fill.INVALID, Fill.VALID),
    },
    MODE_EP11: {
        Register.NEW: (Fill.EMPTY, Fill.PARTIAL, Fill.UNCOMMITTED, Fill.COMMITTED),
        Register.CURRENT: (Fill.INVALID, Fill.VALID),
        Register.OLD: (Fill.INVALID,),
    },
}
#: These have an MKVP.
_WHOLE: Final = (Fill.FULL, Fill.UNCOMMITTED, Fill.COMMITTED, Fill.VALID)
_NOTHING: Final = (Fill.EMPTY, Fill.INVALID)
#: Bytes of a domain's control points (ep11.h, XCP_CP_BYTES); the first one is the last bit.
_CONTROL_POINTS_SIZE: Final = 16
_SERIAL: Final = re.compile("[0-9A-Z]{8}(?:[0-9A-Z]{8})?")  # 16 of real EP11 coprocessors
_NEW_SERIAL_SIZE: Final = 8
_CREATED: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
CARD_TYPES: Final = {
    **{
        mode: tuple(f"CEX{level}{letter}" for level in range(5, 9))
        for mode, letter in MODE_LETTERS.items()
    },
    MODE_PKCS11: (PKCS11_TYPE,),
}


class MasterKeys:
    """The content of the three registers of one adapter, for the length of one operation.

    Of a PKCS#11 token, whose registers are in the token, it is the PIN: see token_pin.py.
    """

    def __init__(self, content: bytearray | None = None) -> None:
        self.content = bytearray(MASTER_KEYS_SIZE) if content is None else content

    def copy(self, register: Register) -> bytearray:
        """The content of one register; the caller wipes it."""
        start = _ORDER.index(register) * MASTER_KEY_SIZE
        return self.content[start : start + MASTER_KEY_SIZE]

    def put(self, register: Register, master_key: bytearray) -> None:
        """Fill one register."""
        assert len(master_key) == MASTER_KEY_SIZE
        start = _ORDER.index(register) * MASTER_KEY_SIZE
        self.content[start : start + MASTER_KEY_SIZE] = master_key

    def wipe(self) -> None:
        """Make them zeros."""
        wipe(self.content)


def make_master_key_pattern(mode: str, master_key: bytearray) -> bytes:
    """The MKVP of a master key, of an EP11 adapter the WKVP of its wrapping key."""
    makers = {MODE_EP11: make_wkvp, MODE_PKCS11: make_check_value}
    return makers.get(mode, make_mkvp)(master_key)


def make_serial() -> str:
    """A serial number for a new card."""
    alphabet = string.digits + string.ascii_uppercase
    return "".join(secrets.choice(alphabet) for _ in range(_NEW_SERIAL_SIZE))


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as it is stored, and its master keys while they are unsealed."""

    info: AdapterInfo
    driver: str
    master_keys: MasterKeys

    def check(self, where: str) -> None:
        """That the registers hold what is told of them.

        Raises:
            FormatError: they do not; ``where`` names the file.
        """
        if self.info.mode == MODE_PKCS11:
            return
        for register in _ORDER:
            state = self.info.get_register(register)
            key = self.master_keys.copy(register)
            made = make_master_key_pattern(self.info.mode, key)
            is_right = made == state.mkvp if state.mkvp else True
            if state.state in _NOTHING and any(key):
                is_right = False
            wipe(key)
            if not is_right:
                raise FormatError(f"{where}: register {register} does not hold what is told of it")


def pack_public(info: AdapterInfo, driver: str, version: int = VERSION) -> dict[str, Any]:
    """The members of a JSON object that tell all but the master keys."""
    registers = {
        register.lower(): {
            "state": str(info.get_register(register).state),
            "mkvp": (info.get_register(register).mkvp or b"").hex(),
        }
        for register in _ORDER
    }
    members: dict[str, Any] = {
        "apqn": str(info.apqn),
        "driver": driver,
        "mode": info.mode,
        "type": info.type,
        "serial": info.serial,
        "online": info.is_online,
        "created": info.created,
        "registers": registers,
    }
    if version > 1:
        members |= {
            "configured": info.is_configured,
            "checkstop": info.is_checkstopped,
            "control_only": info.is_control_only,
        }
    if info.mode == MODE_EP11:
        members["imprint"] = info.is_imprint
        if version > 2:
            bits = sum(1 << point for point in info.control_points)
            members["control_points"] = f"{bits:0{2 * _CONTROL_POINTS_SIZE}x}"
    if info.mode == MODE_PKCS11:
        members["token"] = {"uri": info.uri, "clear_allowed": info.is_clear_allowed}
    return members


def take_public(json: JsonObject, where: str, version: int = VERSION) -> tuple[AdapterInfo, str]:
    """What `pack_public` packed: information and driver.

    Raises:
        FormatError: a member is missing, or has a value that it cannot have.
    """
    text, mode, card_type = json.take_str("apqn"), json.take_str("mode"), json.take_str("type")
    registers = json.take_object("registers")
    states = {register: _take_register(registers, register, mode, where) for register in _ORDER}
    registers.finish()
    driver = json.take_str("driver")
    serial, created = json.take_str("serial"), json.take_str("created")
    if card_type not in CARD_TYPES.get(mode, ()):
        raise FormatError(f"{where}: mode {mode!r} and type {card_type!r}, wanted like CEX8C, cca")
    if mode not in _FILLS and any(state.state not in _NOTHING for state in states.values()):
        what = "a token" if mode == MODE_PKCS11 else "an accelerator"
        raise FormatError(f"{where}: {what} with master keys")
    if not _SERIAL.fullmatch(serial) or not _CREATED.fullmatch(created):
        raise FormatError(f"{where}: serial {serial!r} or time {created!r} not as they are written")
    info = AdapterInfo(
        apqn=parse_canonical_apqn(text, where),
        serial=serial,
        is_online=json.take_bool("online"),
        new=states[Register.NEW],
        current=states[Register.CURRENT],
        old=states[Register.OLD],
        created=created,
        mode=mode,
        type=card_type,
    )
    if version > 1:
        info = replace(
            info,
            is_configured=json.take_bool("configured"),
            is_checkstopped=json.take_bool("checkstop"),
            is_control_only=json.take_bool("control_only"),
        )
    if mode == MODE_EP11:
        info = replace(info, is_imprint=json.take_bool("imprint"))
        info = replace(info, control_points=_take_control_points(json, where, version))
        if info.is_imprint and any(state.state not in _NOTHING for state in states.values()):
            raise FormatError(f"{where}: in imprint mode, and with wrapping keys")
    if mode == MODE_PKCS11:
        token = json.take_object("token")
        info = replace(
            info, uri=token.take_str("uri"), is_clear_allowed=token.take_bool("clear_allowed")
        )
        token.finish()
    return info, driver


def parse_canonical_apqn(text: str, where: str) -> Apqn:
    """An APQN in the one spelling that files have.

    Raises:
        FormatError: another spelling, or none.
    """
    if re.fullmatch(r"[0-9a-f]{2}\.[0-9a-f]{4}", text) is None:
        raise FormatError(f"{where}: {text!r} is no APQN like 03.0039")
    return Apqn.parse(text)


def _take_control_points(json: JsonObject, where: str, version: int) -> frozenset[ControlPoint]:
    if version < 3:
        return DEFAULT
    bits = int.from_bytes(json.take_hex("control_points", _CONTROL_POINTS_SIZE), "big")
    points = frozenset(point for point in ControlPoint if bits >> point & 1)
    if sum(1 << point for point in points) != bits:
        raise FormatError(f"{where}: control points {bits:x}, of which some mean nothing here")
    return points


def _take_register(
    registers: JsonObject, register: Register, mode: str, where: str
) -> RegisterState:
    json = registers.take_object(register.lower())
    text, mkvp = json.take_str("state"), json.take_hex("mkvp")
    json.finish()
    fills = [fill for fill in _FILLS.get(mode, _FILLS[MODE_CCA])[register] if fill == text]
    if not fills:
        raise FormatError(f"{where}: register {register} is {text!r}")
    size = WKVP_SIZE if mode == MODE_EP11 else MKVP_SIZE
    if len(mkvp) != (size if fills[0] in _WHOLE else 0):
        raise FormatError(f"{where}: register {register} is {text} and has MKVP {mkvp.hex()!r}")
    return RegisterState(fills[0], mkvp or None)
