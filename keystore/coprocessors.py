"""What the adapters of a state directory do for keys, and the choice among them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from .choice import (
    CREATE_HINT,
    RESTORE_HINT,
    Seen,
    choose_makers,
    choose_reencipherers,
    describe_key,
    find_holders,
)
from .coprocessor import Apqn, Coprocessor, Register, Transport, Validation
from .ep11_adapters import Ep11Adapters
from .errors import CoprocessorError, MapperError
from .keys import SecureKey
from .machine_adapters import MachineAdapters
from .token_adapters import TokenAdapters
from .tokens import KeyType

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Coprocessors(TokenAdapters, MachineAdapters, Ep11Adapters):
    """The same adapters, with what they do for keys."""

    #: Which one was asked last; whoever wants to know clears it before.
    used: Apqn | None = None

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
            choose_makers(self._see(), key_type, apqns),
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
            choose_makers(self._see(), key_type, apqns),
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

    def _see(self, hint: str = CREATE_HINT) -> list[Seen]:
        """All adapters; one that cannot be read must not keep the others from working."""
        seen: list[Seen] = []
        for apqn in self._store.list_apqns():
            try:
                seen.append(Seen(apqn, self.get(apqn).info()))
            except MapperError as error:
                seen.append(Seen(apqn, None, str(error)))
        if not seen:
            raise CoprocessorError(f"no coprocessor: there is no adapter; {hint}")
        return seen

    def _see_for(self, secure_key: SecureKey) -> list[Seen]:
        """The same, and without any adapter it is said which master key is wanted."""
        try:
            return self._see(RESTORE_HINT)
        except CoprocessorError as error:
            raise CoprocessorError(f"{describe_key(secure_key)}: {error}") from None

    def _find_holders(
        self, secure_key: SecureKey, apqns: Sequence[Apqn] = ()
    ) -> list[tuple[Apqn, Register]]:
        return find_holders(self._see_for(secure_key), secure_key, apqns)

    def _try_each(self, apqns: Sequence[Apqn], function: Callable[[Coprocessor], Result]) -> Result:
        """What the first one makes that can; all have the same master key."""
        for apqn in apqns[:-1]:
            self._count(apqn)
            try:
                return function(self.get(apqn))
            except CoprocessorError as error:
                log.info("adapter %s: %s; the next one is asked", apqn, error)
        self._count(apqns[-1])
        return function(self.get(apqns[-1]))  # the last one's error counts

    def _count(self, apqn: Apqn) -> None:
        self._requests[apqn] += 1
        self.used = apqn
