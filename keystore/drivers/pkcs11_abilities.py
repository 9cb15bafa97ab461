"""What a PKCS#11 token can do for us: found out at each login, by trying it with throwaway keys."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, cast

from pkcs11 import MGF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error

from ..errors import CoprocessorError
from ..pkcs11_token import IV_SIZE, Wrapping
from .pkcs11_objects import Template, TokenKey, destroyed, is_kept

if TYPE_CHECKING:
    from pkcs11 import Session

#: In the order of preference.
MECHANISMS: Final = {
    Wrapping.KEY_WRAP: Mechanism.AES_KEY_WRAP,
    Wrapping.KEY_WRAP_PAD: Mechanism.AES_KEY_WRAP_PAD,
    Wrapping.CBC_PAD: Mechanism.AES_CBC_PAD,
}
EXPONENT: Final = bytes([1, 0, 1])
#: RSA-2048 of the RSA Factoring Challenge, whose private key nobody has: to wrap throwaway keys to.
_TRIAL_MODULUS: Final = bytes.fromhex(
    "c7970ceedcc3b0754490201a7aa613cd73911081c790f5f1a8726f463550bb5b"
    "7ff0db8e1ea1189ec72f93d1650011bd721aeeacc2acde32a04107f0648c2813"
    "a31f5b0b7765ff8b44b4b6ffc93384b646eb09c7cf5e8592d40ea33c80039f35"
    "b4f14a04b51f7bfd781be4d1673164ba8eb991c2c4d730bbbe35f592bdef524a"
    "f7e8daefd26c66fc02c479af89d64d373f442709439de66ceb955f3ea37d5159"
    "f6135809f85334b5cb1813addc80cd05609f10ac6a95ad65872c909525bdad32"
    "bc729592642920f24c61dc5b3c3b7923e56b16a4d9d373d8721f24a3fc0f1b31"
    "31f55615172866bccc30f95054c824e733a5eb6817f7bc16399d48c6361cc7e5"
)

#: A key that comes out of a wrapped one. Some tokens do not take the second attribute, since what
#: they unwrap can be wrapped again anyway, and do not care for the first until the key is there.
UNWRAPPED: Final[Template] = {Attribute.SENSITIVE: True, Attribute.PRIVATE: True}
EXTRACTABLE: Final[Template] = {Attribute.EXTRACTABLE: True}
_KEPT: Final = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}
#: What a master key can do: be measured, and wrap and unwrap others; not decipher.
MASTER: Final = MechanismFlag.ENCRYPT | MechanismFlag.WRAP | MechanismFlag.UNWRAP
#: What a key can do that only gets its check value made, and is wrapped.
SUBJECT: Final = MechanismFlag.ENCRYPT


class Hash(IntEnum):
    """The hash of RSA-OAEP, by its number in a transport blob of kind 2."""

    SHA1 = 1
    SHA256 = 2


OAEP: Final = {
    Hash.SHA256: (Mechanism.SHA256, MGF.SHA256, None),
    Hash.SHA1: (Mechanism.SHA_1, MGF.SHA1, None),
}


@dataclass(frozen=True, slots=True)
class Abilities:
    """What was found."""

    wrapping: Wrapping | None  # how master keys wrap and unwrap
    template: Template  # of what is unwrapped
    oaep: Hash | None  # how keys are wrapped for an engine
    can_import: bool  # a clear key, enciphered to a key pair of the token
    can_keep: bool  # a master key that was made elsewhere, so that it does not leave any more

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do, and what that means."""
        found: list[str] = []
        if self.wrapping is None:
            found.append("no AES key wrap and no AES-CBC-PAD that unwraps: it serves no keys")
        elif self.wrapping is Wrapping.CBC_PAD:
            found.append("no AES key wrap: AES-CBC-PAD is used, and a check value of each key")
        if self.oaep is None:
            found.append(
                "no RSA-OAEP wrap: no key gets from it into an engine without "
                "--allow-clear-in-keystored"
            )
        elif self.oaep is Hash.SHA1:
            found.append("no RSA-OAEP with SHA-256: SHA-1 is used, which OAEP is secure with")
        if not self.can_import:
            found.append(
                "no RSA key pair that unwraps: no clear key can be imported, no master key loaded"
            )
        elif not self.can_keep:
            found.append("what it unwraps can be taken out again: no master key can be loaded")
        return tuple(found)


def find_abilities(session: Session) -> Abilities:
    """What the token behind a session can do."""
    with (
        new_key(session, 256, MASTER) as master,
        new_key(session, 256, SUBJECT, EXTRACTABLE) as subject,
    ):
        wrapping, template = _find_wrapping(master, subject)
        return Abilities(
            wrapping,
            template,
            _find_oaep(session, subject),
            _can_import(session),
            wrapping is not None and _can_keep(master, wrapping, subject),
        )


@contextmanager
def new_key(
    session: Session,
    bits: int,
    capabilities: MechanismFlag,
    template: Template | None = None,
) -> Generator[TokenKey, None, None]:
    """A random AES key for the length of a block; it cannot be read, and is on no disk."""
    key = session.generate_key(
        KeyType.AES,
        bits,
        store=False,
        capabilities=capabilities,
        template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, **(template or {})},
    )
    with destroyed(cast("TokenKey", key)) as made:
        yield made


