"""What a coprocessor is to its callers: an APQN, master-key registers, what it does with keys."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, Self

from .control_points import ControlPoint
from .errors import (
    ConfigError,
    CoprocessorError,
    MasterKeyChangedError,
    UnsupportedError,
)
from .keys import SecureKey
from .tokens import KeyType

#: The first byte of a blob that was made of a key in clear, not within a token (transport.py).
KIND_X25519: Final = b"\x01"
MODE_CCA: Final = "cca"
MODE_EP11: Final = "ep11"
MODE_ACCEL: Final = "accel"
#: A PKCS#11 token: no card, though it has a number as one.
MODE_PKCS11: Final = "pkcs11"
PKCS11_TYPE: Final = "PKCS11"
#: What drives the adapters of an IBM Z machine.
PKEY_DRIVER: Final = "pkey"
#: Modes of cards and the letters that end a card's type.
MODE_LETTERS: Final = {MODE_CCA: "C", MODE_EP11: "P", MODE_ACCEL: "A"}
#: Where keys of a type are made and used: mode, and the first card that has them.
_KEY_MAKERS: Final = {
    KeyType.CCA_AESDATA: (MODE_CCA, 0),
    KeyType.CCA_AESCIPHER: (MODE_CCA, 6),
    KeyType.EP11_AES: (MODE_EP11, 7),
    KeyType.PKCS11_AES: (MODE_PKCS11, 0),
}
_APQN: Final = re.compile(r"([0-9a-fA-F]{1,2})\.([0-9a-fA-F]{1,4})")


@dataclass(frozen=True, slots=True, order=True)
class Apqn:
    """An adjunct processor queue number: a card and a domain of it."""

    card: int  # 0 to 0xff
    domain: int  # 0 to 0xffff

    @classmethod
    def parse(cls, text: str) -> Self:
        """An APQN as people write it: card and domain in hexadecimal, leading zeros optional.

        Raises:
            ConfigError: not of this form.
        """
        match = _APQN.fullmatch(text)
        if match is None:
            raise ConfigError(f"APQN {text!r}: wanted CARD.DOMAIN in hexadecimal, like 03.0039")
        return cls(int(match[1], 16), int(match[2], 16))

    def __str__(self) -> str:
        return f"{self.card:02x}.{self.domain:04x}"


class Register(StrEnum):
    """The three registers for an AES master key."""

    NEW = "NEW"
    CURRENT = "CURRENT"
    OLD = "OLD"


class Fill(StrEnum):
    """How a register is filled: CURRENT and OLD take the last two values, NEW the others."""

    EMPTY = "empty"
    PARTIAL = "partial"  # some key parts are loaded
    FULL = "full"
    UNCOMMITTED = "uncommitted"  # of EP11: full, and still to be approved
    COMMITTED = "committed"  # of EP11: what FULL is of CCA
    VALID = "valid"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class RegisterState:
    """What may be told of a master-key register."""

    state: Fill
    mkvp: bytes | None = None  # 8 bytes, of EP11 16, when there is a whole master key

    @property
    def is_usable(self) -> bool:
        """The register holds a whole master key, which keys may be wrapped by."""
        return self.mkvp is not None and self.state is not Fill.UNCOMMITTED

    def __str__(self) -> str:
        return self.mkvp.hex() if self.mkvp else "-"


class Status(StrEnum):
    """Whether an adapter can be used, in lszcrypt's words."""

    ONLINE = "online"
    OFFLINE = "offline"
    DECONFIGURED = "deconfig"
    CHECKSTOP = "chkstop"


