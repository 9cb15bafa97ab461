"""How clear bytes get into a PKCS#11 token: enciphered to a key pair that it makes for this.

So they meet none of the buffers of what lies between, which nobody wipes.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from .. import aeskw
from ..clear_bytes import make_random, wiped
from ..errors import CoprocessorError
from ..pkcs11_token import IV_SIZE, Wrapping
from .pkcs11_abilities import OAEP, Hash
from .pkcs11_module import OpenToken
from .pkcs11_objects import TokenKey, destroyed, get_bytes

_CARRIER_BITS: Final = 2048
_HASHES: Final = {Hash.SHA1: SHA1, Hash.SHA256: SHA256}
#: RFC 3394, section 2.2.3.1; RFC 5649, section 3, of 16, 24 and 32 bytes: with the length.
_KEY_WRAP_IV: Final = bytes.fromhex("a6a6a6a6a6a6a6a6")
_KEY_WRAP_PAD_IV: Final = bytes.fromhex("a65959a6")


@dataclass(frozen=True, slots=True)
class Carrier:
    """An AES key that the token has and this process, too."""

    key: TokenKey
    wrapping: Wrapping  # how the token unwraps with it
    secret: bytearray = field(repr=False)

    def wrap(self, clear: bytearray) -> tuple[bytes, bytes]:
        """The clear bytes as the token unwraps them, and the IV."""
        iv = os.urandom(IV_SIZE)
        return _wrap(clear, self.secret, self.wrapping, iv), iv


@contextmanager
def carrier(token: OpenToken) -> Generator[Carrier, None, None]:
    """What carries clear bytes into the token, for the length of a block.

    Raises:
        CoprocessorError: the token has no way for that.
    """
    abilities = token.abilities
    number, wrapping = abilities.oaep, abilities.wrapping
    if not abilities.can_import or number is None or wrapping is None:
        raise CoprocessorError(f"{token.where}: {'; '.join(abilities.limits)}")
    pair = token.session.generate_keypair(
        KeyType.RSA,
        _CARRIER_BITS,
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
            yield Carrier(key, wrapping, secret)


def _wrap(clear: bytearray, secret: bytearray, wrapping: Wrapping, iv: bytes) -> bytes:
    if wrapping is Wrapping.CBC_PAD:
        size = wrapping.get_size(len(clear))
        with (
            wiped(bytearray([size - len(clear)] * size)) as padded,
            wiped(bytearray(size + 15)) as out,
        ):
            padded[: len(clear)] = clear
            Cipher(algorithms.AES(secret), modes.CBC(iv)).encryptor().update_into(padded, out)
            return bytes(out[:size])
    head = _KEY_WRAP_IV
    if wrapping is Wrapping.KEY_WRAP_PAD:
        head = _KEY_WRAP_PAD_IV + len(clear).to_bytes(4, "big")
    with wiped(bytearray(len(head) + len(clear))) as data:
        data[: len(head)] = head
        data[len(head) :] = clear
        aeskw.wrap_semiblocks(data, secret)
        return bytes(data)
