"""The virtual Crypto Express adapter: CCA or EP11 in software, master keys sealed in its file."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Protocol

from .. import cca, transport
from ..adapter import Adapter
from ..adapter_store import AdapterStore
from ..clear_bytes import make_random, wiped
from ..coprocessor import (
    MODE_CCA,
    MODE_EP11,
    AdapterInfo,
    Apqn,
    Register,
    Status,
    Transport,
    Validation,
)
from ..ep11_domain import Ep11Domain
from ..errors import CoprocessorError, UnsupportedError
from ..key_type import KeyType, check_key_bits
from ..keys import SecureKey
from ..verification import make_pattern


class _Wrapper(Protocol):
    """What a mode does with keys: `cca`, or an `Ep11Domain`."""

    def wrap_key(
        self,
        key_type: KeyType,
        clear: bytearray,
        master_key: bytearray,
        *,
        is_xts: bool,
        is_random: bool = True,
        is_exportable: bool = False,
    ) -> SecureKey: ...

    def unwrap_key(self, secure_key: SecureKey, master_key: bytearray) -> bytearray: ...

    def rewrap_key(
        self, secure_key: SecureKey, master_key: bytearray, target: bytearray
    ) -> SecureKey: ...


_MODES: Final = (MODE_CCA, MODE_EP11)


class SoftCoprocessor:
    """One APQN of the store; master keys are unsealed for each operation and wiped after it."""

    def __init__(self, store: AdapterStore, apqn: Apqn) -> None:
        self._store = store
        self._apqn = apqn

    def info(self) -> AdapterInfo:
        with self._store.opened(self._apqn) as adapter:
            return adapter.info

    def generate(
        self, key_type: KeyType, key_bits: int, *, is_xts: bool, is_exportable: bool = False
    ) -> SecureKey:
        check_key_bits(key_type, key_bits, is_xts=is_xts)
        size = key_bits // 8 * (2 if is_xts else 1)
        with self._current() as (wrapper, master_key), wiped(make_random(size)) as clear:
            return wrapper.wrap_key(
                key_type, clear, master_key, is_xts=is_xts, is_exportable=is_exportable
            )

    def import_clear(
        self, key_type: KeyType, clear: bytearray, *, is_xts: bool, is_exportable: bool = False
    ) -> SecureKey:
        with self._current() as (wrapper, master_key):
            return wrapper.wrap_key(
                key_type,
                clear,
                master_key,
                is_xts=is_xts,
                is_random=False,
                is_exportable=is_exportable,
            )

    def reencipher(self, secure_key: SecureKey, target: Register) -> SecureKey:
        with self._online() as adapter:
            source = adapter.info.get_source(secure_key, target)
            with (
                self._wrapper(adapter) as wrapper,
                wiped(adapter.master_keys.copy(source)) as master_key,
                wiped(adapter.master_keys.copy(target)) as other,
            ):
                return wrapper.rewrap_key(secure_key, master_key, other)

    def convert(
        self, secure_key: SecureKey, key_type: KeyType, *, is_exportable: bool = False
    ) -> SecureKey:
        if key_type is not KeyType.CCA_AESCIPHER:
            raise UnsupportedError(f"no key is converted to {key_type}")
        with self._master_key(secure_key) as master_key:
            return cca.convert_key(secure_key, master_key, is_exportable=is_exportable)

    def restrict(self, secure_key: SecureKey) -> SecureKey:
        with self._master_key(secure_key) as master_key:
            return cca.restrict_key(secure_key, master_key)

    def find_register(self, secure_key: SecureKey) -> Register | None:
        return self.info().find_register(secure_key.mkvp)

    def to_transport(self, secure_key: SecureKey, public_key: bytes) -> Transport:
        with self._unwrapped(secure_key) as (clear, register):
            return Transport(
                blob=transport.seal(clear, public_key),
                pattern=make_pattern(clear, is_xts=secure_key.is_xts),
                key_size=len(clear),
                apqn=self._apqn,
                register=register,
            )

    def validate(self, secure_key: SecureKey) -> Validation:
        with self._unwrapped(secure_key) as (clear, register):
            return Validation(
                key_type=secure_key.key_type,
                is_xts=secure_key.is_xts,
                clear_bits=len(clear) * 8,
                register=register,
                mkvp=secure_key.mkvp,
                pattern=make_pattern(clear, is_xts=secure_key.is_xts),
                apqns=(self._apqn,),
            )

    @contextmanager
    def _online(self) -> Generator[Adapter, None, None]:
        with self._store.opened(self._apqn) as adapter:
            info = adapter.info
            if info.mode not in _MODES or info.is_control_only:
                what = "administered only" if info.mode in _MODES else "an accelerator"
                raise CoprocessorError(f"adapter {self._apqn}: {what}, it serves no keys")
            if info.status is not Status.ONLINE:
                raise CoprocessorError(f"adapter {self._apqn}: {info.status}")
            yield adapter

    @contextmanager
    def _current(self) -> Generator[tuple[_Wrapper, bytearray], None, None]:
        """What wraps keys, and the CURRENT master key for the length of a block."""
        with self._online() as adapter:
            if not adapter.info.current.is_usable:
                raise CoprocessorError(f"adapter {self._apqn}: no CURRENT master key")
            with (
                self._wrapper(adapter) as wrapper,
                wiped(adapter.master_keys.copy(Register.CURRENT)) as master_key,
            ):
                yield wrapper, master_key

    @contextmanager
    def _unwrapped(
        self, secure_key: SecureKey
    ) -> Generator[tuple[bytearray, Register], None, None]:
        """The clear key for the length of a block, and the register that had its master key."""
        with self._online() as adapter:
            register = adapter.info.get_key_register(secure_key)
            with (
                self._wrapper(adapter) as wrapper,
                wiped(adapter.master_keys.copy(register)) as master_key,
                wiped(wrapper.unwrap_key(secure_key, master_key)) as clear,
            ):
                yield clear, register

    @contextmanager
    def _wrapper(self, adapter: Adapter) -> Generator[_Wrapper, None, None]:
        """What wraps the adapter's keys, for the length of a block."""
        if adapter.info.mode == MODE_CCA:
            yield cca
            return
        with self._store.guest.opened_session(self._apqn) as session:
            yield Ep11Domain(adapter.info, session)

    @contextmanager
    def _master_key(self, secure_key: SecureKey) -> Generator[bytearray, None, None]:
        """The key's master key for the length of a block."""
        with self._online() as adapter:
            register = adapter.info.get_key_register(secure_key)
            with wiped(adapter.master_keys.copy(register)) as master_key:
                yield master_key