class SeState(StrEnum):
    """What a domain is to a Secure Execution guest, in the words of lszcrypt's SESTAT."""

    UNBOUND = "unbound"
    BOUND = "bound"  # and not associated with a secret
    USABLE = "usable"  # associated
    ILLICIT = "illicit"  # of a kind that a guest cannot bind


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What may be told of one adapter domain."""

    apqn: Apqn
    serial: str  # of the card: eight capitals and digits
    is_online: bool
    new: RegisterState
    current: RegisterState
    old: RegisterState
    created: str  # UTC, like 2026-01-31T12:00:00Z
    mode: str = MODE_CCA
    type: str = "CEX8C"
    is_configured: bool = True  # the card is given to this machine
    is_checkstopped: bool = False  # the card failed, or is said to have, for a drill
    is_control_only: bool = False  # the domain is administered here, and used elsewhere
    is_imprint: bool = False  # of EP11: not taken into use yet; it has no wrapping keys
    control_points: frozenset[ControlPoint] = frozenset()  # of EP11: those that are on
    se_state: SeState = SeState.ILLICIT
    association: int | None = None  # index of the secret that it is associated with
    session: bytes = b""  # id of the EP11 session that the association makes
    requests: int = field(default=0, compare=False)  # since the start of the process that counts
    driver: str = field(default="soft", compare=False)  # or PKEY_DRIVER: the machine's own
    uri: str = ""  # of a PKCS#11 token
    is_clear_allowed: bool = False  # a token's keys may be clear in this process for a moment
    limits: tuple[str, ...] = field(default=(), compare=False)  # what a token cannot do
    problem: str = field(default="", compare=False)  # why a token cannot be used now

    @property
    def level(self) -> int:
        """The generation of the card: 8 of a CEX8C; 0: a token is no card."""
        return 0 if self.mode == MODE_PKCS11 else int(self.type[3:-1])

    @property
    def status(self) -> Status:
        """The gravest reason why it cannot be used, or that it is online."""
        if self.is_checkstopped:
            return Status.CHECKSTOP
        if not self.is_configured:
            return Status.DECONFIGURED
        return Status.ONLINE if self.is_online and not self.problem else Status.OFFLINE

    @property
    def is_usable(self) -> bool:
        """Keys can be used with it, if it has their master key."""
        has_keys = self.mode != MODE_ACCEL and not self.is_control_only and not self.is_imprint
        is_between = self.se_state is SeState.BOUND
        return has_keys and not is_between and self.status is Status.ONLINE

    def supports(self, key_type: KeyType) -> bool:
        """The card, or token, knows keys of this type."""
        return self.is_kind_for(key_type) and self.level >= _KEY_MAKERS[key_type][1]

    def is_kind_for(self, key_type: KeyType) -> bool:
        """Such an adapter, if it is not too old, knows keys of this type."""
        return self.mode == _KEY_MAKERS[key_type][0]

    def has_session(self, session_id: bytes) -> bool:
        """Keys that are bound to this session can be used here; empty: to none.

        Of the machine's own adapters nobody knows: they are asked.
        """
        return session_id in (b"", self.session) or self.driver == PKEY_DRIVER

    def get_register(self, register: Register) -> RegisterState:
        """The state of one register."""
        return {
            Register.NEW: self.new,
            Register.CURRENT: self.current,
            Register.OLD: self.old,
        }[register]

    def find_register(self, mkvp: bytes) -> Register | None:
        """The register whose master key has this MKVP; CURRENT before OLD before NEW."""
        for register in (Register.CURRENT, Register.OLD, Register.NEW):
            if self.get_register(register).mkvp == mkvp:
                return register
        return None

    def get_key_register(self, secure_key: SecureKey) -> Register:
        """CURRENT or OLD, which has the key's master key.

        Raises:
            MasterKeyChangedError: neither has it; NEW, which may, waits for being set.
        """
        register = self.find_register(secure_key.mkvp)
        if register is None or register is Register.NEW:
            raise self.make_changed_error(secure_key)
        return register

    def make_changed_error(self, secure_key: SecureKey) -> MasterKeyChangedError:
        """What says that it has not, or no longer, the key's master key."""
        return MasterKeyChangedError(
            f"adapter {self.apqn}: key wrapped by master key MKVP {secure_key.mkvp.hex()} "
            f"({secure_key.key_type}); it has CURRENT {self.current}, OLD {self.old}"
        )

    def get_source(self, secure_key: SecureKey, target: Register) -> Register:
        """Whose master key a key is under that is to come under that of ``target``, or has come.

        Raises:
            UnsupportedError: ``target`` is OLD.
            MasterKeyChangedError: as `get_key_register`.
            CoprocessorError: no master key in ``target``.
        """
        if target is Register.OLD:
            raise UnsupportedError(f"adapter {self.apqn}: no key is re-enciphered to OLD")
        state = self.get_register(target)
        is_there = state.mkvp == secure_key.mkvp
        source = target if is_there else self.get_key_register(secure_key)
        if not state.is_usable:
            raise CoprocessorError(
                f"adapter {self.apqn}: no {target} master key, it is {state.state}"
            )
        return source


