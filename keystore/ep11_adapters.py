"""What only EP11 adapters have, among those of a state directory."""

from __future__ import annotations

from collections.abc import Callable, Collection

from . import registers
from .adapters import Adapters
from .add_secret_request import make_request, make_secret_id, open_request
from .clear_bytes import wiped
from .control_points import ControlPoint
from .coprocessor import AdapterInfo, Apqn, Register
from .errors import CoprocessorError, NotFoundError, UnsupportedError
from .secret_list import SecretList
from .secure_guest import can_be_bound


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

    def change_control_points(
        self, apqn: Apqn, turn_on: Collection[ControlPoint], turn_off: Collection[ControlPoint]
    ) -> AdapterInfo:
        """Let an EP11 adapter do more with keys, or less.

        Raises:
            ConfigError: a control point is to be turned on and off.
            CoprocessorError: those that are on do not allow it.
            UnsupportedError: an adapter in another mode.
            NotFoundError, FormatError, AccessError: as `get`.
        """
        return self._alter(
            apqn, lambda adapter: registers.change_control_points(adapter, turn_on, turn_off)
        )

    def bind(self, apqn: Apqn) -> AdapterInfo:
        """Give an EP11 adapter to the secure guest; it serves no keys until it is associated.

        Raises:
            CoprocessorError: it is bound, in imprint mode, or administered here only.
            UnsupportedError: an adapter of another kind.
            NotFoundError, FormatError, AccessError: as `get`.
        """

        def bind(info: AdapterInfo) -> None:
            if info.is_imprint or info.is_control_only:
                state = "in imprint mode" if info.is_imprint else "administered here, not used"
                raise CoprocessorError(f"adapter {apqn}: cannot be bound, it is {state}")
            self._store.guest.bind(apqn)

        return self._alter_queue(apqn, bind)

    def associate(self, apqn: Apqn, index: int) -> AdapterInfo:
        """Have an association secret make the session of a bound adapter.

        Raises:
            CoprocessorError: it is not bound, or is associated.
            NotFoundError: there is no secret with this index, or no adapter.
            UnsupportedError: an adapter of another kind.
            FormatError, AccessError: as `get`.
        """
        return self._alter_queue(apqn, lambda _info: self._store.guest.associate(apqn, index))

    def unbind(self, apqn: Apqn) -> AdapterInfo:
        """Take an adapter from the secure guest; keys of its session cannot be used there then.

        Raises:
            CoprocessorError: it is not bound.
            UnsupportedError: an adapter of another kind.
            NotFoundError, FormatError, AccessError: as `get`.
        """
        return self._alter_queue(apqn, lambda _info: self._store.guest.unbind(apqn))

    def make_request(self, name: str, secret: bytearray) -> tuple[bytes, bytes]:
        """A request to add an association secret, and its id; the caller wipes the secret.

        Raises:
            CoprocessorError, AccessError, FormatError: the host key cannot be had.
        """
        with self._store.locked():
            self.host_key.make()
        return make_request(self.host_key, name, secret), make_secret_id(name)

    def add_secret(self, request: bytes) -> SecretList:
        """Keep the association secret of a request until the next boot.

        Raises:
            BusyError: there is one of this name.
            PolicyError: no more are taken.
            FormatError: no request, altered, or made for another state directory.
            CoprocessorError, AccessError: there are too many, or the host key cannot be had.
        """
        secret_id, opened = open_request(self.host_key, request)
        with wiped(opened) as secret, self._store.locked():
            return self._store.guest.add(secret_id, secret)

    def list_secrets(self) -> SecretList:
        """What may be told of the association secrets.

        Raises:
            FormatError, CoprocessorError, AccessError: as `list_info`.
        """
        return self._store.guest.list_secrets()

    def lock_secrets(self) -> SecretList:
        """Take no more association secrets until the next boot.

        Raises:
            FormatError, CoprocessorError, AccessError: as `list_info`.
        """
        with self._store.locked():
            return self._store.guest.lock()

    def _alter_queue(self, apqn: Apqn, function: Callable[[AdapterInfo], None]) -> AdapterInfo:
        if apqn not in self._store.list_apqns():
            raise NotFoundError(f"adapter {apqn}: does not exist")
        with self._store.locked():
            info = self.get(apqn).info()
            if not can_be_bound(info.mode, info.driver):
                raise UnsupportedError(
                    f"adapter {apqn}: a {info.type} is not bound here; wanted: a virtual adapter in"
                    " EP11 mode"
                )
            function(info)
            return self._tell(self.get(apqn).info())

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
