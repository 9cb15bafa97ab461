"""Master keys and the keys under them inside a PKCS#11 token; no clear key leaves it.

Which register a master key is in stands in its label, so that all machines that use the token see
the same. Source of the pattern: keystore/verification.py; IEEE 1619, section 5.2 (XTS).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error

from .. import aeskw
from ..clear_bytes import make_random, wiped
from ..coprocessor import Fill, Register, RegisterState
from ..errors import CoprocessorError, FormatError
from ..key_type import MKVP_SIZE
from ..keys import SecureKey
from ..pkcs11_token import CHECK_SIZE, IV_SIZE, Pkcs11Token, Wrapping
from ..transport import RSA_SIZE, pack_rsa
from .pkcs11_abilities import (
    EXTRACTABLE,
    MECHANISMS,
    OAEP,
    SUBJECT,
    Hash,
    make_check,
    new_key,
    public_key,
    unwrapped,
)
from .pkcs11_module import OpenToken
from .pkcs11_objects import TokenKey, destroyed, get_bytes

MASTER_KEY_BITS: Final = 256
_LABEL: Final = "fusecrypt AES master key {}"
_MASTER: Final = MechanismFlag.ENCRYPT | MechanismFlag.WRAP | MechanismFlag.UNWRAP
_NOTHING: Final = {
    Register.NEW: Fill.EMPTY,
    Register.CURRENT: Fill.INVALID,
    Register.OLD: Fill.INVALID,
}
_IMPORT_BITS: Final = 2048
_HASHES: Final = {Hash.SHA1: SHA1, Hash.SHA256: SHA256}
#: RFC 3394, section 2.2.3.1; RFC 5649, section 3, of 16, 24 and 32 bytes: with the length.
_KEY_WRAP_IV: Final = bytes.fromhex("a6a6a6a6a6a6a6a6")
_KEY_WRAP_PAD_IV: Final = bytes.fromhex("a65959a6")
_XTS_POLYNOMIAL: Final = 0x87


def find_master_key(token: OpenToken, register: Register) -> TokenKey | None:
    """The master key of a register.

    Raises:
        CoprocessorError: there are two, or it could be taken out of the token.
    """
    label = _LABEL.format(register)
    found = list(
        token.session.get_objects(
            {
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.KEY_TYPE: KeyType.AES,
                Attribute.LABEL: label,
            }
        )
    )
    if len(found) > 1:
        raise CoprocessorError(f"{token.where}: {len(found)} objects are called {label!r}")
    if not found:
        return None
    key = cast("TokenKey", found[0])
    if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
        raise CoprocessorError(
            f"{token.where}: {label!r} can be read or taken out; wanted: sensitive, not extractable"
        )
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
        capabilities=_MASTER,
        template={
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.MODIFIABLE: True,
        },
    )
    key = cast("TokenKey", made)
    if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
        key.destroy()
        raise CoprocessorError(f"{token.where}: makes master keys that can be taken out of it")
    key[Attribute.ID] = make_mkvp(key)


def clear_new(token: OpenToken) -> None:
    """Destroy the master key in NEW, if there is one."""
    key = find_master_key(token, Register.NEW)
    if key is not None:
        key.destroy()


def set_new(token: OpenToken) -> None:
    """NEW becomes CURRENT, CURRENT becomes OLD, OLD is destroyed.

    Cut short at any point, it goes on where it stopped when it is called again: without CURRENT
    there is no key to become OLD.

    Raises:
        CoprocessorError: there is no NEW master key.
    """
    new = find_master_key(token, Register.NEW)
    current = find_master_key(token, Register.CURRENT)
    if new is None:
        raise CoprocessorError(f"{token.where}: NEW is empty, wanted full to be set")
    if current is not None:
        old = find_master_key(token, Register.OLD)
        if old is not None:
            old.destroy()
        current[Attribute.LABEL] = _LABEL.format(Register.OLD)
    new[Attribute.LABEL] = _LABEL.format(Register.CURRENT)


def generate(token: OpenToken, bits: int, *, is_xts: bool) -> SecureKey:
    """A random key under CURRENT."""
    with ExitStack() as stack:
        halves: list[Pkcs11Token] = []
        while len(halves) < (2 if is_xts else 1):
            key = stack.enter_context(new_key(token.session, bits, SUBJECT, EXTRACTABLE))
            half = _wrap(token, Register.CURRENT, key, bits)
            if not halves or half.check != halves[0].check:
                halves.append(half)
    return _join(halves)


def import_clear(token: OpenToken, clear: bytearray, *, is_xts: bool) -> SecureKey:
    """The caller's key under CURRENT; the caller wipes it.

    It goes into the token under a key made for this, and that to a key pair of the token: so the
    clear key meets none of the buffers of what lies between, which nobody wipes.
    """
    abilities = token.abilities
    if not abilities.can_import or abilities.oaep is None or abilities.wrapping is None:
        raise CoprocessorError(f"{token.where}: {'; '.join(abilities.limits)}")
    count = 2 if is_xts else 1
    size = len(clear) // count
    with _carrier(token, abilities.oaep) as (carrier, secret):
        halves: list[Pkcs11Token] = []
        for i in range(count):
            with wiped(clear[i * size : (i + 1) * size]) as part:
                iv = os.urandom(IV_SIZE)
                wrapped = _wrap_clear(part, secret, abilities.wrapping, iv)
            with unwrapped(carrier, abilities.wrapping, wrapped, iv, abilities.template) as key:
                halves.append(_wrap(token, Register.CURRENT, key, size * 8))
    return _join(halves)


def reencipher(
    token: OpenToken, secure_key: SecureKey, source: Register, target: Register
) -> SecureKey:
    """The same key under another master key."""
    halves: list[Pkcs11Token] = []
    for half in _get_halves(secure_key):
        with opened(token, half, source) as key:
            halves.append(_wrap(token, target, key, half.clear_bits))
    return _join(halves)


def make_pattern(token: OpenToken, secure_key: SecureKey, register: Register) -> str:
    """The verification pattern of the effective key, computed by the token."""
    halves = _get_halves(secure_key)
    with ExitStack() as stack:
        keys = [stack.enter_context(opened(token, half, register)) for half in halves]
        if len(keys) == 1:
            first = make_check(keys[0])
            return (first + _encrypt(keys[0], first)).hex()  # CBC of zeros, without an IV
        tweak = make_check(keys[1])
        blocks = b""
        for _ in range(2):
            blocks += _xor(_encrypt(keys[0], tweak), tweak)
            tweak = _double(tweak)
        return blocks.hex()


def to_engine(token: OpenToken, secure_key: SecureKey, register: Register, modulus: bytes) -> bytes:
    """A transport blob of kind 2: the key leaves the token only for the engine with this modulus.

    Raises:
        CoprocessorError: the token cannot.
    """
    number = token.abilities.oaep
    if number is None:
        raise CoprocessorError(f"{token.where}: {'; '.join(token.abilities.limits)}")
    assert len(modulus) == RSA_SIZE
    ciphertexts: list[bytes] = []
    with public_key(token.session, modulus) as engine:
        for half in _get_halves(secure_key):
            with opened(token, half, register) as key:
                ciphertexts.append(
                    bytes(
                        engine.wrap_key(
                            key, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=OAEP[number]
                        )
                    )
                )
    return pack_rsa(number, ciphertexts)


def read_clear(token: OpenToken, secure_key: SecureKey, register: Register) -> bytearray:
    """The effective key itself, for a token that cannot give it to an engine; the caller wipes it.

    Copies stay behind in buffers of this process that nobody wipes.

    Raises:
        FormatError: as `opened`.
    """
    clear = bytearray()
    template = {**token.abilities.template, Attribute.SENSITIVE: False}
    for half in _get_halves(secure_key):
        with opened(token, half, register):  # that it is the key that was wrapped
            pass
        key = _get_master_key(token, register).unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.AES,
            half.wrapped,
            mechanism=MECHANISMS[half.wrapping],
            mechanism_param=half.iv if half.wrapping is Wrapping.CBC_PAD else None,
            store=False,
            capabilities=SUBJECT,
            template=template,
        )
        with destroyed(key):
            clear += get_bytes(key, Attribute.VALUE)
    return clear


@contextmanager
def opened(
    token: OpenToken, half: Pkcs11Token, register: Register
) -> Generator[TokenKey, None, None]:
    """A key of a secure key inside the token, for the length of a block.

    Raises:
        FormatError: the token says that it was altered, or its check value does.
    """
    master = _get_master_key(token, register)
    with ExitStack() as stack:
        try:
            key = stack.enter_context(
                unwrapped(master, half.wrapping, half.wrapped, half.iv, token.abilities.template)
            )
            check = make_check(key)[:CHECK_SIZE]
        except PKCS11Error as error:
            make_mkvp(master)  # raises if it is the token that is gone
            raise FormatError(
                f"secure key: altered, or {token.where} cannot unwrap it: {type(error).__name__}"
            ) from None
        if check != half.check:
            raise FormatError("secure key: altered, its check value is not the key's")
        yield key


def _get_master_key(token: OpenToken, register: Register) -> TokenKey:
    key = find_master_key(token, register)
    if key is None:
        raise CoprocessorError(f"{token.where}: no {register} master key")
    return key


def _get_halves(secure_key: SecureKey) -> list[Pkcs11Token]:
    return [half for half in secure_key.halves if isinstance(half, Pkcs11Token)]


def _wrap(token: OpenToken, register: Register, key: TokenKey, bits: int) -> Pkcs11Token:
    wrapping = token.abilities.wrapping
    if wrapping is None:
        raise CoprocessorError(f"{token.where}: {'; '.join(token.abilities.limits)}")
    master = _get_master_key(token, register)
    iv = os.urandom(IV_SIZE) if wrapping is Wrapping.CBC_PAD else bytes(IV_SIZE)
    wrapped = master.wrap_key(
        key,
        mechanism=MECHANISMS[wrapping],
        mechanism_param=iv if wrapping is Wrapping.CBC_PAD else None,
    )
    return Pkcs11Token(
        mkvp=make_mkvp(master),
        wrapping=wrapping,
        clear_bits=bits,
        wrapped=bytes(wrapped),
        check=make_check(key)[:CHECK_SIZE],
        iv=iv,
    )


def _join(halves: Sequence[Pkcs11Token]) -> SecureKey:
    return SecureKey(b"".join(half.pack() for half in halves))


@contextmanager
def _carrier(token: OpenToken, number: Hash) -> Generator[tuple[TokenKey, bytearray], None, None]:
    """An AES key that the token and we have, for the length of a block."""
    pair = token.session.generate_keypair(
        KeyType.RSA,
        _IMPORT_BITS,
        store=False,
        capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
    )
    public, private = cast("TokenKey", pair[0]), cast("TokenKey", pair[1])
    with destroyed(public), destroyed(private), wiped(make_random(32)) as secret:
        modulus = int.from_bytes(get_bytes(public, Attribute.MODULUS), "big")
        algorithm = _HASHES[number]()
        wrapped = (
            rsa.RSAPublicNumbers(65537, modulus)
            .public_key()
            .encrypt(bytes(secret), padding.OAEP(padding.MGF1(algorithm), algorithm, None))
        )
        key = private.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.AES,
            wrapped,
            mechanism=Mechanism.RSA_PKCS_OAEP,
            mechanism_param=OAEP[number],
            store=False,
            capabilities=MechanismFlag.UNWRAP,
            template={Attribute.SENSITIVE: True},
        )
        with destroyed(key):
            yield key, secret


def _wrap_clear(part: bytearray, secret: bytearray, wrapping: Wrapping, iv: bytes) -> bytes:
    """A clear key as the token unwraps it with the key ``secret``."""
    if wrapping is Wrapping.CBC_PAD:
        size = wrapping.get_size(len(part))
        with (
            wiped(bytearray([size - len(part)] * size)) as padded,
            wiped(bytearray(size + 15)) as out,
        ):
            padded[: len(part)] = part
            Cipher(algorithms.AES(secret), modes.CBC(iv)).encryptor().update_into(padded, out)
            return bytes(out[:size])
    head = _KEY_WRAP_IV
    if wrapping is Wrapping.KEY_WRAP_PAD:
        head = _KEY_WRAP_PAD_IV + len(part).to_bytes(4, "big")
    with wiped(bytearray(len(head) + len(part))) as data:
        data[: len(head)] = head
        data[len(head) :] = part
        aeskw.wrap_semiblocks(data, secret)
        return bytes(data)


def _encrypt(key: TokenKey, block: bytes) -> bytes:
    return bytes(key.encrypt(block, mechanism=Mechanism.AES_ECB))


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _double(tweak: bytes) -> bytes:
    number = int.from_bytes(tweak, "little") << 1
    if number >> 128:
        number = number & ((1 << 128) - 1) ^ _XTS_POLYNOMIAL
    return number.to_bytes(16, "little")