@contextmanager
def unwrapped(
    master: TokenKey, wrapping: Wrapping, wrapped: bytes, iv: bytes, template: Template
) -> Generator[TokenKey, None, None]:
    """The key inside, for the length of a block; it cannot be read.

    Raises:
        CoprocessorError: the token would let it be read.
    """
    key = master.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.AES,
        wrapped,
        mechanism=MECHANISMS[wrapping],
        mechanism_param=iv if wrapping is Wrapping.CBC_PAD else None,
        store=False,
        capabilities=SUBJECT,
        template=template,
    )
    with destroyed(key):
        if not key[Attribute.SENSITIVE]:
            key[Attribute.SENSITIVE] = True
            if not key[Attribute.SENSITIVE]:
                raise CoprocessorError("PKCS#11 token: lets unwrapped keys be read")
        yield key


def unwrap_for_good(
    carrier: TokenKey, wrapping: Wrapping, wrapped: bytes, iv: bytes, template: Template
) -> TokenKey:
    """The key inside as a master key, which from now on does not leave the token.

    Raises:
        PKCS11Error: the token refuses.
        CoprocessorError: the token would let it leave.
    """
    try:
        key = _unwrap_master(carrier, wrapping, wrapped, iv, {**template, **_KEPT})
    except PKCS11Error:  # see EXTRACTABLE
        key = _unwrap_master(carrier, wrapping, wrapped, iv, template)
    with ExitStack() as failed:
        failed.callback(key.destroy)
        for attribute, wanted in _KEPT.items():
            if bool(key[attribute]) is not wanted:
                key[attribute] = wanted
        if not is_kept(key):
            raise CoprocessorError("PKCS#11 token: lets unwrapped keys be taken out")
        failed.pop_all()
    return key


def make_check(key: TokenKey) -> bytes:
    """AES of 16 zero bytes under the key."""
    return bytes(key.encrypt(bytes(16), mechanism=Mechanism.AES_ECB))


@contextmanager
def public_key(session: Session, modulus: bytes) -> Generator[TokenKey, None, None]:
    """An RSA public key in the token for the length of a block."""
    key = session.create_object(
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: KeyType.RSA,
            Attribute.TOKEN: False,
            Attribute.WRAP: True,
            Attribute.MODULUS: modulus,
            Attribute.PUBLIC_EXPONENT: EXPONENT,
        }
    )
    with destroyed(cast("TokenKey", key)) as made:
        yield made


def _find_wrapping(master: TokenKey, subject: TokenKey) -> tuple[Wrapping | None, Template]:
    check, iv = make_check(subject), bytes(IV_SIZE)
    for wrapping, mechanism in MECHANISMS.items():
        param = iv if wrapping is Wrapping.CBC_PAD else None
        try:
            wrapped = master.wrap_key(subject, mechanism=mechanism, mechanism_param=param)
        except PKCS11Error:
            continue
        for template in ({**UNWRAPPED, **EXTRACTABLE}, UNWRAPPED):
            try:
                with unwrapped(master, wrapping, bytes(wrapped), iv, template) as key:
                    if make_check(key) == check:
                        return wrapping, template
            except PKCS11Error:
                continue
    return None, UNWRAPPED


def _unwrap_master(
    carrier: TokenKey, wrapping: Wrapping, wrapped: bytes, iv: bytes, template: Template
) -> TokenKey:
    return carrier.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.AES,
        wrapped,
        mechanism=MECHANISMS[wrapping],
        mechanism_param=iv if wrapping is Wrapping.CBC_PAD else None,
        store=False,
        capabilities=MASTER,
        template={Attribute.PRIVATE: True, **template},
    )


def _can_keep(master: TokenKey, wrapping: Wrapping, subject: TokenKey) -> bool:
    iv = bytes(IV_SIZE)
    param = iv if wrapping is Wrapping.CBC_PAD else None
    try:
        wrapped = master.wrap_key(subject, mechanism=MECHANISMS[wrapping], mechanism_param=param)
        unwrap_for_good(master, wrapping, bytes(wrapped), iv, {}).destroy()
    except (PKCS11Error, CoprocessorError):
        return False
    return True


def _find_oaep(session: Session, subject: TokenKey) -> Hash | None:
    try:
        with public_key(session, _TRIAL_MODULUS) as key:
            for number, param in OAEP.items():
                try:
                    key.wrap_key(subject, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=param)
                except PKCS11Error:
                    continue
                return number
    except PKCS11Error:
        pass
    return None


def _can_import(session: Session) -> bool:
    slot = session.token.slot
    try:
        makes = slot.get_mechanism_info(Mechanism.RSA_PKCS_KEY_PAIR_GEN).flags
        takes = slot.get_mechanism_info(Mechanism.RSA_PKCS_OAEP).flags
    except PKCS11Error:
        return False
    return bool(makes & MechanismFlag.GENERATE_KEY_PAIR and takes & MechanismFlag.UNWRAP)
