"""Keys under the master keys of a PKCS#11 token, and what is done to them inside it.

No clear key leaves the token. Source of the pattern: keystore/verification.py; IEEE 1619, section
5.2 (XTS).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.exceptions import PKCS11Error

from ..clear_bytes import wiped
from ..coprocessor import Register
from ..errors import CoprocessorError, FormatError
from ..keys import SecureKey
from ..pkcs11_token import CHECK_SIZE, IV_SIZE, Pkcs11Token, Wrapping
from ..transport import RSA_SIZE, pack_rsa
from .pkcs11_abilities import (
    EXTRACTABLE,
    MECHANISMS,
    OAEP,
    SUBJECT,
    make_check,
    new_key,
    public_key,
    unwrapped,
)
from .pkcs11_import import carrier
from .pkcs11_module import OpenToken
from .pkcs11_objects import TokenKey, destroyed, get_bytes
from .pkcs11_registers import get_master_key, make_mkvp

_XTS_POLYNOMIAL: Final = 0x87


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

    Raises:
        CoprocessorError: the token takes no clear keys.
    """
    count = 2 if is_xts else 1
    size = len(clear) // count
    template = token.abilities.template
    with carrier(token) as carrying:
        halves: list[Pkcs11Token] = []
        for i in range(count):
            with wiped(clear[i * size : (i + 1) * size]) as part:
                wrapped, iv = carrying.wrap(part)
            with unwrapped(carrying.key, carrying.wrapping, wrapped, iv, template) as key:
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
        key = get_master_key(token, register).unwrap_key(
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
    master = get_master_key(token, register)
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


def _get_halves(secure_key: SecureKey) -> list[Pkcs11Token]:
    return [half for half in secure_key.halves if isinstance(half, Pkcs11Token)]


def _wrap(token: OpenToken, register: Register, key: TokenKey, bits: int) -> Pkcs11Token:
    wrapping = token.abilities.wrapping
    if wrapping is None:
        raise CoprocessorError(f"{token.where}: {'; '.join(token.abilities.limits)}")
    master = get_master_key(token, register)
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


def _encrypt(key: TokenKey, block: bytes) -> bytes:
    return bytes(key.encrypt(block, mechanism=Mechanism.AES_ECB))


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def _double(tweak: bytes) -> bytes:
    number = int.from_bytes(tweak, "little") << 1
    if number >> 128:
        number = number & ((1 << 128) - 1) ^ _XTS_POLYNOMIAL
    return number.to_bytes(16, "little")
