"""The adapters of an IBM Z machine: secure keys made and looked at through ``/dev/pkey``.

What such an adapter makes of a secure key is a protected key of this machine's processor, and the
effective key leaves neither. So no engine of ours gets it: a volume under such a key is served by
the kernel's own paes. Nobody has tried this driver on the hardware.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, NoReturn, Protocol

from ..adapter_store import AdapterStore
from ..ap_bus import ApBus
from ..clear_bytes import wiped
from ..coprocessor import (
    MODE_CCA,
    MODE_EP11,
    PKEY_DRIVER,
    AdapterInfo,
    Apqn,
    Register,
    Status,
    Transport,
    Validation,
)
from ..ep11_token import EXTRACTABLE, USUAL_ATTRIBUTES
from ..errors import (
    AccessError,
    CoprocessorError,
    FormatError,
    NotFoundError,
    UnsupportedError,
)
from ..kernel_cipher import make_pattern
from ..key_type import check_key_bits
from ..keys import SecureKey
from ..pkey_device import Match, PkeyDevice, PkeyType
from ..tokens import FILE_SIZES, KeyType
from ..verification import check_clear_key, check_halves

_MACHINE: Final = "s390x"
#: Older kernels have EP11 keys in the older form only.
_TYPES: Final = {
    KeyType.CCA_AESDATA: (PkeyType.CCA_DATA,),
    KeyType.CCA_AESCIPHER: (PkeyType.CCA_CIPHER,),
    KeyType.EP11_AES: (PkeyType.EP11_AES, PkeyType.EP11),
}
_MODES: Final = (MODE_CCA, MODE_EP11)
#: See `PkeyDevice.generate`: every export is allowed, none prohibited.
_EXPORTABLE: Final = {
    KeyType.CCA_AESCIPHER: 0xF0C8,
    KeyType.EP11_AES: USUAL_ATTRIBUTES | EXTRACTABLE,
}
_HEADER_SIZE: Final = 8
_TRIES: Final = 2  # of a key whose halves got different master keys, one being set in between


class PatternMaker(Protocol):
    """What computes a verification pattern: `kernel_cipher.make_pattern`."""

    def __call__(self, token: bytes, *, is_xts: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class Machine:
    """What the driver has of the machine that it runs on."""

    name: str = field(default_factory=platform.machine)
    bus: ApBus = field(default_factory=ApBus)
    open_device: Callable[[], PkeyDevice] = PkeyDevice
    make_pattern: PatternMaker = make_pattern

    def check(self, apqn: Apqn) -> None:
        """That this is a machine with such adapters.

        Raises:
            UnsupportedError: it is another.
        """
        if self.name != _MACHINE:
            raise UnsupportedError(
                f"adapter {apqn}: driver {PKEY_DRIVER} is for IBM Z ({_MACHINE}), and this machine "
                f"is {self.name}"
            )

    def read(self, apqn: Apqn, created: str) -> AdapterInfo:
        """What the machine tells of an adapter, as `ApBus.read`."""
        self.check(apqn)
        return replace(self.bus.read(apqn, created), driver=PKEY_DRIVER)


def find_machine() -> Machine:
    """The machine that this runs on."""
    return Machine()


class PkeyCoprocessor:
    """One APQN of the machine; the store only knows that there is one."""

    def __init__(self, store: AdapterStore, apqn: Apqn, machine: Machine | None = None) -> None:
        self._store = store
        self._apqn = apqn
        self._machine = machine or find_machine()

    def info(self) -> AdapterInfo:
        """What the machine tells; of an adapter that it does not tell of, what was told once."""
        with self._store.opened(self._apqn) as adapter:
            stored = replace(adapter.info, driver=PKEY_DRIVER)
        try:
            return self._machine.read(self._apqn, stored.created)
        except (UnsupportedError, NotFoundError):  # another machine, or taken away from this one
            return replace(stored, is_online=False, is_configured=False)
        except (CoprocessorError, AccessError, FormatError) as error:
            return replace(stored, problem=str(error))

    def generate(
        self, key_type: KeyType, key_bits: int, *, is_xts: bool, is_exportable: bool = False
    ) -> SecureKey:
        check_key_bits(key_type, key_bits, is_xts=is_xts)
        flags = _get_flags(key_type, is_exportable=is_exportable)
        with self._online(key_type) as (device, kind):
            make = partial(device.generate, self._apqn, kind, key_bits, flags)
            return self._make_halves([make] * (2 if is_xts else 1))

    def import_clear(
        self, key_type: KeyType, clear: bytearray, *, is_xts: bool, is_exportable: bool = False
    ) -> SecureKey:
        check_clear_key(len(clear), is_xts=is_xts)
        if is_xts:
            check_halves(clear)
        flags = _get_flags(key_type, is_exportable=is_exportable)
        half = len(clear) // 2 if is_xts else len(clear)
        with (
            self._online(key_type) as (device, kind),
            wiped(clear[:half]) as first,
            wiped(clear[half:]) as second,
        ):
            parts = [first, second] if is_xts else [first]
            make = partial(device.import_clear, self._apqn, kind)
            return self._make_halves([partial(make, part, flags) for part in parts])

    def find_register(self, secure_key: SecureKey) -> Register | None:
        info = self.info()
        if info.status is not Status.ONLINE:
            return info.find_register(secure_key.mkvp)
        token = _split(secure_key)[0]
        with self._machine.open_device() as device:
            for match, register in (
                (Match.CURRENT, Register.CURRENT),
                (Match.ALTERNATE, Register.OLD),
            ):
                if register is Register.OLD and info.mode == MODE_EP11:
                    continue  # it has none
                if self._apqn in device.list_for_key(token, match):
                    return register
        return Register.NEW if info.new.mkvp == secure_key.mkvp else None

    def to_transport(self, secure_key: SecureKey, public_key: bytes) -> Transport:
        del secure_key, public_key
        # Not UnsupportedError: a virtual adapter with the same master key is asked next.
        raise CoprocessorError(
            f"adapter {self._apqn}: an adapter of the machine gives an effective key to the "
            "machine's processor alone, and to no engine; the kernel's paes serves such a volume: "
            "cryptsetup open"
        )

    def reencipher(self, secure_key: SecureKey, target: Register) -> SecureKey:
        if self.info().get_register(target).mkvp != secure_key.mkvp or target is Register.OLD:
            self._refuse("re-enciphers no keys", "zkey reencipher")
        self.validate(secure_key)
        return secure_key

    def convert(
        self, secure_key: SecureKey, key_type: KeyType, *, is_exportable: bool = False
    ) -> SecureKey:
        del secure_key, key_type, is_exportable
        self._refuse("converts no keys", "zkey convert")

    def restrict(self, secure_key: SecureKey) -> SecureKey:
        del secure_key
        self._refuse("restricts no keys", "zkey import")

    def validate(self, secure_key: SecureKey) -> Validation:
        with self._online(secure_key.key_type) as (device, _):
            matches = Match.CURRENT | Match.ALTERNATE
            bits = 0
            for token in _split(secure_key):
                verified = device.verify(self._apqn, token)
                if verified is None:
                    raise self.info().make_changed_error(secure_key)
                matches &= verified.match
                bits += device.try_protecting(self._apqn, token).clear_bits
        if not matches:
            raise CoprocessorError(
                f"adapter {self._apqn}: the halves of the key are under different master keys"
            )
        try:
            pattern = self._machine.make_pattern(secure_key.token, is_xts=secure_key.is_xts)
        except CoprocessorError as error:
            raise CoprocessorError(f"adapter {self._apqn}: {error}") from None
        return Validation(
            key_type=secure_key.key_type,
            is_xts=secure_key.is_xts,
            clear_bits=bits,
            register=Register.CURRENT if matches & Match.CURRENT else Register.OLD,
            mkvp=secure_key.mkvp,
            pattern=pattern,
            apqns=(self._apqn,),
        )

    @contextmanager
    def _online(self, key_type: KeyType) -> Generator[tuple[PkeyDevice, PkeyType], None, None]:
        """The device, once the adapter is known to be there, and what such keys are there."""
        self._machine.check(self._apqn)
        info = self.info()
        if info.mode not in _MODES:
            raise CoprocessorError(f"adapter {self._apqn}: an accelerator, it serves no keys")
        if info.status is not Status.ONLINE:
            raise CoprocessorError(f"adapter {self._apqn}: {info.problem or info.status}")
        with self._machine.open_device() as device:
            kind, apqns = self._find_type(device, key_type)
            if self._apqn not in apqns:
                raise CoprocessorError(
                    f"adapter {self._apqn}: a {info.type} that has no {key_type} keys, as the "
                    "kernel says"
                )
            yield device, kind

    def _make_halves(self, makers: list[Callable[[], bytes]]) -> SecureKey:
        """The tokens of a key, of one master key even where another is being set."""
        for _ in range(_TRIES):
            tokens = [_pad(make()) for make in makers]
            if len({SecureKey(token).mkvp for token in tokens}) == 1:
                return SecureKey(b"".join(tokens))
        raise CoprocessorError(f"adapter {self._apqn}: its master key is being changed")

    def _find_type(
        self, device: PkeyDevice, key_type: KeyType
    ) -> tuple[PkeyType, tuple[Apqn, ...]]:
        """The first kind of these keys that the kernel knows, and the adapters that have it."""
        if key_type not in _TYPES:
            raise UnsupportedError(f"adapter {self._apqn}: {key_type}: no key of the machine's")
        *newer, last = _TYPES[key_type]
        for kind in newer:
            try:
                return kind, device.list_for_type(kind)
            except UnsupportedError:
                continue
        return last, device.list_for_type(last)

    def _refuse(self, what: str, command: str) -> NoReturn:
        raise UnsupportedError(
            f"adapter {self._apqn}: the pkey device {what}; '{command}' of s390-tools does, with "
            "IBM's host library"
        )


def _get_flags(key_type: KeyType, *, is_exportable: bool) -> int:
    if not is_exportable:
        return 0
    if key_type not in _EXPORTABLE:
        raise UnsupportedError(
            f"{key_type}: says nothing of exports; wanted: {' or '.join(_EXPORTABLE)}"
        )
    return _EXPORTABLE[key_type]


def _pad(token: bytes) -> bytes:
    """The token in its file's form, which its type and version tell."""
    if len(token) < _HEADER_SIZE or (kind := (token[0], token[4])) not in FILE_SIZES:
        raise FormatError("secure key: the device made none that is known")
    size = FILE_SIZES[kind]
    if len(token) > size:
        raise FormatError(f"secure key: the device made {len(token)} bytes, wanted up to {size}")
    return token.ljust(size, b"\0")


def _split(secure_key: SecureKey) -> list[bytes]:
    size = secure_key.size // len(secure_key.halves)
    return [secure_key.token[i : i + size] for i in range(0, secure_key.size, size)]
