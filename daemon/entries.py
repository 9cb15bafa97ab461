"""The crypttab at work: which entry is open, closed or failed, and how each is opened."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import stat
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ..dmcrypt.plain import PlainParams, make_params
from ..dmcrypt.units import SECTOR_SIZE
from ..keystore.errors import (
    AccessError,
    BusyError,
    MapperError,
    NotFoundError,
    UnlockError,
)
from .activation import Activator, OpenFile, Prepared, Recipe
from .control.messages import EntryState, KeyInput
from .exitcodes import ExitCode, get_exit_code
from .key_file import KeyFile, open_key_file
from .prompt import Prompter
from .registry import Registry, Volume

if TYPE_CHECKING:
    from ..dmcrypt.open_volume import OpenedVolume
    from .crypttab import Crypttab, CrypttabEntry

log = logging.getLogger(__name__)


class PassphraseRequiredError(UnlockError):
    """The entry needs a passphrase that its opener must ask for, as its line says."""

    def __init__(self, entry: CrypttabEntry) -> None:
        super().__init__("a passphrase is needed")
        self.prompt = _make_prompt(entry)
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
        reload: Callable[[], Crypttab],
        activator: Activator,
        registry: Registry,
    ) -> None:
        self._crypttab = crypttab
        self._reload = reload
        self._activator = activator
        self._registry = registry
        self._errors: dict[str, str] = {}

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
        self._crypttab = await trio.to_thread.run_sync(self._reload)
        entry = self._crypttab.find(name)
        if entry is None:
            raise NotFoundError(f"{name}: no such entry in the crypttab")
        entry.check()

        async def unlock(prepared: Prepared) -> OpenedVolume:
            if key is not None:
                return await self._activator.unlock_with_secret(prepared, key)
            with _key_file(entry) as file:
                if file is None and entry.options.headless:
                    raise UnlockError("a passphrase is needed, and the entry says headless")
                if file is None:
                    raise PassphraseRequiredError(entry)
                return await self._activator.unlock_with_secret(prepared, _key_input(entry, file))

        with _open_files(entry) as recipe:
            volume = await self._activator.activate(recipe, unlock)
        self._errors.pop(name, None)
        return volume

    async def _open_logged(self, entry: CrypttabEntry, prompter: Prompter) -> Failure | None:
        """One of the three places where every error is caught: one volume never costs another."""
        try:
            entry.check()
            with _open_files(entry) as recipe:

                async def unlock(prepared: Prepared) -> OpenedVolume:
                    return await self._unlock(entry, prepared, prompter)

                await self._activator.activate(recipe, unlock)
        except MapperError as error:
            message = str(error).removeprefix(f"{entry.name}: ")
            failure = Failure(f"{entry.name}: {message}", get_exit_code(error))
        except Exception as error:
            log.exception("%s: cannot be opened", entry.name)
            failure = Failure(f"{entry.name}: {error}", get_exit_code(error))
        else:
            return None
        self._errors[entry.name] = failure.message.removeprefix(f"{entry.name}: ")
        log.log(logging.ERROR if entry.is_required else logging.WARNING, "%s", failure.message)
        return failure

    async def _unlock(
        self, entry: CrypttabEntry, prepared: Prepared, prompter: Prompter
    ) -> OpenedVolume:
        """Key file first, then questions, ``tries=`` in all."""
        tries = 0
        fault: MapperError | None = None
        try:
            with _key_file(entry) as file:
                if file is not None:
                    tries += 1
                    key = _key_input(entry, file)
                    return await self._activator.unlock_with_secret(prepared, key)
        except (UnlockError, NotFoundError, AccessError) as error:
            # As systemd does it: what is wrong with a key file does not keep its owner out.
            fault = error
            log.warning("%s: %s", entry.name, str(error).removeprefix(f"{entry.name}: "))
        while fault is None or entry.options.tries == 0 or tries < entry.options.tries:
            if entry.options.headless or not prompter.can_ask():
                raise fault or UnlockError(
                    "a passphrase is needed, and "
                    + ("the entry says headless" if entry.options.headless else "there is no"
                       " terminal to ask for it on")
                )  # fmt: skip
            tries += 1
            try:
                return await self._ask_once(entry, prepared, prompter)
            except UnlockError as error:
                fault = error
                log.warning("%s: %s", entry.name, error)
        raise fault

    async def _ask_once(
        self, entry: CrypttabEntry, prepared: Prepared, prompter: Prompter
    ) -> OpenedVolume:
        async with prompter.ask(
            _make_prompt(entry), identity=entry.source_path, time_limit=entry.options.timeout or 0.0
        ) as pipe:
            key = KeyInput(pipe, "line", keyfile=False)
            return await self._activator.unlock_with_secret(prepared, key)

    def _get_state(self, entry: CrypttabEntry) -> EntryState:
        if self._registry.is_open(entry.name):
            return EntryState(entry.name, "open")
        error = self._errors.get(entry.name)
        return EntryState(entry.name, "failed" if error else "closed", error)


@contextlib.contextmanager
def _open_files(entry: CrypttabEntry) -> Generator[Recipe, None, None]:
    """The files that a line names, opened with the daemon's own rights."""
    options = entry.options
    with contextlib.ExitStack() as stack:
        path = entry.source_path
        source = open_backing(path, is_read_only=options.read_only)
        stack.callback(os.close, source)
        header = None
        if options.header is not None:
            header = OpenFile(open_backing(options.header, is_read_only=True), options.header)
            stack.callback(os.close, header.fd)
        yield Recipe(
            entry.name,
            OpenFile(source, path),
            header,
            options.read_only,
            options.key_slot,
            _make_plain(entry) if entry.type == "plain" else None,
        )


