"""The secure guest that the keystored plays, and the control points of EP11: plain calls."""

from __future__ import annotations

from collections.abc import Collection

from ...keystore.control_points import ControlPoint
from ...keystore.coprocessor import AdapterInfo, Apqn
from ...keystore.secret_list import SecretList
from ..control.fields import PassedFds, pack_data
from .connection import KeystoreConnection
from .messages import parse_request, parse_secrets


class GuestKeystore(KeystoreConnection):
    """Every method raises a `MapperError`, as `Keystore`'s do."""

    def change_control_points(
        self, apqn: Apqn, turn_on: Collection[ControlPoint], turn_off: Collection[ControlPoint]
    ) -> AdapterInfo:
        """Let an EP11 adapter do more with keys, or less."""
        content = {"on": [str(point) for point in turn_on], "off": [str(p) for p in turn_off]}
        return self._change("ChangeControlPoints", apqn, content)

    def bind(self, apqn: Apqn) -> AdapterInfo:
        """Give an adapter to the guest."""
        return self._change("BindAdapter", apqn)

    def associate(self, apqn: Apqn, index: int) -> AdapterInfo:
        """Have the secret with this index make the session of a bound adapter."""
        return self._change("AssociateAdapter", apqn, {"index": index})

    def unbind(self, apqn: Apqn) -> AdapterInfo:
        """Take an adapter from the guest."""
        return self._change("UnbindAdapter", apqn)

    def create_secret(
        self, name: str, *, input_fd: int | None = None, output_fd: int | None = None
    ) -> tuple[bytes, bytes]:
        """A request to add an association secret, and the secret's id.

        ``input_fd`` yields its 32 bytes, random ones without it; they are written to ``output_fd``.
        """
        fds = PassedFds()
        parameters: dict[str, object] = {"name": name}
        if input_fd is not None:
            parameters["input"] = fds.add(input_fd)
        if output_fd is not None:
            parameters["output"] = fds.add(output_fd)
        return self._call("CreateSecret", parameters, parse_request, fds.fds)

    def add_secret(self, request: bytes) -> SecretList:
        """Add the secret of a request; all that there are then."""
        return self._call("AddSecret", {"request": pack_data(request)}, parse_secrets)

    def list_secrets(self) -> SecretList:
        """What may be told of the secrets."""
        return self._call("ListSecrets", {}, parse_secrets)

    def lock_secrets(self) -> SecretList:
        """Take no more secrets until the next boot."""
        return self._call("LockSecrets", {}, parse_secrets)
