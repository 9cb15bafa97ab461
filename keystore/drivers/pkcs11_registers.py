"""The master-key registers of a PKCS#11 token: labels of AES keys that never leave it.

Since the register stands in the label, all machines that use the token see the same.
"""

from __future__ import annotations

from typing import Final, cast

from pkcs11 import Attribute, KeyType, ObjectClass

from ..coprocessor import Fill, Register, RegisterState
from ..errors import CoprocessorError
from ..key_type import MKVP_SIZE
from .pkcs11_abilities import MASTER, make_check, unwrap_for_good
from .pkcs11_import import carrier
from .pkcs11_module import OpenToken
from .pkcs11_objects import TokenKey, is_kept

MASTER_KEY_BITS: Final = 256
_LABEL: Final = "fusecrypt AES master key {}"
#: Until it is known that what was loaded stays in the token; a crash may leave one behind.
_ARRIVING: Final = _LABEL.format("arriving")
_NOTHING: Final = {
    Register.NEW: Fill.EMPTY,
    Register.CURRENT: Fill.INVALID,
    Register.OLD: Fill.INVALID,
}


def find_master_key(token: OpenToken, register: Register) -> TokenKey | None:
    """The master key of a register.

    Raises:
        CoprocessorError: there are two, or it could be taken out of the token.
    """
    label = _LABEL.format(register)
    found = _find(token, label)
    if len(found) > 1:
        raise CoprocessorError(f"{token.where}: {len(found)} objects are called {label!r}")
    if not found:
        return None
    if not is_kept(found[0]):
        raise CoprocessorError(
            f"{token.where}: {label!r} can be read or taken out; wanted: sensitive, not extractable"
        )
    return found[0]


def get_master_key(token: OpenToken, register: Register) -> TokenKey:
    """The same, where there must be one.

    Raises:
        CoprocessorError: there is none, or as `find_master_key`.
    """
    key = find_master_key(token, register)
    if key is None:
        raise CoprocessorError(f"{token.where}: no {register} master key")
    return key


def make_mkvp(key: TokenKey) -> bytes:
    """The 8 bytes by which a master key is told from others: its check value, but longer."""
    return make_check(key)[:MKVP_SIZE]


def read_registers(token: OpenToken) -> dict[Register, RegisterState]:
    """What the registers hold."""
    states: dict[Register, RegisterState] = {}
    for register, nothing in _NOTHING.items():
        key = find_master_key(token, register)
        full = Fill.FULL if register is Register.NEW else Fill.VALID
        states[register] = (
            RegisterState(nothing) if key is None else RegisterState(full, make_mkvp(key))
        )
    return states


def make_master_key(token: OpenToken, register: Register) -> None:
    """A random master key in an empty register; nobody knows it, and it never leaves the token.

    Raises:
        CoprocessorError: the token would let it leave.
    """
    made = token.session.generate_key(
        KeyType.AES,
        MASTER_KEY_BITS,
        label=_LABEL.format(register),
        store=True,
        capabilities=MASTER,
        template={
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.MODIFIABLE: True,
        },
    )
    key = cast("TokenKey", made)
    if not is_kept(key):
        key.destroy()
        raise CoprocessorError(f"{token.where}: makes master keys that can be taken out of it")
    key[Attribute.ID] = make_mkvp(key)


def load_new(token: OpenToken, master_key: bytearray, mkvp: bytes) -> None:
    """Somebody's master key in NEW, which is empty; it does not leave the token any more.

    The caller wipes it.

    Raises:
        CoprocessorError: the token has no way for that, would let it leave, or made another of it.
    """
    if not token.abilities.can_keep:
        raise CoprocessorError(f"{token.where}: {'; '.join(token.abilities.limits)}")
    _forget_arriving(token)
    with carrier(token) as carrying:
        wrapped, iv = carrying.wrap(master_key)
        key = unwrap_for_good(
            carrying.key,
            carrying.wrapping,
            wrapped,
            iv,
            {Attribute.TOKEN: True, Attribute.LABEL: _ARRIVING, Attribute.MODIFIABLE: True},
        )
    if make_mkvp(key) != mkvp:
        key.destroy()
        raise CoprocessorError(f"{token.where}: the master key did not arrive as it was sent")
    key[Attribute.ID] = mkvp
    key[Attribute.LABEL] = _LABEL.format(Register.NEW)


def clear_new(token: OpenToken) -> None:
    """Destroy what is in NEW, even what must not be used as a master key."""
    _forget_arriving(token)
    for key in _find(token, _LABEL.format(Register.NEW)):
        key.destroy()


def set_new(token: OpenToken) -> None:
    """NEW becomes CURRENT, CURRENT becomes OLD, OLD is destroyed.

    Cut short at any point, it goes on where it stopped when it is called again: without CURRENT
    there is no key to become OLD.

    Raises:
        CoprocessorError: there is no NEW master key.
    """
    new = get_master_key(token, Register.NEW)
    current = find_master_key(token, Register.CURRENT)
    if current is not None:
        old = find_master_key(token, Register.OLD)
        if old is not None:
            old.destroy()
        current[Attribute.LABEL] = _LABEL.format(Register.OLD)
    new[Attribute.LABEL] = _LABEL.format(Register.CURRENT)


def _find(token: OpenToken, label: str) -> list[TokenKey]:
    found = token.session.get_objects(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.LABEL: label,
        }
    )
    return [cast("TokenKey", key) for key in found]


def _forget_arriving(token: OpenToken) -> None:
    for key in _find(token, _ARRIVING):
        key.destroy()
