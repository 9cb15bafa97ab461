"""All adapters of a state directory, and the choice among them."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from . import backup
from .adapter import Adapter, MasterKeys
from .adapter_store import AdapterStore
from .cca import MASTER_KEY_SIZE
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
    MasterKeyChangedError,
    NotFoundError,
    UnsupportedError,
)
from .keys import SecureKey
from .sealing import HostKey
from .tokens import KeyType
from .verification import make_mkvp

HOST_KEY_NAME: Final = "host.key"
SOFT_DRIVER: Final = "soft"
_SERIAL_SIZE: Final = 8
_HINT: Final = "'fusecrypt adapter create' makes one"


@dataclass(frozen=True, slots=True)
class _Seen:
    """One adapter at the moment of a choice."""

    apqn: Apqn
    info: AdapterInfo | None
    problem: str = ""  # why there is no information

    def __str__(self) -> str:
        if self.info is None:
            return f"{self.apqn} cannot be read ({self.problem})"
        state = "has" if self.info.is_online else "is offline and has"
        return f"{self.apqn} {state} CURRENT {self.info.current}, OLD {self.info.old}"


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
    ) -> SecureKey:
        """A random secure key of any of the adapters, or of the named ones.

        Raises:
            UnsupportedError: a size that this type of key does not have.
            CoprocessorError: no adapter can, or the named ones have different master keys.
        """
        return self._choose(apqns).generate(key_type, key_bits, is_xts=is_xts)

    def import_clear(
        self,
        key_type: KeyType,
        clear: bytearray,
        *,
        is_xts: bool,
        apqns: Sequence[Apqn] = (),
    ) -> SecureKey:
        """The caller's clear key as a secure key; the caller wipes it.

        Raises:
            FormatError: no AES key, or an XTS key whose halves are equal.
            CoprocessorError: as `generate`.
        """
        return self._choose(apqns).import_clear(key_type, clear, is_xts=is_xts)

    def to_transport(self, secure_key: SecureKey, public_key: bytes) -> Transport:
        """The effective key for the engine that has this public key, of any adapter that can.

        Raises:
            MasterKeyChangedError: no online adapter has the key's master key; says who has which.
            CoprocessorError: there is no adapter, or the token forbids this use.
            FormatError: the token was altered, or the public key is none.
        """
        holders = self._find_holders(secure_key)
        for apqn, _ in holders[:-1]:
            try:
                return self.get(apqn).to_transport(secure_key, public_key)
            except CoprocessorError:
                continue  # the next one has the same master key; the last one's error counts
        return self.get(holders[-1][0]).to_transport(secure_key, public_key)

    def validate(self, secure_key: SecureKey) -> Validation:
        """What the key is, and all adapters that can use it.

        Raises:
            MasterKeyChangedError, CoprocessorError, FormatError: as `to_transport`.
        """
        holders = self._find_holders(secure_key)
        validation = self.get(holders[0][0]).validate(secure_key)
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
            raise CoprocessorError(f"backup: there is no adapter; {_HINT}")
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

    def _see(self) -> list[_Seen]:
        """All adapters; one that cannot be read must not keep the others from working."""
        seen: list[_Seen] = []
        for apqn in self._store.list_apqns():
            try:
                seen.append(_Seen(apqn, self.get(apqn).info()))
            except MapperError as error:
                seen.append(_Seen(apqn, None, str(error)))
        if not seen:
            raise CoprocessorError(f"no coprocessor: there is no adapter; {_HINT}")
        return seen

    def _find_holders(self, secure_key: SecureKey) -> list[tuple[Apqn, Register]]:
        """The online adapters that can use the key, those with its master key CURRENT first."""
        try:
            seen = self._see()
        except CoprocessorError as error:
            wanted = f"key wrapped by master key MKVP {secure_key.mkvp.hex()}"
            raise CoprocessorError(f"{wanted} ({secure_key.key_type}): {error}") from None
        holders: list[tuple[Apqn, Register]] = []
        for wanted in (Register.CURRENT, Register.OLD):
            for one in seen:
                if (
                    one.info is not None
                    and one.info.is_online
                    and one.info.find_register(secure_key.mkvp) is wanted
                ):
                    holders.append((one.apqn, wanted))  # noqa: PERF401  two loops read better
        if holders:
            return holders
        mkvp = secure_key.mkvp.hex()
        waiting = [
            str(one.apqn) for one in seen if one.info and one.info.new.mkvp == secure_key.mkvp
        ]
        hint = f"; in NEW of {', '.join(waiting)}, not set yet" if waiting else ""
        raise MasterKeyChangedError(
            f"key wrapped by master key MKVP {mkvp} ({secure_key.key_type}); adapters: "
            f"{'; '.join(map(str, seen))}{hint}"
        )

    def _choose(self, apqns: Sequence[Apqn]) -> Coprocessor:
        """The first online adapter, of the named ones if any, that has a CURRENT master key."""
        seen = self._see()
        missing = set(apqns) - {one.apqn for one in seen}
        if missing:
            raise CoprocessorError(f"adapter {min(missing)}: does not exist; {_HINT}")
        seen = [one for one in seen if one.apqn in apqns or not apqns]
        able = [
            one for one in seen if one.info and one.info.is_online and one.info.current.is_usable
        ]
        if not able:
            raise CoprocessorError(
                f"no adapter is online with a master key: {'; '.join(map(str, seen))}"
            )
        mkvps = {one.info.current.mkvp for one in able if one.info}
        if apqns and len(mkvps) > 1:
            raise CoprocessorError(
                f"the adapters have different master keys: {'; '.join(map(str, able))}"
            )
        return self.get(able[0].apqn)


def _make_serial() -> str:
    alphabet = string.digits + string.ascii_uppercase
    return "".join(secrets.choice(alphabet) for _ in range(_SERIAL_SIZE))
