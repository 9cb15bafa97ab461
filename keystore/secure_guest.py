"""The secure guest that a state directory plays: its association secrets, and what it has bound.

On IBM Z the ultravisor keeps these for a guest of Secure Execution until it boots. Here they are
one file, sealed by the host key as the adapters are, and void after a boot of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from .adapter import parse_canonical_apqn
from .add_secret_request import ID_SIZE
from .atomic_file import read_file, replace_file
from .clear_bytes import wiped
from .coprocessor import MODE_EP11, PKEY_DRIVER, Apqn, SeState
from .ep11_session import SECRET_SIZE, Session, make_session, make_session_id
from .errors import (
    AccessError,
    BusyError,
    ConfigError,
    CoprocessorError,
    FormatError,
    NotFoundError,
    PolicyError,
)
from .json_object import JsonObject, pack_canonical
from .sealing import HostKey, Sealed
from .secret_list import ListedSecret, SecretList

FILE_NAME: Final = "guest.secrets"
SECRETS_MAX: Final = 64
_FORMAT: Final = "fusecrypt secure guest"
_VERSION: Final = 1
_FILE_MAX: Final = 1 << 20  # bytes; 65536 domains would not fit, nor does anybody have them
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOT_ID_SIZE: Final = 16
_NOT_ASSOCIATED: Final = -1


def read_boot_id() -> str:
    """What the kernel calls this boot: a UUID.

    Raises:
        AccessError: /proc does not tell.
    """
    try:
        return _BOOT_ID.read_text()
    except OSError as error:
        raise AccessError(f"{_BOOT_ID}: {error.strerror}") from error


def can_be_bound(mode: str, driver: str) -> bool:
    """Whether a guest can bind such domains: virtual ones in EP11 mode."""
    return mode == MODE_EP11 and driver != PKEY_DRIVER


@dataclass(frozen=True, slots=True)
class Queue:
    """What one domain is to the guest."""

    state: SeState = SeState.UNBOUND
    association: int | None = None
    session_id: bytes = b""


@dataclass(frozen=True, slots=True)
class _State:
    """What the file holds; the secrets stand in the order of their ids."""

    boot_id: bytes = b""
    secrets: bytearray = field(repr=False, default_factory=bytearray)
    ids: tuple[bytes, ...] = ()
    is_locked: bool = False
    #: Domains that are bound, and the index of the secret that each is associated with.
    queues: Mapping[Apqn, int | None] = field(default_factory=dict[Apqn, "int | None"])

    def copy_secret(self, index: int) -> bytearray:
        """One secret; the caller wipes it."""
        return self.secrets[index * SECRET_SIZE : (index + 1) * SECRET_SIZE]

    def list_secrets(self) -> SecretList:
        """What may be told of them."""
        listed: list[ListedSecret] = []
        for index, secret_id in enumerate(self.ids):
            with wiped(self.copy_secret(index)) as secret:
                listed.append(ListedSecret(secret_id, make_session_id(secret)))
        return SecretList(tuple(listed), self.is_locked)

    def pack_public(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "boot_id": self.boot_id.hex(),
            "locked": self.is_locked,
            "secrets": [{"id": secret_id.hex()} for secret_id in self.ids],
            "queues": [
                {"apqn": str(apqn), "association": _NOT_ASSOCIATED if index is None else index}
                for apqn, index in sorted(self.queues.items())
            ],
        }


class SecureGuest:
    """The file; every change of it happens while the store of the adapters is locked."""

    def __init__(self, directory: Path, host_key: HostKey, read_boot_id: Callable[[], str]) -> None:
        self._path = directory / FILE_NAME
        self._host_key = host_key
        self._read_boot_id = read_boot_id

    def look(self, apqn: Apqn) -> Queue:
        """What an EP11 domain is to the guest.

        Raises:
            FormatError: the file is damaged, altered, or sealed by another host key.
            CoprocessorError, AccessError: it or the host key cannot be read.
        """
        with self._opened() as state:
            if apqn not in state.queues:
                return Queue()
            index = state.queues[apqn]
            if index is None:
                return Queue(SeState.BOUND)
            with wiped(state.copy_secret(index)) as secret:
                return Queue(SeState.USABLE, index, make_session_id(secret))

    @contextmanager
    def opened_session(self, apqn: Apqn) -> Generator[Session | None, None, None]:
        """The session of a domain for the length of a block; None: it is not associated.

        Raises:
            FormatError, CoprocessorError, AccessError: as `look`.
        """
        with self._opened() as state:
            index = state.queues.get(apqn)
            if index is None:
                yield None
                return
            with wiped(state.copy_secret(index)) as secret, make_session(secret) as session:
                yield session

    def list_secrets(self) -> SecretList:
        """What may be told of all association secrets.

        Raises:
            FormatError, CoprocessorError, AccessError: as `look`.
        """
        with self._opened() as state:
            return state.list_secrets()

    def add(self, secret_id: bytes, secret: bytearray) -> SecretList:
        """Keep a secret of 32 bytes, which the caller wipes, until the next boot.

        Raises:
            BusyError: there is one with this id.
            PolicyError: no more secrets are taken until the next boot.
            CoprocessorError: there are too many.
            FormatError, AccessError: as `look`.
        """
        assert len(secret) == SECRET_SIZE
        with self._opened() as state:
            if state.is_locked:
                raise PolicyError("association secrets: locked until the next boot")
            if secret_id in state.ids:
                raise BusyError(f"association secret {secret_id.hex()}: is there already")
            if len(state.ids) == SECRETS_MAX:
                raise CoprocessorError(f"association secrets: {SECRETS_MAX}, no room for more")
            with wiped(bytearray(len(state.secrets) + SECRET_SIZE)) as secrets:
                secrets[: len(state.secrets)] = state.secrets
                secrets[len(state.secrets) :] = secret
                return self._put(replace(state, ids=(*state.ids, secret_id), secrets=secrets))

    def lock(self) -> SecretList:
        """Take no more secrets until the next boot.

        Raises:
            FormatError, CoprocessorError, AccessError: as `look`.
        """
        with self._opened() as state:
            return self._put(replace(state, is_locked=True))

    def bind(self, apqn: Apqn) -> None:
        """Give a domain to the guest; it serves no keys then until it is associated.

        Raises:
            CoprocessorError: it is bound.
            FormatError, AccessError: as `look`.
        """
        with self._opened() as state:
            if apqn in state.queues:
                raise CoprocessorError(f"adapter {apqn}: is bound already")
            self._put(replace(state, queues={**state.queues, apqn: None}))

    def associate(self, apqn: Apqn, index: int) -> None:
        """Have the secret with this index make the session of a bound domain.

        Raises:
            CoprocessorError: it is not bound, or is associated.
            NotFoundError: there is no such secret.
            FormatError, AccessError: as `look`.
        """
        with self._opened() as state:
            if apqn not in state.queues:
                raise CoprocessorError(
                    f"adapter {apqn}: is not bound; 'chzcrypt --se-bind' comes first"
                )
            present = state.queues[apqn]
            if present is not None:
                raise CoprocessorError(
                    f"adapter {apqn}: is associated with secret {present}; 'chzcrypt --se-unbind' "
                    "ends it"
                )
            if not 0 <= index < len(state.ids):
                raise NotFoundError(
                    f"association secret {index}: does not exist; there are {len(state.ids)}"
                )
            self._put(replace(state, queues={**state.queues, apqn: index}))

    def unbind(self, apqn: Apqn) -> None:
        """Take a domain from the guest; its association ends.

        Raises:
            CoprocessorError: it is not bound.
            FormatError, AccessError: as `look`.
        """
        if not self.forget(apqn):
            raise CoprocessorError(f"adapter {apqn}: is not bound")

    def forget(self, apqn: Apqn) -> bool:
        """Take a domain from the guest, if it is bound: then True.

        Raises:
            FormatError, CoprocessorError, AccessError: as `look`.
        """
        with self._opened() as state:
            if apqn not in state.queues:
                return False
            self._put(replace(state, queues={a: i for a, i in state.queues.items() if a != apqn}))
            return True

    def reseal(self) -> None:
        """Seal what there is by the present host key.

        Raises:
            FormatError, CoprocessorError, AccessError: as `look`.
        """
        if self._path.exists():
            with self._opened() as state:
                self._put(state)

    def _put(self, state: _State) -> SecretList:
        members = replace(state, boot_id=self._get_boot_id()).pack_public()
        self._host_key.make()
        sealed = self._host_key.seal(state.secrets, pack_canonical(members))
        content = pack_canonical({**members, "sealed": sealed.pack("secrets")}) + b"\n"
        replace_file(self._path, content)
        return state.list_secrets()

    @contextmanager
    def _opened(self) -> Generator[_State, None, None]:
        """What there is of this boot, for the length of a block."""
        try:
            content = read_file(self._path, _FILE_MAX)
        except FileNotFoundError:
            yield _State()
            return
        state, sealed = _parse(content, str(self._path))
        if state.boot_id != self._get_boot_id():
            yield _State()
            return
        public = pack_canonical(state.pack_public())
        with wiped(self._host_key.unseal(sealed, public, str(self._path))) as secrets:
            yield replace(state, secrets=secrets)

    def _get_boot_id(self) -> bytes:
        text = self._read_boot_id().strip()
        try:
            boot_id = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            boot_id = b""
        if len(boot_id) != _BOOT_ID_SIZE:
            raise ConfigError(f"boot id {text!r}: wanted: 32 hexadecimal digits")
        return boot_id


def _parse(content: bytes, where: str) -> tuple[_State, Sealed]:
    json = JsonObject.parse(content, where)
    json.take_constant("format", _FORMAT)
    json.take_constant("version", _VERSION)
    boot_id, is_locked = json.take_hex("boot_id", _BOOT_ID_SIZE), json.take_bool("locked")
    ids: list[bytes] = []
    for item in json.take_objects("secrets"):
        ids.append(item.take_hex("id", ID_SIZE))
        item.finish()
    queues: dict[Apqn, int | None] = {}
    for item in json.take_objects("queues"):
        apqn = parse_canonical_apqn(item.take_str("apqn"), where)
        index = item.take_int("association", _NOT_ASSOCIATED, len(ids) - 1)
        item.finish()
        queues[apqn] = None if index == _NOT_ASSOCIATED else index
    sealed = Sealed.take(json, "secrets", len(ids) * SECRET_SIZE)
    json.finish()
    if len(ids) > SECRETS_MAX or len(set(ids)) != len(ids):
        raise FormatError(f"{where}: too many secrets, or one is there twice")
    return _State(boot_id, bytearray(), tuple(ids), is_locked, queues), sealed
