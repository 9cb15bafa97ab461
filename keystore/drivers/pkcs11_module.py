"""A PKCS#11 module in this process: its thread, the tokens that are logged in, and its errors.

A module may hang as long as a network or a reader does. All its calls happen in one thread of its
own, and nobody waits for it longer than `TIMEOUT`.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pkcs11
from pkcs11 import TokenFlag, exceptions

from ..clear_bytes import wipe
from ..errors import CoprocessorError, MapperError
from ..pkcs11_uri import TokenUri

if TYPE_CHECKING:
    from pkcs11 import Session, Token
    from pkcs11._pkcs11 import lib as Library  # noqa: N812 (it is a class)

    from .pkcs11_abilities import Abilities

Result = TypeVar("Result")

#: Seconds for one operation on a token, less than who asks the keystored waits.
TIMEOUT: Final = 8.0
#: The same for what is only looked at: several tokens may be, one after the other.
LOOK_TIMEOUT: Final = 3.0
#: After these the token may be there again, or still, with another session.
_SESSION_LOST: Final = (
    exceptions.SessionHandleInvalid,
    exceptions.SessionClosed,
    exceptions.TokenNotPresent,
    exceptions.TokenNotRecognised,
    exceptions.DeviceRemoved,
    exceptions.DeviceError,
    exceptions.UserNotLoggedIn,
    exceptions.GeneralError,
    exceptions.FunctionFailed,
    exceptions.KeyHandleInvalid,
    exceptions.ObjectHandleInvalid,
    exceptions.SlotIDInvalid,
)
#: After these the same PIN would be refused again, and counted by the token.
_PIN_REFUSED: Final = (
    exceptions.PinIncorrect,
    exceptions.PinInvalid,
    exceptions.PinLenRange,
)
_LOCKED: Final = (
    "its user PIN is locked, after too many wrong ones; only its security officer unlocks it, with "
    "a new PIN"
)


class PinRefusedError(CoprocessorError):
    """The token has another PIN: to try this one again would bring it nearer to locking itself."""


class OpenToken:
    """A token that is logged in; only the module's thread touches it."""

    def __init__(self, where: str, session: Session, abilities: Abilities) -> None:
        self.where = where  # for people
        self.session = session
        self.abilities = abilities


class _Pin:
    """What python-pkcs11 takes for a text, and gets bytes from that can be wiped."""

    def __init__(self, content: bytearray) -> None:
        self._content = content

    def encode(self, _encoding: str) -> bytearray:
        return self._content