def open_backing(path: str, *, is_read_only: bool) -> int:
    """A descriptor of a source or header, close-on-exec.

    Raises:
        NotFoundError: there is no such file.
        AccessError: the file may not be opened so.
        BusyError: a block device that is mounted or otherwise in use.
    """
    flags = os.O_CLOEXEC | os.O_NOCTTY | (os.O_RDONLY if is_read_only else os.O_RDWR)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (a FIFO must not be opened: it would block)
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise NotFoundError(f"{path}: is neither a regular file nor a block device")
        if stat.S_ISBLK(mode) and not is_read_only:
            # open(2): without O_CREAT it fails if the kernel itself uses the device.
            flags |= os.O_EXCL
        return os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path}: no such file or device") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(f"{path}: is in use by the kernel") from None
        wanted = "reading" if is_read_only else "writing"
        raise AccessError(f"{path}: cannot be opened for {wanted}: {error.strerror}") from None


@contextlib.contextmanager
def _key_file(entry: CrypttabEntry) -> Generator[KeyFile | None, None, None]:
    file = open_key_file(entry)
    try:
        yield file
    finally:
        if file is not None:
            os.close(file.fd)


def _key_input(entry: CrypttabEntry, file: KeyFile) -> KeyInput:
    return KeyInput(
        file.fd, "all", keyfile=True, offset=entry.options.keyfile_offset, size=entry.keyfile_size
    )


def _make_plain(entry: CrypttabEntry) -> PlainParams:
    options = entry.options
    return make_params(
        cipher=options.cipher,
        key_bits=options.key_bits,
        hash_spec=options.hash,
        # A key file that is discovered later needs no hash either; a passphrase then is refused.
        has_keyfile=entry.key_file is not None or options.hash is None,
        offset=options.offset,
        skip=options.skip,
        sector_size=options.sector_size or SECTOR_SIZE,
    )


def _make_prompt(entry: CrypttabEntry) -> str:
    return f"Please enter passphrase for disk {entry.source} ({entry.name}):"


def summarize(open_count: int, wanted: int) -> str:
    """The status line for the service manager."""
    return f"{open_count} of {wanted} volumes open" if wanted else "no volumes to open at start"
