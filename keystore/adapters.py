"""All adapters of a state directory: making and removing them, their registers, their backup."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from . import backup, registers
from .adapter import CARD_TYPES, Adapter, MasterKeys, make_master_key_pattern, make_serial
from .adapter_store import AdapterStore
from .cca import MASTER_KEY_SIZE
from .choice import CREATE_HINT
from .clear_bytes import make_random, wiped
from .control_points import DEFAULT
from .coprocessor import (
    MODE_ACCEL,
    MODE_CCA,
    MODE_EP11,
    MODE_LETTERS,
    AdapterInfo,
    Apqn,
    Coprocessor,
    Fill,
    Register,
    RegisterState,
)
from .drivers import DRIVERS, SOFT_DRIVER
from .errors import BusyError, CoprocessorError, NotFoundError, UnsupportedError
from .registers import Part
from .seal_state import SealMethod
from .sealing import ENVELOPE_SUFFIX, HostKey
from .secure_guest import read_boot_id

HOST_KEY_NAME: Final = "host.key"
_DEFAULT_LEVEL: Final = 8


class Change(StrEnum):
    """What can be done to an adapter from outside."""

    ONLINE = "online"
    OFFLINE = "offline"
    CONFIGURE = "configure"
    DECONFIGURE = "deconfigure"
    CHECKSTOP = "checkstop"
    RECOVER = "recover"


#: What a change makes of an adapter; only the first two are of one domain.
_CHANGES: Final[dict[Change, Callable[[AdapterInfo], AdapterInfo]]] = {
    Change.ONLINE: lambda info: replace(info, is_online=True),
    Change.OFFLINE: lambda info: replace(info, is_online=False),
    Change.CONFIGURE: lambda info: replace(info, is_configured=True),
    Change.DECONFIGURE: lambda info: replace(info, is_configured=False),
    Change.CHECKSTOP: lambda info: replace(info, is_checkstopped=True),
    Change.RECOVER: lambda info: replace(info, is_checkstopped=False),
}
_OF_DOMAINS: Final = (Change.ONLINE, Change.OFFLINE)


class Adapters:
    """The adapters whose files lie in ``directory``; several processes may use it at once.

    Only the number of requests is kept between calls: each reads what it needs, and wipes it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        host_key: Path | None = None,
        credentials: Path | None = None,
        now: Callable[[], float] = time.time,
        read_boot_id: Callable[[], str] = read_boot_id,
    ) -> None:
        """``host_key``: where it lies if not beside them; ``credentials``: systemd's directory."""
        envelope = directory / f"{HOST_KEY_NAME}{ENVELOPE_SUFFIX}"
        self.host_key = HostKey(host_key or directory / HOST_KEY_NAME, envelope, credentials)
        self._store = AdapterStore(directory, self.host_key, read_boot_id)
        self._now = now
        self._requests: Counter[Apqn] = Counter()

    def list_info(self) -> tuple[AdapterInfo, ...]:
        """All adapters, in the order of their APQNs, with the requests since this object is.

        Raises:
            FormatError: a file is damaged, or sealed by another host key.
            CoprocessorError, AccessError: a file or the host key cannot be read.
        """
        return tuple(self._tell(self.get(apqn).info()) for apqn in self._store.list_apqns())

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
        self,
        apqn: Apqn,
        mode: str = MODE_CCA,
        *,
        with_master_key: bool = True,
        level: int | None = None,
        is_control_only: bool = False,
    ) -> AdapterInfo:
        """A new adapter, its CURRENT master key random, or none: then EP11 is in imprint mode.

        All domains of a card are of one ``mode`` and ``level`` (of a CEX8, 8); without ``level`` it
        is that of the card, or 8. An accelerator has no master key.

        Raises:
            BusyError: there is one with this APQN.
            UnsupportedError: another mode than cca, ep11 and accel, or no such card.
            CoprocessorError: the card is of another type.
            AccessError, FormatError: the file or the host key cannot be had.
        """
        if mode not in MODE_LETTERS:
            raise UnsupportedError(
                f"adapter {apqn}: mode {mode!r}, wanted {' or '.join(map(repr, MODE_LETTERS))}"
            )
        with self._store.locked(), wiped(make_random(MASTER_KEY_SIZE)) as master_key:
            card = self._find_card(apqn)
            if level is None:
                level = card.level if card else _DEFAULT_LEVEL
            card_type = f"CEX{level}{MODE_LETTERS[mode]}"
            if card_type not in CARD_TYPES[mode]:
                raise UnsupportedError(f"adapter {apqn}: {card_type}, wanted CEX5 to CEX8")
            if card and card.type != card_type:
                raise CoprocessorError(f"adapter {apqn}: {card_type}, but the card is {card.type}")
            keys = MasterKeys()
            current = RegisterState(Fill.INVALID)
            if with_master_key and mode != MODE_ACCEL:
                keys.put(Register.CURRENT, master_key)
                current = RegisterState(Fill.VALID, make_master_key_pattern(mode, master_key))
            info = AdapterInfo(
                apqn=apqn,
                serial=card.serial if card else make_serial(),
                is_online=True,
                new=RegisterState(Fill.EMPTY),
                current=current,
                old=RegisterState(Fill.INVALID),
                created=self._tell_time(),
                mode=mode,
                type=card_type,
                is_configured=card.is_configured if card else True,
                is_checkstopped=card.is_checkstopped if card else False,
                is_control_only=is_control_only,
                is_imprint=mode == MODE_EP11 and not with_master_key,
                control_points=DEFAULT if mode == MODE_EP11 else frozenset(),
            )
            try:
                self._store.create(Adapter(info, SOFT_DRIVER, keys))
            finally:
                keys.wipe()
            return self.get(apqn).info()

    def change(self, apqns: Sequence[Apqn], change: Change) -> None:
        """Change the state of adapters; what concerns a card, of all domains of theirs.

        Raises:
            NotFoundError: there is no such adapter; none was changed.
            CoprocessorError: one cannot go online, being deconfigured or in checkstop.
            FormatError, AccessError: as `get`.
        """
        present = self._store.list_apqns()
        for apqn in apqns:
            if apqn not in present:
                raise NotFoundError(f"adapter {apqn}: does not exist")
        if not apqns:
            return
        cards = {apqn.card for apqn in apqns}
        with self._store.locked():
            for apqn in present:
                if apqn not in apqns and (change in _OF_DOMAINS or apqn.card not in cards):
                    continue
                with self._store.opened(apqn) as adapter:
                    info = adapter.info
                    if change is Change.ONLINE and (info.is_checkstopped or not info.is_configured):
                        raise CoprocessorError(
                            f"adapter {apqn}: cannot go online, it is {info.status}"
                        )
                    self._store.replace(replace(adapter, info=_CHANGES[change](info)))

    def remove(self, apqn: Apqn) -> None:
        """Remove an adapter; what only its master keys wrap is lost.

        Raises:
            NotFoundError: there is no such adapter.
            AccessError: the file system refuses.
        """
        if apqn not in self._store.list_apqns():
            raise NotFoundError(f"adapter {apqn}: does not exist")  # and makes no directory
        with self._store.locked():
            self._store.guest.forget(apqn)
            self._store.remove(apqn)

    def load_part(self, apqn: Apqn, part: Part, content: bytearray) -> AdapterInfo:
        """Combine a key part into NEW; the caller wipes it.

        Raises:
            CoprocessorError: NEW is in another state than this part needs.
            PolicyError: a weak part, or the whole is a master key that must not be NEW.
            ConfigError: the part has another size than 32 bytes.
            NotFoundError, FormatError, AccessError: as `get`.
        """
        return self._alter(apqn, lambda adapter: registers.load_part(adapter, part, content))

    def load_random(self, apqn: Apqn) -> AdapterInfo:
        """Fill NEW with a random master key.

        Raises:
            CoprocessorError: NEW is not empty.
            NotFoundError, FormatError, AccessError: as `get`.
        """
        return self._alter(apqn, registers.load_random)

    def clone(self, apqn: Apqn, source: Apqn, register: Register) -> AdapterInfo:
        """Fill NEW with the master key that another adapter has in ``register``.

        Raises:
            CoprocessorError: NEW is not empty, or the other adapter's register is.
            PolicyError: the adapter has that master key already.
            NotFoundError, FormatError, AccessError: as `get`.
        """

        def copy(adapter: Adapter) -> Adapter:
            with self.copied(source, register) as master_key:
                return registers.load_whole(adapter, master_key)

        return self._alter(apqn, copy)

    @contextmanager
    def copied(self, apqn: Apqn, register: Register) -> Generator[bytearray, None, None]:
        """The master key in a register for the length of a block, for shares of it.

        Raises:
            CoprocessorError: there is none.
            NotFoundError, FormatError, AccessError: as `get`.
        """
        with self._store.opened(apqn) as adapter:
            registers.check_has_registers(adapter)
            state = adapter.info.get_register(register)
            if not state.is_usable:
                raise CoprocessorError(
                    f"adapter {apqn}: no {register} master key, it is {state.state}"
                )
            with wiped(adapter.master_keys.copy(register)) as master_key:
                yield master_key

    def load_whole(self, apqn: Apqn, master_key: bytearray) -> AdapterInfo:
        """Fill NEW with a master key that was put together of shares; the caller wipes it.

        Raises:
            CoprocessorError: NEW is not empty.
            PolicyError: the adapter has that master key already.
            NotFoundError, FormatError, AccessError: as `get`.
        """
        return self._alter(apqn, lambda adapter: registers.load_whole(adapter, master_key))

    def clear_new(self, apqn: Apqn) -> AdapterInfo:
        """Empty NEW.

        Raises:
            NotFoundError, FormatError, CoprocessorError, AccessError: as `get`.
        """
        return self._alter(apqn, registers.clear_new)

    def set_new(self, apqn: Apqn) -> AdapterInfo:
        """Make NEW the CURRENT master key, and CURRENT the OLD one; what was OLD is gone.

        Raises:
            CoprocessorError: NEW is not full.
            NotFoundError, FormatError, AccessError: as `get`.
        """
        return self._alter(apqn, registers.set_new)

    def reseal(self, method: SealMethod, passphrase: bytearray, pcrs: str = "") -> None:
        """Seal all adapters by another host key, which is itself sealed so.

        The caller wipes the passphrase. A crash in between is mended by doing it again.

        Raises:
            ConfigError: no passphrase, no credential, or no choice of PCRs.
            FormatError: an adapter cannot be read; nothing was changed.
            CoprocessorError, AccessError: the host key, TPM or file cannot be had.
        """
        with self._store.locked():
            apqns = self._store.list_apqns()
            for apqn in apqns:
                with self._store.opened(apqn):
                    pass
            with self.host_key.replacing(method, passphrase, pcrs):
                for apqn in apqns:
                    with self._store.opened(apqn) as adapter:
                        self._store.replace(adapter)
                self._store.guest.reseal()

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
                    card = self._find_card(adapter.info.apqn)
                    if card and card.type != adapter.info.type:
                        raise BusyError(
                            f"adapter {adapter.info.apqn}: {adapter.info.type} in the backup, but "
                            f"the card is {card.type}; nothing was restored"
                        )
                for adapter in missing:
                    card = self._find_card(adapter.info.apqn)
                    serial = card.serial if card else adapter.info.serial
                    info = replace(adapter.info, serial=serial)
                    self._store.create(replace(adapter, info=info))
        finally:
            for adapter in adapters:
                adapter.master_keys.wipe()
        return [adapter.info.apqn for adapter in missing]

    def _find_card(self, apqn: Apqn) -> AdapterInfo | None:
        """Another domain of the same card."""
        for other in self._store.list_apqns():
            if other.card == apqn.card and other != apqn:
                with self._store.opened(other) as adapter:
                    return adapter.info
        return None

    def _alter(self, apqn: Apqn, function: Callable[[Adapter], Adapter]) -> AdapterInfo:
        """Store what the function makes of an adapter."""
        if apqn not in self._store.list_apqns():
            raise NotFoundError(f"adapter {apqn}: does not exist")
        with self._store.locked(), self._store.opened(apqn) as adapter:
            changed = function(adapter)
            self._store.replace(changed)
        return self._tell(changed.info)

    def _tell_time(self) -> str:
        """Now, as an adapter's file says when it was made."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now()))

    def _tell(self, info: AdapterInfo) -> AdapterInfo:
        return replace(info, requests=self._requests[info.apqn])