class Module:
    """One module and the tokens behind it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._late: tuple[str, Future[Any]] | None = (
            None  # what nobody waited for, of whose kept PIN
        )
        self._open: dict[str, OpenToken] = {}

    def run(
        self,
        uri: TokenUri,
        read_pin: Callable[[], bytearray],
        function: Callable[[OpenToken], Result],
        *,
        is_new_pin: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """What the function makes of the token, which is logged in if it is not.

        ``read_pin``: the PIN, which is wiped here; with ``is_new_pin`` it is tried even if the
        token is logged in. The function is called a second time with another session when the
        first one is lost.

        Raises:
            PinRefusedError: it has another PIN.
            CoprocessorError: the token is not there, refuses, or does not answer.
            MapperError: what the function raises.
        """
        where = f"PKCS#11 token {uri}"
        self._check_late(str(uri), where)

        def work() -> Result:
            try:
                if is_new_pin:
                    return function(self._log_in(uri, read_pin, where, is_new_pin=True))
                return self._run(uri, read_pin, function, where)
            except exceptions.PKCS11Error as error:
                raise CoprocessorError(f"{where}: {describe(error)}") from None

        future: Future[Result] = Future()
        self._jobs.put((future, work))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="pkcs11", daemon=True)
            self._thread.start()
        seconds = TIMEOUT if timeout is None else timeout
        try:
            return future.result(seconds)
        except TimeoutError:
            self._late = "" if is_new_pin else str(uri), future
            raise CoprocessorError(f"{where}: does not answer within {seconds:.0f} s") from None

    def _check_late(self, name: str, where: str) -> None:
        """That no call is under way, and none came to know late that the PIN is refused."""
        if self._late is None:
            return
        late_name, late = self._late
        if not late.done():
            raise CoprocessorError(f"{where}: does not answer; an earlier call still waits for it")
        self._late = None
        error = late.exception()
        if late_name == name and isinstance(error, PinRefusedError):
            raise error

    def _work(self) -> None:
        while True:
            future, work = self._jobs.get()
            try:
                result = work()
            except BaseException as error:  # raised where the result is wanted
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, work

    def _run(
        self,
        uri: TokenUri,
        read_pin: Callable[[], bytearray],
        function: Callable[[OpenToken], Result],
        where: str,
    ) -> Result:
        known = self._open.get(str(uri))
        if known is not None:
            try:
                _check(known)
                return function(known)
            except _SESSION_LOST:
                self._forget(str(uri))
        return function(self._log_in(uri, read_pin, where))

    def _log_in(
        self,
        uri: TokenUri,
        read_pin: Callable[[], bytearray],
        where: str,
        *,
        is_new_pin: bool = False,
    ) -> OpenToken:
        from .pkcs11_abilities import find_abilities

        token = self._find(uri, where)
        if token.flags & TokenFlag.USER_PIN_LOCKED:
            raise CoprocessorError(f"{where}: {_LOCKED}")
        if is_new_pin:
            self._log_out(token)
        elif token.flags & TokenFlag.USER_PIN_FINAL_TRY:
            raise CoprocessorError(
                f"{where}: one more wrong PIN locks it, so the one that is kept is not tried; log "
                "in to it once with a tool of its own, or create the adapter anew"
            )
        pin = read_pin()
        try:
            session = token.open(rw=True, user_pin=_Pin(pin))
        except exceptions.UserAlreadyLoggedIn:  # by another URI of the same token
            session = token.open(rw=True)
        except exceptions.PinLocked:
            raise CoprocessorError(f"{where}: {_LOCKED}") from None
        except _PIN_REFUSED as error:
            text = f"{where}: refuses the PIN: {describe(error)}"
            raise PinRefusedError(text + _describe_tries(token)) from None
        finally:
            wipe(pin)
        opened = OpenToken(where, session, find_abilities(session))
        self._open[str(uri)] = opened
        return opened

    def _log_out(self, token: Token) -> None:
        """Log out of the token, which each of its users does again when he needs it."""
        for name, known in list(self._open.items()):
            if known.session.token.slot.slot_id == token.slot.slot_id:
                self._forget(name)

    def _find(self, uri: TokenUri, where: str) -> Token:
        library = _load(self.path, where)
        found = self._list(library, uri)
        if not found:  # put in again since, or on another slot: the module looks at its start only
            self._open.clear()
            library.reinitialize()
            found = self._list(library, uri)
        if not found:
            raise CoprocessorError(f"{where}: is not there")
        if len(found) > 1:
            raise CoprocessorError(f"{where}: {len(found)} tokens are of this name; wanted: one")
        return found[0]

    def _list(self, library: Library, uri: TokenUri) -> list[Token]:
        found: list[Token] = []
        for slot in library.get_slots(token_present=True):
            try:
                token = slot.get_token()
            except (exceptions.TokenNotPresent, exceptions.TokenNotRecognised):
                continue
            if uri.matches(
                label=token.label,
                serial=token.serial.decode(errors="replace"),
                manufacturer=token.manufacturer_id,
                model=token.model,
                slot_id=slot.slot_id,
            ):
                found.append(token)
        return found

    def _forget(self, name: str) -> None:
        known = self._open.pop(name, None)
        if known is not None:
            with contextlib.suppress(exceptions.PKCS11Error):  # it was lost
                known.session.close()


@functools.cache
def get_module(path: Path) -> Module:
    """The one object of a module in this process, since the module itself knows only processes."""
    return Module(path)


def describe(error: Exception) -> str:
    """An error of PKCS#11 in its own words: their names, which hold no secret."""
    return f"{type(error).__name__}" + (f" ({error})" if str(error) else "")


def _describe_tries(token: Token) -> str:
    """What the token tells of the tries that are left."""
    flags = token.slot.get_token().flags
    if flags & TokenFlag.USER_PIN_LOCKED:
        return f"; {_LOCKED}"
    return "; one more wrong PIN locks it" if flags & TokenFlag.USER_PIN_FINAL_TRY else ""


def _check(token: OpenToken) -> None:
    """Raise what a lost session raises.

    Asked first, since a search that cannot begin is one that python-pkcs11 cannot end either.
    """
    with contextlib.suppress(exceptions.RandomNoRNG, exceptions.FunctionNotSupported):
        token.session.generate_random(64)


def _load(path: Path, where: str) -> Library:
    try:
        return pkcs11.lib(str(path))
    except MapperError:
        raise
    except (exceptions.PKCS11Error, OSError) as error:
        raise CoprocessorError(f"{where}: module {path}: {describe(error)}") from None
