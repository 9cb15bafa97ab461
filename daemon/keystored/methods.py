"""What the keystored can be asked: the interface ``io.fusecrypt.Keystore`` over the adapters."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import trio

from ...keystore.errors import AccessError, CoprocessorError, FormatError, PolicyError
from ..control.fields import Fields, pack_data
from ..control.protocol import Request
from ..control.server import Method
from ..peer import Peer
from ..version import VERSION
from .adapter_methods import AdapterMethods
from .guest_methods import GuestMethods
from .messages import (
    INTERFACE,
    GenerateRequest,
    Info,
    RewrapRequest,
    pack_adapters,
    pack_sealing,
    pack_secrets,
    pack_transport,
    pack_validation,
    parse_token,
)
from .secret import read_secret
from .work import Work, called_by

if TYPE_CHECKING:
    from pathlib import Path

    from ...keystore.audit import AuditLog
    from ...keystore.coprocessor import AdapterInfo, Transport
    from ...keystore.coprocessors import Coprocessors
    from ...keystore.keys import SecureKey
    from .engines import Engines

#: Bytes; the two halves of an XTS-256 key.
_MAX_CLEAR_KEY: Final = 64


class Methods:
    """Takes parameters apart, lets the adapters work, puts the answer together."""

    def __init__(
        self,
        coprocessors: Coprocessors,
        directory: Path,
        *,
        memory: str,
        audit: AuditLog | None = None,
        engines: Engines | None = None,
    ) -> None:
        """``engines``: but for root, keys are wrapped for these alone. None: for anybody's."""
        self._coprocessors = coprocessors
        self._directory = directory
        self._memory = memory
        self._work = Work(coprocessors, audit)
        self._engines = engines
        self._adapters = AdapterMethods(coprocessors, self._work)
        self._guest = GuestMethods(coprocessors, self._work)

    def get_table(self, peer: Peer) -> dict[str, Method]:
        """What this peer may call, by full name; the rest refuses.

        Others than the owner come in where a service's socket lets them: they may use the
        adapters, and neither change them nor hand in clear keys.
        """
        usable: dict[str, Method] = {
            "GetInfo": self.get_info,
            "ListAdapters": self.list_adapters,
            "GetSealing": self.get_sealing,
            "ListSecrets": self.list_secrets,
            "GenerateKey": self.generate_key if peer.is_owner else self.generate_random_key,
            "ValidateKey": self.validate_key,
            "MakeTransport": functools.partial(self.make_transport, is_root=peer.uid == 0),
            "ReencipherKey": self.reencipher_key,
            "ConvertKey": self.convert_key,
            "RestrictKey": self.restrict_key,
        }
        owned = {**self._adapters.get_table(), **self._guest.get_table()}
        if not peer.is_owner:
            owned = dict.fromkeys(owned, self._refuse)
        return {
            f"{INTERFACE}.{name}": _with_caller(peer, name, method)
            for name, method in {**usable, **owned}.items()
        }

    async def check(self) -> None:
        """Return when the adapters would be asked."""
        await self._work.look(lambda: None)

    async def get_info(self, _call: Request) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        return Info(VERSION, os.getpid(), str(self._directory), self._memory).pack()

    async def list_adapters(self, _call: Request) -> Mapping[str, object]:
        def work() -> tuple[AdapterInfo, ...]:
            try:
                return self._coprocessors.list_info()
            except (FormatError, AccessError) as error:
                raise CoprocessorError(str(error)) from None

        return pack_adapters(await self._work.look(work))

    async def get_sealing(self, _call: Request) -> Mapping[str, object]:
        return pack_sealing(await self._work.look(self._coprocessors.host_key.get_state))

    async def list_secrets(self, _call: Request) -> Mapping[str, object]:
        return pack_secrets(await self._work.look(self._coprocessors.list_secrets))

    async def generate_random_key(self, call: Request) -> Mapping[str, object]:
        if call.parameters.get("clear_key") is not None:
            return await self._refuse(call)
        return await self.generate_key(call)

    async def generate_key(self, call: Request) -> Mapping[str, object]:
        request = GenerateRequest.parse(call.parameters, call.fds)

        def work() -> SecureKey:
            if request.clear_key_fd is None:
                return self._coprocessors.generate(
                    request.key_type,
                    request.key_bits,
                    is_xts=request.is_xts,
                    apqns=request.apqns,
                    is_exportable=request.is_exportable,
                )
            with read_secret(request.clear_key_fd, "clear key", limit=_MAX_CLEAR_KEY) as clear:
                return self._coprocessors.import_clear(
                    request.key_type,
                    clear,
                    is_xts=request.is_xts,
                    apqns=request.apqns,
                    is_exportable=request.is_exportable,
                )

        origin = "random" if request.clear_key_fd is None else "clear key"
        key = await self._work.run(work, origin=origin)
        return {"token": pack_data(key.token)}

    async def validate_key(self, call: Request) -> Mapping[str, object]:
        key = parse_token(call.parameters)
        return pack_validation(await self._work.run(lambda: self._coprocessors.validate(key), key))

    async def reencipher_key(self, call: Request) -> Mapping[str, object]:
        request = RewrapRequest.parse(call.parameters, has_target=True)
        target = request.target
        assert target is not None
        return await self._rewrap(
            request.key,
            lambda: self._coprocessors.reencipher(request.key, target, request.apqns),
            target=str(target),
        )

    async def convert_key(self, call: Request) -> Mapping[str, object]:
        request = RewrapRequest.parse(call.parameters, has_key_type=True)
        key_type = request.key_type
        assert key_type is not None
        return await self._rewrap(
            request.key,
            lambda: self._coprocessors.convert(
                request.key, key_type, request.apqns, is_exportable=request.is_exportable
            ),
        )

    async def restrict_key(self, call: Request) -> Mapping[str, object]:
        request = RewrapRequest.parse(call.parameters)
        return await self._rewrap(
            request.key, lambda: self._coprocessors.restrict(request.key, request.apqns)
        )

    async def _rewrap(
        self, key: SecureKey, function: Callable[[], SecureKey], **facts: str
    ) -> Mapping[str, object]:
        made = await self._work.run(function, key, **facts)
        return {"token": pack_data(made.token)}

    async def make_transport(self, call: Request, *, is_root: bool) -> Mapping[str, object]:
        key = parse_token(call.parameters)
        public_key = Fields("parameters", call.parameters).data("public_key")
        is_allowed = is_root or await self._is_of_engine(public_key)

        def work() -> Transport:
            if not is_allowed:
                raise PolicyError(
                    "MakeTransport: no engine of the service has this public key; only root may"
                    " have a key wrapped for another"
                )
            return self._coprocessors.to_transport(key, public_key)

        return pack_transport(await self._work.run(work, key))

    async def _is_of_engine(self, public_key: bytes) -> bool:
        if self._engines is None:
            return True
        # Not the adapters' turn: they go on while an engine is asked.
        return await trio.to_thread.run_sync(self._engines.hold, public_key, abandon_on_cancel=True)

    async def _refuse(self, call: Request) -> Mapping[str, object]:
        what = call.method.rpartition(".")[2]

        def refuse() -> Mapping[str, object]:
            raise AccessError(f"{what}: only root and user {os.geteuid()} may do this")

        return await self._work.run(refuse)


def _with_caller(peer: Peer, name: str, method: Method) -> Method:
    async def run(call: Request) -> Mapping[str, object]:
        with called_by(peer, name):
            return await method(call)

    return run
