"""The crypttab at work: which entry is open, closed or failed, and how each is opened."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from ..keystore.errors import AccessError, MapperError, NotFoundError, UnlockError
from .activation import Activator, Prepared, Recipe, Serve
from .control.answers import EntryState
from .control.messages import KeyInput
from .entry_files import close_entry_files
from .exitcodes import ExitCode, get_exit_code
from .key_file import KeyFile
from .prompt import Prompter
from .registry import Registry, Volume

if TYPE_CHECKING:
    from .crypttab import Crypttab, CrypttabEntry
    from .crypttab_files import CrypttabFiles

log = logging.getLogger(__name__)

_HEADLESS: Final = "a passphrase is needed, and the entry says headless"
_NO_TERMINAL: Final = "a passphrase is needed, and there is no terminal to ask for it on"


class OwnTokens(Protocol):
    """The key files below our own ``dev/pkey``, which are made here and never opened."""

    def open_path(self, path: str) -> int | None:
        """A descriptor of a new token, if the path is one of those files. Blocks.

        Raises:
            MapperError: nobody makes such a key.
        """
        ...


class PassphraseRequiredError(UnlockError):
    """The entry needs a passphrase that its opener must ask for, as its line says."""

    def __init__(self, entry: CrypttabEntry) -> None:
        super().__init__("a passphrase is needed")
        self.prompt = entry.question
        self.tries = entry.options.tries  # 0: no end
        self.timeout = math.ceil(entry.options.timeout or 0)  # seconds; 0: for ever


@dataclass(frozen=True, slots=True)
class Failure:
    """A required volume that did not open at the start."""

    message: str
    exit_code: ExitCode


class Entries:
    """The entries of the crypttab, and what became of them."""

    def __init__(
        self,
        crypttab: Crypttab,
        files: CrypttabFiles,
        activator: Activator,
        registry: Registry,
        tokens: OwnTokens,
        *,
        own_device: int,
    ) -> None:
        self._crypttab = crypttab
        self._crypttab_files = files
        self._activator = activator
        self._registry = registry
        self._tokens = tokens
        self._own_device = own_device  # st_dev of the files in the daemon's own mount
        self._errors: dict[str, str] = {}
        # Files may be slow to open (an automount, a FIFO); the others are not to wait for one.
        self._files = trio.CapacityLimiter(16)

    def list_states(self) -> tuple[EntryState, ...]:
        """The entries that are ours, in their order."""
        return tuple(self._get_state(entry) for entry in self._crypttab.own_entries)

    async def open_at_start(
        self, prompter: Prompter, note_progress: Callable[[int, int], None]
    ) -> list[Failure]:
        """Open what is to be open after a start; the required entries that failed.

        Entries are opened at the same time, questions are asked one after the other.
        ``note_progress`` hears how many of how many are open.
        """
        failures = [
            Failure(str(problem), ExitCode.WRONG_PARAMETERS)
            for problem in self._crypttab.problems
            if problem.is_error
        ]
        entries = [entry for entry in self._crypttab.own_entries if entry.opens_at_start]
        note_progress(0, len(entries))

        async def open_one(entry: CrypttabEntry) -> None:
            failure = await self._open_logged(entry, prompter)
            if failure is not None and entry.is_required:
                failures.append(failure)
            note_progress(sum(self._registry.is_open(e.name) for e in entries), len(entries))

        async with trio.open_nursery() as nursery:
            for entry in entries:
                nursery.start_soon(open_one, entry)
        return failures

    async def open_by_name(self, name: str, key: KeyInput | None) -> Volume:
        """Open one entry for somebody who asks for it, with the key he gives, if he gives one.

        The crypttab is read again: it may have been edited since the start.

        Raises:
            NotFoundError: no entry has this name.
            PassphraseRequiredError: he has to ask for a passphrase, and come again.
        """
        self._crypttab = await trio.to_thread.run_sync(self._crypttab_files.load)
        entry = self._crypttab.find(name)
        if entry is None:
            raise NotFoundError(f"{name}: no such entry in the crypttab")
        entry.check()

        async def unlock(prepared: Prepared, serve: Serve) -> Volume:
            if key is not None:
                return await self._activator.unlock_with_secret(prepared, key, serve)
            async with self._open_key_file(entry) as file:
                if file is None and entry.options.headless:
                    raise UnlockError(_HEADLESS)
                if file is None:
                    raise PassphraseRequiredError(entry)
                key_input = _key_input(entry, file)
                return await self._activator.unlock_with_secret(prepared, key_input, serve)

        async with self._open_files(entry) as recipe:
            volume = await self._activator.activate(recipe, unlock)
        self._errors.pop(name, None)
        return volume

    async def _open_logged(self, entry: CrypttabEntry, prompter: Prompter) -> Failure | None:
        """One of the three places where every error is caught: one volume never costs another."""
        try:
            entry.check()
            async with self._open_files(entry) as recipe:

                async def unlock(prepared: Prepared, serve: Serve) -> Volume:
                    return await self._unlock(entry, prepared, serve, prompter)

                await self._activator.activate(recipe, unlock)
        except MapperError as error:
            message, exit_code = _describe(entry, error), get_exit_code(error)
        except Exception as error:
            log.exception("%s: cannot be opened", entry.name)
            message, exit_code = _describe(entry, error), get_exit_code(error)
        else:
            return None
        self._errors[entry.name] = message
        failure = Failure(f"{entry.name}: {message}", exit_code)
        log.log(logging.ERROR if entry.is_required else logging.WARNING, "%s", failure.message)
        return failure

    async def _unlock(
        self, entry: CrypttabEntry, prepared: Prepared, serve: Serve, prompter: Prompter
    ) -> Volume:
        """Key file first, then questions, ``tries=`` in all."""
        tries = 0
        fault: MapperError | None = None
        try:
            async with self._open_key_file(entry) as file:
                if file is not None:
                    tries += 1
                    key = _key_input(entry, file)
                    return await self._activator.unlock_with_secret(prepared, key, serve)
        except (UnlockError, NotFoundError, AccessError) as error:
            # As systemd does it: what is wrong with a key file does not keep its owner out.
            fault = error
            log.warning("%s: %s", entry.name, _describe(entry, error))
        while fault is None or entry.options.tries == 0 or tries < entry.options.tries:
            if entry.options.headless or not prompter.can_ask():
                raise fault or UnlockError(_HEADLESS if entry.options.headless else _NO_TERMINAL)
            tries += 1
            try:
                question = (
                    f"{_describe(entry, fault)}. {entry.question}" if fault else entry.question
                )
                return await self._ask_once(entry, prepared, serve, prompter, question)
            except UnlockError as error:
                fault = error
                log.warning("%s: %s", entry.name, error)
        raise fault

    async def _ask_once(
        self,
        entry: CrypttabEntry,
        prepared: Prepared,
        serve: Serve,
        prompter: Prompter,
        question: str,
    ) -> Volume:
        async with prompter.ask(
            question,
            name=entry.name,
            identity=entry.source_path,
            time_limit=entry.options.timeout or 0.0,
        ) as pipe:
            key = KeyInput(pipe, "line", keyfile=False)
            return await self._activator.unlock_with_secret(prepared, key, serve)

    @contextlib.asynccontextmanager
    async def _open_files(self, entry: CrypttabEntry) -> AsyncGenerator[Recipe, None]:
        # In a thread: a file may lie where only this process answers, or nobody does.
        open_files = functools.partial(
            self._crypttab_files.open_entry, entry, own_device=self._own_device
        )
        recipe = await trio.to_thread.run_sync(
            open_files, limiter=self._files, abandon_on_cancel=True
        )
        try:
            yield recipe
        finally:
            close_entry_files(recipe)

    @contextlib.asynccontextmanager
    async def _open_key_file(self, entry: CrypttabEntry) -> AsyncGenerator[KeyFile | None, None]:
        file = await trio.to_thread.run_sync(
            self._open_key, entry, limiter=self._files, abandon_on_cancel=True
        )
        try:
            yield file
        finally:
            if file is not None:
                os.close(file.fd)

    def _open_key(self, entry: CrypttabEntry) -> KeyFile | None:
        path = entry.key_file
        token = None if path is None else self._tokens.open_path(path)
        return (
            KeyFile(path or "", token)
            if token is not None
            else self._crypttab_files.open_key_file(entry)
        )

    def _get_state(self, entry: CrypttabEntry) -> EntryState:
        if self._registry.is_open(entry.name):
            return EntryState(entry.name, "open")
        error = self._errors.get(entry.name)
        return EntryState(entry.name, "failed" if error else "closed", error)


def _describe(entry: CrypttabEntry, error: Exception) -> str:
    """What is wrong, without the name of the entry: it or the place of its line comes first."""
    place = f"{entry.file}:{entry.line}: "
    text = str(error).removeprefix(place)
    where = place if text != str(error) else ""
    return f"{where}{text.removeprefix(f'{entry.name}: ')}"


def _key_input(entry: CrypttabEntry, file: KeyFile) -> KeyInput:
    return KeyInput(
        file.fd, "all", keyfile=True, offset=entry.options.keyfile_offset, size=entry.keyfile_size
    )


def summarize(open_count: int, wanted: int) -> str:
    """The status line for the service manager."""
    return f"{open_count} of {wanted} volumes open" if wanted else "no volumes to open at start"
