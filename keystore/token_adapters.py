"""Adapters that are PKCS#11 tokens, among those of a state directory.

Their files have the URI of the token and its PIN, sealed as other adapters' master keys are; the
master keys, and which register each is in, are in the token itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .adapter import Adapter, make_serial
from .adapters import Adapters
from .coprocessor import (
    MODE_PKCS11,
    PKCS11_TYPE,
    AdapterInfo,
    Apqn,
    Fill,
    RegisterState,
)
from .drivers import PKCS11_DRIVER, make_pkcs11
from .errors import BusyError, ConfigError, CoprocessorError, MapperError
from .pkcs11_uri import TokenUri
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
                    created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now())),
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

    def load_random(self, apqn: Apqn) -> AdapterInfo:
        token = self._find_token(apqn)
        return self._alter_token(token, token.make_new) if token else super().load_random(apqn)

    def clear_new(self, apqn: Apqn) -> AdapterInfo:
        token = self._find_token(apqn)
        return self._alter_token(token, token.clear_new) if token else super().clear_new(apqn)

    def set_new(self, apqn: Apqn) -> AdapterInfo:
        token = self._find_token(apqn)
        return self._alter_token(token, token.set_new) if token else super().set_new(apqn)

    def _find_token(self, apqn: Apqn) -> Pkcs11Coprocessor | None:
        """The token of this APQN; None: no token, or no adapter at all."""
        if apqn not in self._store.list_apqns():
            return None
        with self._store.opened(apqn) as adapter:
            is_token = adapter.info.mode == MODE_PKCS11
        return make_pkcs11(self._store, apqn) if is_token else None

    def _alter_token(self, token: Pkcs11Coprocessor, change: Callable[[], None]) -> AdapterInfo:
        with self._store.locked():
            change()
            return self._tell(token.info())

    def _look(self, apqn: Apqn) -> AdapterInfo:
        try:
            return self.get(apqn).info()
        except (ConfigError, CoprocessorError) as error:
            with self._store.opened(apqn) as adapter:
                if adapter.info.mode != MODE_PKCS11:
                    raise
                return replace(adapter.info, problem=str(error))
