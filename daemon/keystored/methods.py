"""What the keystored can be asked: the interface ``io.fusecrypt.Keystore`` over the adapters."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import trio

from ...keystore.errors import AccessError, CoprocessorError, FormatError
from ..control.fields import Fields, pack_data
from ..control.protocol import Request
from ..control.server import Method, Peer
from ..version import VERSION
from .adapter_methods import AdapterMethods
from .messages import (
    INTERFACE,
    GenerateRequest,
    Info,
    RewrapRequest,
    pack_adapters,
    pack_transport,
    pack_validation,
    parse_token,
)
from .secret import read_secret
from .work import Work

if TYPE_CHECKING:
    from pathlib import Path

    from ...keystore.coprocessor import AdapterInfo
    from ...keystore.coprocessors import Coprocessors
    from ...keystore.keys import SecureKey

#: Bytes; the two halves of an XTS-256 key.
_MAX_CLEAR_KEY: Final = 64


class Methods:
    """Takes parameters apart, lets the adapters work, puts the answer together."""

    def __init__(self, coprocessors: Coprocessors, directory: Path, *, memory: str) -> None:
        self._coprocessors = coprocessors
        self._directory = directory
        self._memory = memory
        self._work = Work()
        self._adapters = AdapterMethods(coprocessors, self._work)

    def get_table(self, peer: Peer) -> dict[str, Method]:
        """What this peer may call, by full name; the rest refuses.

        Others than the owner come in where a service's socket lets them: they may use the
        adapters, and neither change them nor hand in clear keys.
        """
        usable: dict[str, Method] = {
            "GetInfo": self.get_info,
            "ListAdapters": self.list_adapters,
            "GenerateKey": self.generate_key if peer.is_owner else self.generate_random_key,
            "ValidateKey": self.validate_key,
            "MakeTransport": self.make_transport,
            "ReencipherKey": self.reencipher_key,
            "ConvertKey": self.convert_key,
            "RestrictKey": self.restrict_key,
        }
        owned = self._adapters.get_table()
        if not peer.is_owner:
            owned = dict.fromkeys(owned, _refuse)
        return {f"{INTERFACE}.{name}": method for name, method in {**usable, **owned}.items()}

    async def check(self) -> None:
        """Return when the adapters would be asked."""
        await self._work.run(lambda: None)

    async def get_info(self, _call: Request) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        return Info(VERSION, os.getpid(), str(self._directory), self._memory).pack()

    async def list_adapters(self, _call: Request) -> Mapping[str, object]:
        def work() -> tuple[AdapterInfo, ...]:
            try:
                return self._coprocessors.list_info()
            except (FormatError, AccessError) as error:
                raise CoprocessorError(str(error)) from None

        return pack_adapters(await self._work.run(work))

    async def generate_random_key(self, call: Request) -> Mapping[str, object]:
        if call.parameters.get("clear_key") is not None:
            return await _refuse(call)
        return await self.generate_key(call)

    async def generate_key(self, call: Request) -> Mapping[str, object]:
        request = GenerateRequest.parse(call.parameters, call.fds)

        def work() -> bytes:
            if request.clear_key_fd is None:
                return self._coprocessors.generate(
                    request.key_type,
                    request.key_bits,
                    is_xts=request.is_xts,
                    apqns=request.apqns,
                    is_exportable=request.is_exportable,
                ).token
            with read_secret(request.clear_key_fd, "clear key", limit=_MAX_CLEAR_KEY) as clear:
                return self._coprocessors.import_clear(
                    request.key_type,
                    clear,
                    is_xts=request.is_xts,
                    apqns=request.apqns,
                    is_exportable=request.is_exportable,
                ).token

        return {"token": pack_data(await self._work.run(work))}

    async def validate_key(self, call: Request) -> Mapping[str, object]:
        key = parse_token(call.parameters)
        return pack_validation(await self._work.run(lambda: self._coprocessors.validate(key)))

    async def reencipher_key(self, call: Request) -> Mapping[str, object]:
        request = RewrapRequest.parse(call.parameters, has_target=True)
        target = request.target
        assert target is not None
        return await self._rewrap(
            lambda: self._coprocessors.reencipher(request.key, target, request.apqns)
        )

    async def convert_key(self, call: Request) -> Mapping[str, object]:
        request = RewrapRequest.parse(call.parameters, has_key_type=True)
        key_type = request.key_type
        assert key_type is not None
        return await self._rewrap(
            lambda: self._coprocessors.convert(
                request.key, key_type, request.apqns, is_exportable=request.is_exportable
            )
        )

    async def restrict_key(self, call: Request) -> Mapping[str, object]:
        request = RewrapRequest.parse(call.parameters)
        return await self._rewrap(lambda: self._coprocessors.restrict(request.key, request.apqns))

    async def _rewrap(self, function: Callable[[], SecureKey]) -> Mapping[str, object]:
        key = await self._work.run(function)
        return {"token": pack_data(key.token)}

    async def make_transport(self, call: Request) -> Mapping[str, object]:
        key = parse_token(call.parameters)
        public_key = Fields("parameters", call.parameters).data("public_key")
        return pack_transport(
            await self._work.run(lambda: self._coprocessors.to_transport(key, public_key))
        )


async def _refuse(call: Request) -> Mapping[str, object]:
    await trio.lowlevel.checkpoint()
    what = call.method.rpartition(".")[2]
    raise AccessError(f"{what}: only root and user {os.geteuid()} may do this")
