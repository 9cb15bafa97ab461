"""What only EP11 adapters have, among those of a state directory."""

from __future__ import annotations

from . import registers
from .adapters import Adapters
from .coprocessor import AdapterInfo, Apqn, Register
from .errors import CoprocessorError, NotFoundError


class Ep11Adapters(Adapters):
    """The same adapters, with EP11's ways among what is done to them."""

    def commit_new(self, apqn: Apqn) -> AdapterInfo:
        """Approve the NEW wrapping key of an EP11 adapter.

        Raises:
            CoprocessorError: NEW is not full, or is committed already.
            UnsupportedError: an adapter in another mode.
            NotFoundError, FormatError, AccessError: as `get`.
        """
        return self._alter(apqn, registers.commit_new)

    def leave_imprint(self, apqn: Apqn) -> AdapterInfo:
        """Take an EP11 adapter into use.

        Raises:
            CoprocessorError: it is in use already.
            UnsupportedError: an adapter in another mode.
            NotFoundError, FormatError, AccessError: as `get`.
        """
        return self._alter(apqn, registers.leave_imprint)

    def clone(self, apqn: Apqn, source: Apqn, register: Register) -> AdapterInfo:
        modes = [self._read_mode(one) for one in (apqn, source)]
        if modes[0] != modes[1]:
            raise CoprocessorError(
                f"adapter {apqn}: mode {modes[0]}, and {source} is of mode {modes[1]}: other master"
                " keys than these"
            )
        return super().clone(apqn, source, register)

    def _read_mode(self, apqn: Apqn) -> str:
        if apqn not in self._store.list_apqns():
            raise NotFoundError(f"adapter {apqn}: does not exist")
        with self._store.opened(apqn) as adapter:
            registers.check_has_registers(adapter)
            return adapter.info.mode