@dataclass(frozen=True, slots=True)
class Transport:
    """The effective key of a secure key on its way to one engine."""

    blob: bytes = field(repr=False)  # only the engine whose public key it was made for can open it
    pattern: str  # the verification pattern: 64 hexadecimal digits
    key_size: int  # bytes of the clear key inside
    apqn: Apqn
    register: Register  # whose master key unwrapped it: CURRENT or OLD


@dataclass(frozen=True, slots=True)
class Validation:
    """What the coprocessors say of a secure key that they can use."""

    key_type: KeyType
    is_xts: bool
    clear_bits: int  # of the whole key
    register: Register  # CURRENT when any adapter has its master key there, else OLD
    mkvp: bytes
    pattern: str  # 64 hexadecimal digits
    apqns: tuple[Apqn, ...]  # every online adapter that can use the key


class Coprocessor(Protocol):
    """One APQN. Synchronous; no method leaves a clear key or a master key behind."""

    def info(self) -> AdapterInfo:
        """What may be told of it."""
        ...

    def generate(
        self, key_type: KeyType, key_bits: int, *, is_xts: bool, is_exportable: bool = False
    ) -> SecureKey:
        """A random key, wrapped by the CURRENT master key; ``key_bits`` are of one half for XTS.

        Raises:
            UnsupportedError: a size, or an export rule, that this type of key does not have.
            CoprocessorError: no CURRENT master key, or offline.
        """
        ...

    def import_clear(
        self, key_type: KeyType, clear: bytearray, *, is_xts: bool, is_exportable: bool = False
    ) -> SecureKey:
        """The caller's clear key wrapped by the CURRENT master key; the caller wipes.

        Raises:
            FormatError: no AES key, or an XTS key whose halves are equal.
            CoprocessorError: no CURRENT master key, or offline.
        """
        ...

    def find_register(self, secure_key: SecureKey) -> Register | None:
        """The register that has the key's master key; with NEW the key is not usable yet."""
        ...

    def to_transport(self, secure_key: SecureKey, public_key: bytes) -> Transport:
        """The effective key for the engine that has this public key (keystore/transport.py).

        Raises:
            MasterKeyChangedError: neither CURRENT nor OLD has the key's master key.
            FormatError: the token was altered, or the public key is none.
            CoprocessorError: the token forbids this use.
        """
        ...

    def reencipher(self, secure_key: SecureKey, target: Register) -> SecureKey:
        """The same key under the master key of ``target``, from CURRENT or OLD.

        A key under ``target`` already comes back as it is, once it is known to unwrap.

        Raises:
            UnsupportedError: ``target`` is OLD.
            MasterKeyChangedError: neither CURRENT nor OLD, nor ``target``, has the key's master
                key.
            CoprocessorError: no master key in ``target``, or offline.
            FormatError: the token was altered.
        """
        ...

    def convert(
        self, secure_key: SecureKey, key_type: KeyType, *, is_exportable: bool = False
    ) -> SecureKey:
        """A CCA-AESDATA key as CCA-AESCIPHER, under the same master key.

        Raises:
            UnsupportedError: another type than these.
            MasterKeyChangedError, FormatError, CoprocessorError: as `to_transport`.
        """
        ...

    def restrict(self, secure_key: SecureKey) -> SecureKey:
        """A CCA-AESCIPHER key that may not be exported any more; it may still become protected.

        Raises:
            UnsupportedError: a key of a type that says nothing of exports.
            MasterKeyChangedError, FormatError, CoprocessorError: as `to_transport`.
        """
        ...

    def validate(self, secure_key: SecureKey) -> Validation:
        """That the key unwraps here, and what it is.

        Raises:
            MasterKeyChangedError, FormatError, CoprocessorError: as `to_transport`.
        """
        ...
