"""Adapters that are PKCS#11 tokens, among those of a state directory.

Their files have the URI of the token and its PIN, sealed as other adapters' master keys are; the
master keys, and which register each is in, are in the token itself. Only parts of a NEW one, which
a token cannot combine, wait here for the last of them.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from . import registers
from .adapter import Adapter, MasterKeys, make_serial
from .adapters import Adapters
from .clear_bytes import wiped
from .coprocessor import (
    MODE_PKCS11,
    PKCS11_TYPE,
    AdapterInfo,
    Apqn,
    Fill,
    Register,
    RegisterState,
)
from .drivers import PKCS11_DRIVER, make_pkcs11
from .errors import BusyError, ConfigError, CoprocessorError, MapperError, UnsupportedError
from .pkcs11_uri import TokenUri
from .registers import Part
from .token_parts import copy_parts, forget_parts, put_parts
from .token_pin import pack_pin

if TYPE_CHECKING:
    from .drivers.pkcs11 import Pkcs11Coprocessor


class TokenAdapters(Adapters):
    """The same adapters, with tokens among them."""

    def list_info(self) -> tuple[AdapterInfo, ...]:
        """All adapters, in the order of their APQNs; a token that cannot be used says why.

        Raises:
            FormatError: a file is damaged, or sealed by another host key.
            CoprocessorError, AccessError: a file or the host key cannot be read.
        """
        return tuple(self._tell(self._look(apqn)) for apqn in self._store.list_apqns())

    def create_token(
        self,
        apqn: Apqn,
        uri: TokenUri,
        pin: bytearray,
        *,
        with_master_key: bool = True,
        is_clear_allowed: bool = False,
        is_control_only: bool = False,
    ) -> AdapterInfo:
        """A token as an adapter; one that has no CURRENT master key makes itself a random one.

        The caller wipes the PIN.

        Raises:
            BusyError: there is one with this APQN, or its card is no token.
            ConfigError: no PIN, or no such module.
            CoprocessorError: the token is not there, refuses the PIN, or cannot wrap keys.
            AccessError, FormatError: the file or the host key cannot be had.
        """
        keys = pack_pin(pin)
        try:
            with self._store.locked():
                card = self._find_card(apqn)
                if card and card.type != PKCS11_TYPE:
                    raise BusyError(f"adapter {apqn}: the card is {card.type}, no {PKCS11_TYPE}")
                info = AdapterInfo(
                    apqn=apqn,
                    serial=card.serial if card else make_serial(),
                    is_online=True,
                    new=RegisterState(Fill.EMPTY),
                    current=RegisterState(Fill.INVALID),
                    old=RegisterState(Fill.INVALID),
                    created=self._tell_time(),
                    mode=MODE_PKCS11,
                    type=PKCS11_TYPE,
                    is_control_only=is_control_only,
                    uri=str(uri),
                    is_clear_allowed=is_clear_allowed,
                )
                self._store.create(Adapter(info, PKCS11_DRIVER, keys))
                try:
                    return make_pkcs11(self._store, apqn).enrol(with_master_key=with_master_key)
                except MapperError:
                    self._store.remove(apqn)
                    raise
        finally:
            keys.wipe()

    def load_part(self, apqn: Apqn, part: Part, content: bytearray) -> AdapterInfo:
        token = self._find_token(apqn)
        if token is None:
            return super().load_part(apqn, part, content)
        with self._store.locked(), self._loading(apqn, token) as loading:
            loaded = registers.load_part(loading, part, content)
            if part is Part.LAST:
                return self._load_into(token, loaded)
            self._keep_parts(apqn, loaded.master_keys)
            return self._tell(token.look())

    def load_whole(self, apqn: Apqn, master_key: bytearray) -> AdapterInfo:
        token = self._find_token(apqn)
        if token is None:
            return super().load_whole(apqn, master_key)
        with self._store.locked(), self._loading(apqn, token) as loading:
            return self._load_into(token, registers.load_whole(loading, master_key))

    def load_random(self, apqn: Apqn) -> AdapterInfo:
        token = self._find_token(apqn)
        if token is None:
            return super().load_random(apqn)
        with self._store.locked():
            return self._tell(token.make_new())

    def clear_new(self, apqn: Apqn) -> AdapterInfo:
        token = self._find_token(apqn)
        if token is None:
            return super().clear_new(apqn)
        with self._store.locked():
            token.clear_new()
            self._keep_parts(apqn, None)
            return self._tell(token.look())

    def set_new(self, apqn: Apqn) -> AdapterInfo:
        token = self._find_token(apqn)
        if token is None:
            return super().set_new(apqn)
        with self._store.locked():
            token.set_new()
            self._keep_parts(apqn, None)
            return self._tell(token.look())

    def clone(self, apqn: Apqn, source: Apqn, register: Register) -> AdapterInfo:
        if self._find_token(source):
            raise _refuse_copy(source)
        return super().clone(apqn, source, register)

    @contextmanager
    def copied(self, apqn: Apqn, register: Register) -> Generator[bytearray, None, None]:
        if self._find_token(apqn):
            raise _refuse_copy(apqn)
        with super().copied(apqn, register) as master_key:
            yield master_key

    def _find_token(self, apqn: Apqn) -> Pkcs11Coprocessor | None:
        """The token of this APQN; None: no token, or no adapter at all."""
        if apqn not in self._store.list_apqns():
            return None
        with self._store.opened(apqn) as adapter:
            is_token = adapter.info.mode == MODE_PKCS11
        return make_pkcs11(self._store, apqn) if is_token else None

    @contextmanager
    def _loading(self, apqn: Apqn, token: Pkcs11Coprocessor) -> Generator[Adapter, None, None]:
        """The token as an adapter whose NEW is what parts make so far, for a block."""
        info, keys = token.look(), MasterKeys()
        try:
            with self._store.opened(apqn) as stored:
                with wiped(copy_parts(stored.master_keys)) as parts:
                    keys.put(Register.NEW, parts)
                yield replace(stored, info=info, master_keys=keys)
        finally:
            keys.wipe()

    def _load_into(self, token: Pkcs11Coprocessor, loaded: Adapter) -> AdapterInfo:
        """Put a NEW master key that was made whole into the token; its parts are forgotten."""
        apqn, mkvp = loaded.info.apqn, loaded.info.new.mkvp
        assert mkvp is not None
        with wiped(loaded.master_keys.copy(Register.NEW)) as master_key:
            token.load_new(master_key, mkvp)
        self._keep_parts(apqn, None)
        return self._tell(token.look())

    def _keep_parts(self, apqn: Apqn, keys: MasterKeys | None) -> None:
        """Store what parts make so far, which is in NEW of ``keys``; None: forget them."""
        with self._store.opened(apqn) as stored:
            if keys is None:
                forget_parts(stored.master_keys)
            else:
                with wiped(keys.copy(Register.NEW)) as parts:
                    put_parts(stored.master_keys, parts, f"adapter {apqn}")
            self._store.replace(stored)

    def _look(self, apqn: Apqn) -> AdapterInfo:
        try:
            return self.get(apqn).info()
        except (ConfigError, CoprocessorError) as error:
            with self._store.opened(apqn) as adapter:
                if adapter.info.mode != MODE_PKCS11:
                    raise
                return replace(adapter.info, problem=str(error))


def _refuse_copy(apqn: Apqn) -> UnsupportedError:
    return UnsupportedError(
        f"adapter {apqn}: the master keys of a PKCS#11 token cannot be taken out of it, so none is "
        "cloned or split; what was loaded from parts or shares is loaded from them again"
    )
