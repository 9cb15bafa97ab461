"""The coprocessor that is a PKCS#11 token: master keys and effective keys are clear only in it.

Source: PKCS #11 Cryptographic Token Interface, version 3.0 (OASIS), base specification and current
mechanisms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from .. import transport
from ..adapter_store import AdapterStore
from ..clear_bytes import wiped
from ..coprocessor import (
    AdapterInfo,
    Apqn,
    Fill,
    Register,
    RegisterState,
    Status,
    Transport,
    Validation,
)
from ..errors import CoprocessorError, FormatError, MasterKeyChangedError, UnsupportedError
from ..key_type import KeyType, check_key_bits
from ..keys import SecureKey
from ..pkcs11_token import Pkcs11Token
from ..pkcs11_uri import TokenUri
from ..token_parts import has_parts
from ..token_pin import copy_pin, forget_pin
from ..verification import check_clear_key, check_halves
from . import pkcs11_keys, pkcs11_module, pkcs11_registers
from .pkcs11_module import OpenToken, PinRefusedError, get_module

Result = TypeVar("Result")

_CLEAR: str = (
    "its keys are clear in fusecrypt-keystored for a moment, since it has no RSA-OAEP wrap and "
    "--allow-clear-in-keystored was given"
)


class Pkcs11Coprocessor:
    """One adapter of the store whose token is found by a URI, and logged in to with its PIN."""

    def __init__(self, store: AdapterStore, apqn: Apqn) -> None:
        self._store = store
        self._apqn = apqn

    def info(self) -> AdapterInfo:
        stored = self._read()
        return self._run(
            lambda token: _tell(token, stored), stored, timeout=pkcs11_module.LOOK_TIMEOUT
        )

    def enrol(self, *, with_master_key: bool) -> AdapterInfo:
        """Log in with a PIN that was just given; with a CURRENT master key if there is none.

        Raises:
            CoprocessorError: the token is not there, refuses, or cannot wrap keys.
        """
        stored = self._read()

        def work(token: OpenToken) -> AdapterInfo:
            if token.abilities.wrapping is None:
                raise CoprocessorError(f"{token.where}: {'; '.join(token.abilities.limits)}")
            if with_master_key and not _tell(token, stored).current.is_usable:
                pkcs11_registers.make_master_key(token, Register.CURRENT)
            return _tell(token, stored)

        return self._call(work, stored, is_new_pin=True)

    def make_new(self) -> AdapterInfo:
        """Fill NEW, which is empty, with a random master key. The caller has locked the store.

        Raises:
            CoprocessorError: NEW is not empty.
        """

        def work(token: OpenToken, info: AdapterInfo) -> None:
            if info.new.state is not Fill.EMPTY:
                raise CoprocessorError(
                    f"adapter {self._apqn}: NEW is {info.new.state}, wanted empty for a whole "
                    "master key; 'fusecrypt adapter master-key clear-new' empties it"
                )
            pkcs11_registers.make_master_key(token, Register.NEW)

        return self._alter(work)

    def load_new(self, master_key: bytearray, mkvp: bytes) -> AdapterInfo:
        """Fill NEW, which is empty, with a master key, which the caller wipes; same lock.

        Raises:
            CoprocessorError: the token has no way for it.
        """
        return self._alter(lambda token, _: pkcs11_registers.load_new(token, master_key, mkvp))

    def clear_new(self) -> None:
        """Empty NEW of the token, even of what it cannot be asked about; same lock."""
        self._call_locked(pkcs11_registers.clear_new, self._read())

    def set_new(self) -> AdapterInfo:
        """Make NEW the CURRENT master key, CURRENT the OLD one, whose key is gone; same lock.

        Raises:
            CoprocessorError: NEW is not full.
        """

        def work(token: OpenToken, info: AdapterInfo) -> None:
            if info.new.state is not Fill.FULL:
                raise CoprocessorError(
                    f"adapter {self._apqn}: NEW is {info.new.state}, wanted full to be set"
                )
            pkcs11_registers.set_new(token)

        return self._alter(work)

    def look(self) -> AdapterInfo:
        """The same as `info`, while the caller has locked the store."""
        stored = self._read()
        return self._call_locked(lambda token: _tell(token, stored), stored)

    def generate(
        self, key_type: KeyType, key_bits: int, *, is_xts: bool, is_exportable: bool = False
    ) -> SecureKey:
        self._check_type(key_type, is_exportable=is_exportable)
        check_key_bits(key_type, key_bits, is_xts=is_xts)
        return self._use(lambda token: pkcs11_keys.generate(token, key_bits, is_xts=is_xts))

    def import_clear(
        self, key_type: KeyType, clear: bytearray, *, is_xts: bool, is_exportable: bool = False
    ) -> SecureKey:
        self._check_type(key_type, is_exportable=is_exportable)
        check_clear_key(len(clear), is_xts=is_xts)
        if is_xts:
            check_halves(clear)
        return self._use(lambda token: pkcs11_keys.import_clear(token, clear, is_xts=is_xts))

    def find_register(self, secure_key: SecureKey) -> Register | None:
        return self.info().find_register(secure_key.mkvp)

    def to_transport(self, secure_key: SecureKey, public_key: bytes) -> Transport:
        _, modulus = transport.split_public_key(public_key)
        size = (secure_key.clear_bits or 0) // 8

        def work(token: OpenToken, info: AdapterInfo) -> Transport:
            register = info.get_key_register(secure_key)
            if token.abilities.oaep is None and info.is_clear_allowed:
                with wiped(pkcs11_keys.read_clear(token, secure_key, register)) as clear:
                    blob = transport.seal(clear, public_key)
            elif not modulus and token.abilities.oaep is not None:
                raise FormatError("public key: of X25519 alone, wanted one of RSA behind it")
            else:
                blob = pkcs11_keys.to_engine(token, secure_key, register, modulus)
            pattern = pkcs11_keys.make_pattern(token, secure_key, register)
            return Transport(blob, pattern, size, self._apqn, register)

        return self._use_key(secure_key, work)

    def reencipher(self, secure_key: SecureKey, target: Register) -> SecureKey:
        def work(token: OpenToken, info: AdapterInfo) -> SecureKey:
            source = info.get_source(secure_key, target)
            if source is target:
                pkcs11_keys.make_pattern(token, secure_key, source)  # it unwraps
                return secure_key
            return pkcs11_keys.reencipher(token, secure_key, source, target)

        return self._use_key(secure_key, work)

    def convert(
        self, secure_key: SecureKey, key_type: KeyType, *, is_exportable: bool = False
    ) -> SecureKey:
        del secure_key, is_exportable
        raise UnsupportedError(f"no key of a PKCS#11 token is converted to {key_type}")

    def restrict(self, secure_key: SecureKey) -> SecureKey:
        raise UnsupportedError(
            f"{secure_key.key_type}: says nothing of exports; wanted: {KeyType.CCA_AESCIPHER}"
        )

    def validate(self, secure_key: SecureKey) -> Validation:
        def work(token: OpenToken, info: AdapterInfo) -> Validation:
            register = info.get_key_register(secure_key)
            return Validation(
                key_type=secure_key.key_type,
                is_xts=secure_key.is_xts,
                clear_bits=secure_key.clear_bits or 0,
                register=register,
                mkvp=secure_key.mkvp,
                pattern=pkcs11_keys.make_pattern(token, secure_key, register),
                apqns=(self._apqn,),
            )

        return self._use_key(secure_key, work)

    def _check_type(self, key_type: KeyType, *, is_exportable: bool) -> None:
        if key_type is not KeyType.PKCS11_AES:
            raise UnsupportedError(
                f"adapter {self._apqn}: {key_type}: a PKCS#11 token makes {KeyType.PKCS11_AES} keys"
            )
        if is_exportable:
            raise UnsupportedError(
                f"{key_type}: says nothing of exports; wanted: {KeyType.CCA_AESCIPHER}"
            )

    def _use(self, function: Callable[[OpenToken], SecureKey]) -> SecureKey:
        """Make a key under CURRENT."""
        stored = self._read_online()

        def work(token: OpenToken) -> SecureKey:
            if pkcs11_registers.find_master_key(token, Register.CURRENT) is None:
                raise CoprocessorError(f"adapter {self._apqn}: no CURRENT master key")
            return function(token)

        return self._run(work, stored)

    def _use_key(
        self, secure_key: SecureKey, function: Callable[[OpenToken, AdapterInfo], Result]
    ) -> Result:
        """Do something with a key that is under one of the master keys."""
        if not all(isinstance(half, Pkcs11Token) for half in secure_key.halves):
            raise UnsupportedError(f"adapter {self._apqn}: {secure_key.key_type}: no key of tokens")
        stored = self._read_online()
        return self._run(lambda token: function(token, _tell(token, stored)), stored)

    def _read(self) -> AdapterInfo:
        """What is stored; NEW is partial while parts of it wait here for the last one."""
        with self._store.opened(self._apqn) as adapter:
            if has_parts(adapter.master_keys):
                return replace(adapter.info, new=RegisterState(Fill.PARTIAL))
            return adapter.info

    def _read_online(self) -> AdapterInfo:
        stored = self._read()
        if stored.is_control_only:
            raise CoprocessorError(f"adapter {self._apqn}: administered only, it serves no keys")
        if stored.status is not Status.ONLINE:
            raise CoprocessorError(f"adapter {self._apqn}: {stored.status}")
        return stored

    def _read_pin(self) -> bytearray:
        with self._store.opened(self._apqn) as adapter:
            return copy_pin(adapter.master_keys, f"adapter {self._apqn}")

    def _forget_pin(self) -> None:
        with self._store.opened(self._apqn) as adapter:
            forget_pin(adapter.master_keys)
            self._store.replace(adapter)

    def _alter(self, function: Callable[[OpenToken, AdapterInfo], None]) -> AdapterInfo:
        """What the token is after a change of its registers."""
        stored = self._read()

        def work(token: OpenToken) -> AdapterInfo:
            function(token, _tell(token, stored))
            return _tell(token, stored)

        return self._call_locked(work, stored)

    def _run(
        self,
        function: Callable[[OpenToken], Result],
        stored: AdapterInfo,
        *,
        timeout: float | None = None,
    ) -> Result:
        try:
            return self._call(function, stored, timeout=timeout)
        except PinRefusedError:
            with self._store.locked():
                self._forget_pin()
            raise

    def _call_locked(self, function: Callable[[OpenToken], Result], stored: AdapterInfo) -> Result:
        """The same, for a caller who has locked the store."""
        try:
            return self._call(function, stored)
        except PinRefusedError:
            self._forget_pin()
            raise

    def _call(
        self,
        function: Callable[[OpenToken], Result],
        stored: AdapterInfo,
        *,
        is_new_pin: bool = False,
        timeout: float | None = None,
    ) -> Result:
        uri = TokenUri.parse(stored.uri)
        module = get_module(uri.find_module())
        try:
            return module.run(uri, self._read_pin, function, is_new_pin=is_new_pin, timeout=timeout)
        except MasterKeyChangedError:
            raise
        except CoprocessorError as error:
            text, prefix = str(error), f"adapter {self._apqn}: "
            kind = PinRefusedError if isinstance(error, PinRefusedError) else CoprocessorError
            raise kind(text if text.startswith(prefix) else prefix + text) from None


def _tell(token: OpenToken, stored: AdapterInfo) -> AdapterInfo:
    """What is stored, with what only the token knows."""
    registers = pkcs11_registers.read_registers(token)
    new = registers[Register.NEW]
    limits = token.abilities.limits
    if token.abilities.oaep is None and stored.is_clear_allowed:
        limits += (_CLEAR,)
    return replace(
        stored,
        new=stored.new if new.state is Fill.EMPTY else new,
        current=registers[Register.CURRENT],
        old=registers[Register.OLD],
        limits=limits,
    )
