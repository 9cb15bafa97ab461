"""The one at a time who works with the adapters' files, in a thread, and the record of it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from ...keystore.coprocessor import AdapterInfo, Apqn, Transport, Validation
from ...keystore.errors import CoprocessorError, MapperError
from ...keystore.keys import SecureKey
from ...keystore.secret_list import SecretList
from ..control.fields import Fields
from ..peer import Peer
from .messages import pack_adapters, parse_apqn

if TYPE_CHECKING:
    from ...keystore.audit import AuditLog
    from ...keystore.coprocessors import Coprocessors
    from ..control.protocol import Request
    from ..control.server import Method

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_MESSAGE_MAX: Final = 500
_caller: ContextVar[tuple[Peer, str]] = ContextVar("caller")


@contextlib.contextmanager
def called_by(peer: Peer, method: str) -> Generator[None, None, None]:
    """Know who calls what for the length of a block."""
    token = _caller.set((peer, method))
    try:
        yield
    finally:
        _caller.reset(token)


class Work:
    """Runs what blocks, and writes into the audit log who had it run, and what came of it."""

    def __init__(self, coprocessors: Coprocessors, audit: AuditLog | None) -> None:
        self._coprocessors = coprocessors
        self._audit = audit
        # One at a time: they share one directory of state.
        self._limiter = trio.CapacityLimiter(1)

    async def look(self, function: Callable[[], Result]) -> Result:
        """What the function returns, which uses no key, once all before it have returned."""
        # Abandoned at the end only: what it writes to the disk is whole or not there.
        return await trio.to_thread.run_sync(
            function, limiter=self._limiter, abandon_on_cancel=True
        )

    async def run(
        self, function: Callable[[], Result], key: SecureKey | None = None, **facts: str
    ) -> Result:
        """What the function returns, which uses a key, or changes an adapter.

        Without a record there is no answer.

        Raises:
            CoprocessorError: it was done, or failed, and could not be written down.
            MapperError: what the function raises.
        """
        if key is not None:
            facts |= {"key_type": str(key.key_type), "mkvp": key.mkvp.hex()}
            if key.session:
                facts["session"] = key.session.hex()

        def work() -> Result:
            self._coprocessors.used = None
            try:
                result = function()
            except MapperError as error:
                self._record(type(error).__name__, {**facts, "message": str(error)[:_MESSAGE_MAX]})
                raise
            self._record("ok", {**facts, **_describe(result)})
            return result

        return await self.look(work)

    async def alter(
        self, apqn: Apqn, step: str, function: Callable[[], AdapterInfo]
    ) -> Mapping[str, object]:
        """Have a function change an adapter; the reply that says what that is now.

        Raises:
            MapperError: as `run`.
        """
        info = await self.run(function, apqn=str(apqn), step=step)
        log.info("%s: %s; NEW %s, CURRENT %s, OLD %s", apqn, step, info.new, info.current, info.old)
        return pack_adapters([info])

    def make_step(self, step: str, change: Callable[[Apqn], AdapterInfo]) -> Method:
        """The method of a change that needs to know nothing but which adapter."""

        async def method(call: Request) -> Mapping[str, object]:
            apqn = parse_apqn(Fields("parameters", call.parameters))
            return await self.alter(apqn, step, lambda: change(apqn))

        return method

    def _record(self, result: str, facts: Mapping[str, str]) -> None:
        if self._audit is None:
            return
        used = self._coprocessors.used
        peer, method = _caller.get()
        try:
            self._audit.append(
                uid=peer.uid,
                pid=peer.pid,
                method=method,
                result=result,
                facts={"apqn": str(used), **facts} if used else facts,
            )
        except MapperError as error:
            log.error("no record of %s: %s", method, error)  # noqa: TRY400 (no bug of ours)
            raise CoprocessorError(
                f"{method}: no answer without a record of it in the audit log: {error}"
            ) from None


def _describe(result: object) -> dict[str, str]:
    """What of a result is worth a record, and no secret."""
    match result:
        case Transport():
            return {
                "pattern": result.pattern,
                "apqn": str(result.apqn),
                "register": str(result.register),
            }
        case Validation():
            return {"pattern": result.pattern, "register": str(result.register)}
        case SecureKey():
            return {"new_key_type": str(result.key_type), "new_mkvp": result.mkvp.hex()}
        case AdapterInfo():
            registers = {"new": result.new, "current": result.current, "old": result.old}
            return {
                "apqn": str(result.apqn),
                **{
                    name: str(state if state.mkvp else state.state)
                    for name, state in registers.items()
                },
                **({"session": result.session.hex()} if result.session else {}),
            }
        case SecretList():
            newest = result.secrets[-1].id.hex() if result.secrets else "none"
            return {"secrets": str(len(result.secrets)), "newest_secret": newest}
        case _:
            return {}
