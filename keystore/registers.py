"""The master-key registers of an adapter: how they are filled, set and cleared.

Source: CCA Programmer's Guide, "Master-key process" (parts are combined by exclusive or; SET moves
CURRENT to OLD and NEW to CURRENT) and "Master-key verification pattern" (a NEW master key with the
pattern of CURRENT or OLD is refused); of EP11, whose wrapping keys they are: zcrypt_ep11misc.h of
Linux, the states of a domain. Each function changes the unsealed adapter and returns what
is told of it then; storing it is the caller's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from enum import StrEnum

from . import control_points
from .adapter import Adapter, make_master_key_pattern
from .cca import MASTER_KEY_SIZE
from .clear_bytes import make_random, wiped
from .control_points import ControlPoint
from .coprocessor import (
    MODE_CCA,
    MODE_EP11,
    MODE_PKCS11,
    PKEY_DRIVER,
    Fill,
    Register,
    RegisterState,
)
from .errors import ConfigError, CoprocessorError, PolicyError, UnsupportedError


class Part(StrEnum):
    """Which part of a NEW master key is loaded."""

    FIRST = "first"
    MIDDLE = "middle"
    LAST = "last"


def load_part(adapter: Adapter, part: Part, content: bytearray) -> Adapter:
    """Combine a part of 32 bytes into NEW, which the last part makes full; the caller wipes it.

    Raises:
        ConfigError: another size.
        CoprocessorError: NEW is in another state than this part needs.
        PolicyError: a weak part, or the whole is a master key that must not be NEW.
    """
    check_has_registers(adapter)
    if len(content) != MASTER_KEY_SIZE:
        raise ConfigError(f"key part: {len(content)} bytes, wanted {MASTER_KEY_SIZE}")
    wanted = Fill.EMPTY if part is Part.FIRST else Fill.PARTIAL
    _check_new_is(adapter, wanted, f"for the {part} part")
    if _is_uniform(content):
        raise PolicyError("key part: weak, all its bytes are the same; wanted: random ones")
    with wiped(adapter.master_keys.copy(Register.NEW)) as master_key:
        for i, byte in enumerate(content):
            master_key[i] ^= byte
        if part is Part.LAST:
            return _fill_new(adapter, master_key)
        adapter.master_keys.put(Register.NEW, master_key)
    return replace(adapter, info=replace(adapter.info, new=RegisterState(Fill.PARTIAL)))


def load_random(adapter: Adapter) -> Adapter:
    """Fill NEW, which is empty, with a random master key that nobody knows.

    Raises:
        CoprocessorError: NEW is not empty.
    """
    with wiped(make_random(MASTER_KEY_SIZE)) as master_key:
        return load_whole(adapter, master_key)


def load_whole(adapter: Adapter, master_key: bytearray) -> Adapter:
    """Fill NEW, which is empty, with another adapter's master key; the caller wipes it.

    Raises:
        CoprocessorError: NEW is not empty.
        PolicyError: the adapter has that master key already.
    """
    check_has_registers(adapter)
    _check_new_is(adapter, Fill.EMPTY, "for a whole master key")
    return _fill_new(adapter, master_key)


def clear_new(adapter: Adapter) -> Adapter:
    """Empty NEW, whatever it holds."""
    check_has_registers(adapter)
    adapter.master_keys.put(Register.NEW, bytearray(MASTER_KEY_SIZE))
    return replace(adapter, info=replace(adapter.info, new=RegisterState(Fill.EMPTY)))


def commit_new(adapter: Adapter) -> Adapter:
    """Approve the NEW wrapping key of an EP11 adapter: only then keys are re-enciphered to it.

    Raises:
        CoprocessorError: NEW is not full, or is committed already.
        UnsupportedError: no EP11 adapter.
    """
    check_has_registers(adapter)
    if adapter.info.mode != MODE_EP11:
        raise UnsupportedError(
            f"adapter {adapter.info.apqn}: a {adapter.info.type} commits nothing; wanted: EP11 mode"
        )
    _check_new_is(adapter, Fill.UNCOMMITTED, "to be committed")
    state = RegisterState(Fill.COMMITTED, adapter.info.new.mkvp)
    return replace(adapter, info=replace(adapter.info, new=state))


def leave_imprint(adapter: Adapter) -> Adapter:
    """Take an EP11 adapter into use, so that it may have wrapping keys.

    Raises:
        CoprocessorError: it is in use already.
        UnsupportedError: no EP11 adapter.
    """
    info = adapter.info
    _check_virtual_ep11(adapter)
    if not info.is_imprint:
        raise CoprocessorError(f"adapter {info.apqn}: has left imprint mode already")
    return replace(adapter, info=replace(info, is_imprint=False))


def change_control_points(
    adapter: Adapter, turn_on: Collection[ControlPoint], turn_off: Collection[ControlPoint]
) -> Adapter:
    """Let an EP11 adapter do more with keys, or less.

    Raises:
        UnsupportedError: no virtual EP11 adapter.
        ConfigError: a control point is to be turned on and off.
        CoprocessorError: those that are on do not allow it.
    """
    info = adapter.info
    _check_virtual_ep11(adapter)
    where = f"adapter {info.apqn}"
    points = control_points.change(info.control_points, turn_on, turn_off, where)
    return replace(adapter, info=replace(info, control_points=points))


def set_new(adapter: Adapter) -> Adapter:
    """Make NEW the CURRENT master key, CURRENT the OLD one; what was OLD is gone.

    EP11 has no OLD: what was CURRENT is gone.

    Raises:
        CoprocessorError: NEW is not full, or of EP11 not committed.
    """
    check_has_registers(adapter)
    has_old = adapter.info.mode == MODE_CCA
    _check_new_is(adapter, Fill.FULL if has_old else Fill.COMMITTED, "to be set")
    keys, info = adapter.master_keys, adapter.info
    with wiped(keys.copy(Register.CURRENT)) as current, wiped(keys.copy(Register.NEW)) as new:
        if has_old:
            keys.put(Register.OLD, current)
        keys.put(Register.CURRENT, new)
    keys.put(Register.NEW, bytearray(MASTER_KEY_SIZE))
    states = replace(
        info,
        old=info.current if has_old else info.old,
        current=RegisterState(Fill.VALID, info.new.mkvp),
        new=RegisterState(Fill.EMPTY),
    )
    return replace(adapter, info=states)


def check_has_registers(adapter: Adapter) -> None:
    """That the adapter is of a kind that has master keys which can be put into it.

    Raises:
        CoprocessorError: it is an accelerator, or in imprint mode.
        UnsupportedError: an adapter of the machine.
    """
    if adapter.driver == PKEY_DRIVER:
        raise UnsupportedError(
            f"adapter {adapter.info.apqn}: the machine's own: its master keys are loaded with "
            "panel.exe or a Trusted Key Entry workstation"
        )
    if adapter.info.mode not in (MODE_CCA, MODE_EP11, MODE_PKCS11):
        raise CoprocessorError(f"adapter {adapter.info.apqn}: an accelerator has no master keys")
    if adapter.info.is_imprint:
        raise CoprocessorError(
            f"adapter {adapter.info.apqn}: is in imprint mode, without wrapping keys; "
            "'fusecrypt adapter leave-imprint' ends it"
        )


def _check_virtual_ep11(adapter: Adapter) -> None:
    if adapter.info.mode != MODE_EP11 or adapter.driver == PKEY_DRIVER:
        raise UnsupportedError(f"adapter {adapter.info.apqn}: no virtual adapter in EP11 mode")


def _check_new_is(adapter: Adapter, wanted: Fill, purpose: str) -> None:
    state = adapter.info.new.state
    if state is not wanted:
        hint = (
            "; 'fusecrypt adapter master-key clear-new' empties it" if wanted is Fill.EMPTY else ""
        )
        raise CoprocessorError(
            f"adapter {adapter.info.apqn}: NEW is {state}, wanted {wanted} {purpose}{hint}"
        )


def _fill_new(adapter: Adapter, master_key: bytearray) -> Adapter:
    apqn = adapter.info.apqn
    if _is_uniform(master_key):
        raise PolicyError(f"adapter {apqn}: the parts make a weak master key, all bytes the same")
    mkvp = make_master_key_pattern(adapter.info.mode, master_key)
    for register in (Register.CURRENT, Register.OLD):
        if adapter.info.get_register(register).mkvp == mkvp:
            raise PolicyError(
                f"adapter {apqn}: the NEW master key would be its {register} one, MKVP {mkvp.hex()}"
            )
    adapter.master_keys.put(Register.NEW, master_key)
    fill = Fill.UNCOMMITTED if adapter.info.mode == MODE_EP11 else Fill.FULL
    return replace(adapter, info=replace(adapter.info, new=RegisterState(fill, mkvp)))


def _is_uniform(content: bytearray) -> bool:
    return content.count(content[:1]) == len(content)
