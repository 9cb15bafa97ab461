"""All adapters of a state directory, and the choice among them."""

from __future__ import annotations

import logging
import secrets
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from . import backup
from .adapter import Adapter, MasterKeys
from .adapter_store import AdapterStore
from .cca import MASTER_KEY_SIZE
from .choice import (
    CREATE_HINT,
    Seen,
    choose_makers,
    choose_reencipherers,
    describe_key,
    find_holders,
)
from .clear_bytes import make_random, wiped
from .coprocessor import (
    MODE_CCA,
    AdapterInfo,
    Apqn,
    Coprocessor,
    Fill,
    Register,
    RegisterState,
    Transport,
    Validation,
)
from .drivers import DRIVERS
from .errors import (
    CoprocessorError,
    MapperError,
    NotFoundError,
    UnsupportedError,
)
from .keys import SecureKey
from .sealing import HostKey
from .tokens import KeyType
from .verification import make_mkvp

log = logging.getLogger(__name__)

Result = TypeVar("Result")

HOST_KEY_NAME: Final = "host.key"
SOFT_DRIVER: Final = "soft"
_SERIAL_SIZE: Final = 8


class Coprocessors:
    """The adapters whose files lie in ``directory``; several processes may use it at once.

    Nothing is kept between calls: each reads what it needs, and wipes it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host_key: Path | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = AdapterStore(directory, HostKey(host_key or directory / HOST_KEY_NAME))
        self._now = now

    def list_info(self) -> tuple[AdapterInfo, ...]:
        """All adapters, in the order of their APQNs.

        Raises:
            FormatError: a file is damaged, or sealed by another host key.
            CoprocessorError, AccessError: a file or the host key cannot be read.
        """
        return tuple(self.get(apqn).info() for apqn in self._store.list_apqns())

    def get(self, apqn: Apqn) -> Coprocessor:
        """One adapter.

        Raises:
            NotFoundError: there is no such adapter.
            FormatError, CoprocessorError, AccessError: as `list_info`.
        """
        with self._store.opened(apqn) as adapter:
            driver = adapter.driver
        if driver not in DRIVERS:
            raise UnsupportedError(f"adapter {apqn}: driver {driver!r} is not known here")
        return DRIVERS[driver](self._store, apqn)

    def create(
        self, apqn: Apqn, mode: str = MODE_CCA, *, with_master_key: bool = True
    ) -> AdapterInfo:
        """A new adapter, its CURRENT master key random, or no master key at all.

        Raises:
            BusyError: there is one with this APQN.
            UnsupportedError: another mode than cca.
            CoprocessorError, AccessError: the file or the host key cannot be had.
        """
        if mode != MODE_CCA:
            raise UnsupportedError(f"adapter {apqn}: mode {mode!r}, wanted {MODE_CCA!r}")
        with self._store.locked(), wiped(make_random(MASTER_KEY_SIZE)) as master_key:
            keys = MasterKeys()
            current = RegisterState(Fill.INVALID)
            if with_master_key:
                keys.put(Register.CURRENT, master_key)
                current = RegisterState(Fill.VALID, make_mkvp(master_key))
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now()))
            info = AdapterInfo(
                apqn=apqn,
                serial=self._find_serial(apqn) or _make_serial(),
                is_online=True,
                new=RegisterState(Fill.EMPTY),
                current=current,
                old=RegisterState(Fill.INVALID),
                created=created,
            )
            try:
                self._store.create(Adapter(info, SOFT_DRIVER, keys))
            finally:
                keys.wipe()
        return info

    def set_online(self, apqn: Apqn, *, is_online: bool) -> None:
        """Let the adapter be used, or not.

        Raises:
            NotFoundError, FormatError, CoprocessorError, AccessError: as `get`.
        """
        with self._store.locked(), self._store.opened(apqn) as adapter:
            self._store.replace(replace(adapter, info=replace(adapter.info, is_online=is_online)))

    def remove(self, apqn: Apqn) -> None:
        """Remove an adapter; what only its master keys wrap is lost.

        Raises:
            NotFoundError: there is no such adapter.
            AccessError: the file system refuses.
        """
        if apqn not in self._store.list_apqns():
            raise NotFoundError(f"adapter {apqn}: does not exist")  # and makes no directory
        with self._store.locked():
            self._store.remove(apqn)

    def generate(
        self,
        key_type: KeyType,
        key_bits: int,
        *,
        is_xts: bool,
        apqns: Sequence[Apqn] = (),
        is_exportable: bool = False,
    ) -> SecureKey:
        """A random secure key of any of the adapters, or of the named ones.

        Raises:
            UnsupportedError: a size that this type of key does not have.
            CoprocessorError: no adapter can, or the named ones have different master keys.
        """
        return self._try_each(
            choose_makers(self._see(), apqns),
            lambda adapter: adapter.generate(
                key_type, key_bits, is_xts=is_xts, is_exportable=is_exportable
            ),
        )

    def import_clear(
        self,
        key_type: KeyType,
        clear: bytearray,
        *,
        is_xts: bool,
        apqns: Sequence[Apqn] = (),
        is_exportable: bool = False,
    ) -> SecureKey:
        """The caller's clear key as a secure key; the caller wipes it.

        Raises:
            FormatError: no AES key, or an XTS key whose halves are equal.
            CoprocessorError: as `generate`.
        """
        return self._try_each(
            choose_makers(self._see(), apqns),
            lambda adapter: adapter.import_clear(
                key_type, clear, is_xts=is_xts, is_exportable=is_exportable
            ),
        )

    def reencipher(
        self, secure_key: SecureKey, target: Register, apqns: Sequence[Apqn] = ()
    ) -> SecureKey:
        """The same key under the master key that is CURRENT, or NEW: ``target``.

        The adapter, one of the named ones if any, must have both master keys. A key that is under
        ``target`` already comes back as it is.

        Raises:
            MasterKeyChangedError: no usable adapter has the key's master key.
            CoprocessorError: those that have it have nothing, or not the same, in ``target``.
            FormatError: the token was altered.
        """
        return self._try_each(
            choose_reencipherers(self._see_for(secure_key), secure_key, target, apqns),
            lambda adapter: adapter.reencipher(secure_key, target),
        )

    def convert(
        self,
        secure_key: SecureKey,
        key_type: KeyType,
        apqns: Sequence[Apqn] = (),
        *,
        is_exportable: bool = False,
    ) -> SecureKey:
        """A CCA-AESDATA key as CCA-AESCIPHER, under the same master key.

        Raises:
            UnsupportedError: another type than these.
            MasterKeyChangedError, CoprocessorError, FormatError: as `to_transport`.
        """
        holders = [apqn for apqn, _ in self._find_holders(secure_key, apqns)]
        return self._try_each(
            holders,
            lambda adapter: adapter.convert(secure_key, key_type, is_exportable=is_exportable),
        )

    def restrict(self, secure_key: SecureKey, apqns: Sequence[Apqn] = ()) -> SecureKey:
        """A CCA-AESCIPHER key that may not be exported any more; it may still become protected.

        Raises:
            UnsupportedError: a key of a type that says nothing of exports.
            MasterKeyChangedError, CoprocessorError, FormatError: as `to_transport`.
        """
        holders = [apqn for apqn, _ in self._find_holders(secure_key, apqns)]
        return self._try_each(holders, lambda adapter: adapter.restrict(secure_key))

    def to_transport(self, secure_key: SecureKey, public_key: bytes) -> Transport:
        """The effective key for the engine that has this public key, of any adapter that can.

        Raises:
            MasterKeyChangedError: no online adapter has the key's master key; says who has which.
            CoprocessorError: there is no adapter, or the token forbids this use.
            FormatError: the token was altered, or the public key is none.
        """
        holders = [apqn for apqn, _ in self._find_holders(secure_key)]
        return self._try_each(holders, lambda adapter: adapter.to_transport(secure_key, public_key))

    def validate(self, secure_key: SecureKey) -> Validation:
        """What the key is, and all adapters that can use it.

        Raises:
            MasterKeyChangedError, CoprocessorError, FormatError: as `to_transport`.
        """
        holders = self._find_holders(secure_key)
        validation = self._try_each(
            [apqn for apqn, _ in holders], lambda adapter: adapter.validate(secure_key)
        )
        return replace(validation, apqns=tuple(sorted(apqn for apqn, _ in holders)))

    def backup(self, passphrase: bytearray) -> bytes:
        """A file from which `restore` makes all adapters again; the caller wipes the passphrase.

        Raises:
            CoprocessorError: there is no adapter, or no memory for the passphrase's KDF.
            ConfigError: the passphrase is empty.
            FormatError, AccessError: as `list_info`.
        """
        apqns = self._store.list_apqns()
        if not apqns:
            raise CoprocessorError(f"backup: there is no adapter; {CREATE_HINT}")
        adapters: list[Adapter] = []
        try:
            for apqn in apqns:
                with self._store.opened(apqn) as adapter:
                    keys = MasterKeys(bytearray(adapter.master_keys.content))
                adapters.append(replace(adapter, master_keys=keys))
            return backup.pack(adapters, passphrase)
        finally:
            for adapter in adapters:
                adapter.master_keys.wipe()

    def restore(self, data: bytes, passphrase: bytearray) -> list[Apqn]:
        """Make the adapters of a backup that are not there; tells which.

        Nothing is written before all are known to fit; one that was cut short may be repeated.

        Raises:
            NoKeyError: another passphrase.
            FormatError: no backup, or a damaged one.
            BusyError: an adapter is there with other master keys.
            CoprocessorError, AccessError: as `create`.
        """
        adapters = backup.parse(data, passphrase)
        try:
            with self._store.locked():
                present = self._store.list_apqns()
                missing = [a for a in adapters if a.info.apqn not in present]
                for adapter in adapters:
                    if adapter not in missing:
                        with self._store.opened(adapter.info.apqn) as other:
                            backup.check_same(adapter, other)
                for adapter in missing:
                    serial = self._find_serial(adapter.info.apqn) or adapter.info.serial
                    info = replace(adapter.info, serial=serial)
                    self._store.create(replace(adapter, info=info))
        finally:
            for adapter in adapters:
                adapter.master_keys.wipe()
        return [adapter.info.apqn for adapter in missing]

    def _find_serial(self, apqn: Apqn) -> str | None:
        """The serial number of the card, when another domain of it is there."""
        for other in self._store.list_apqns():
            if other.card == apqn.card:
                with self._store.opened(other) as adapter:
                    return adapter.info.serial
        return None

    def _see(self) -> list[Seen]:
        """All adapters; one that cannot be read must not keep the others from working."""
        seen: list[Seen] = []
        for apqn in self._store.list_apqns():
            try:
                seen.append(Seen(apqn, self.get(apqn).info()))
            except MapperError as error:
                seen.append(Seen(apqn, None, str(error)))
        if not seen:
            raise CoprocessorError(f"no coprocessor: there is no adapter; {CREATE_HINT}")
        return seen

    def _see_for(self, secure_key: SecureKey) -> list[Seen]:
        """The same, and without any adapter it is said which master key is wanted."""
        try:
            return self._see()
        except CoprocessorError as error:
            raise CoprocessorError(f"{describe_key(secure_key)}: {error}") from None

    def _find_holders(
        self, secure_key: SecureKey, apqns: Sequence[Apqn] = ()
    ) -> list[tuple[Apqn, Register]]:
        return find_holders(self._see_for(secure_key), secure_key, apqns)

    def _try_each(self, apqns: Sequence[Apqn], function: Callable[[Coprocessor], Result]) -> Result:
        """What the first one makes that can; all have the same master key."""
        for apqn in apqns[:-1]:
            try:
                return function(self.get(apqn))
            except CoprocessorError as error:
                log.info("adapter %s: %s; the next one is asked", apqn, error)
        return function(self.get(apqns[-1]))  # the last one's error counts


def _make_serial() -> str:
    alphabet = string.digits + string.ascii_uppercase
    return "".join(secrets.choice(alphabet) for _ in range(_SERIAL_SIZE))
