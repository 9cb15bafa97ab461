"""The life of the daemon: mount, engine, name space, sockets, volumes; and all of it back again.

Started in this order, ended in the reverse one: keeper, mount, engine, pyfuse3, control socket,
entries.
"""

from __future__ import annotations

import contextlib
import functools
import grp
import logging
import os
import signal
import socket
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyfuse3
import trio

from ..dmcrypt.engine.messages import EventKind
from ..dmcrypt.engine.reports import Event
from ..keystore.errors import EngineError, MapperError
from . import mount
from .activation import Activator
from .background import Report
from .control.methods import Methods
from .control.server import serve_control
from .entries import Entries, Failure, summarize
from .exitcodes import ExitCode
from .fuse import Operations
from .io_errors import watch_io_errors
from .key_renewal import KeyRenewal
from .key_service import KeyService
from .notify import notify
from .pkey import OwnFiles, PkeyTokens
from .prompt import Prompter
from .registry import Ownership, Registry, Volume
from .runtime_dir import own_runtime_dir
from .service import extended_start, feed_watchdog
from .serving import Serving, open_engine
from .tree import Tree

if TYPE_CHECKING:
    from ..dmcrypt.engine.client import Engine
    from ..dmcrypt.engine.process import EngineProcess
    from .config import Settings
    from .crypttab import Crypttab
    from .crypttab_files import CrypttabFiles

log = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

#: Seconds. An end takes 10 at most: what is not flushed by then was not acknowledged by fsync.
_CLOSE_TIMEOUT: Final = 7.0
_DRAIN_TIMEOUT: Final = 1.0
#: Seconds in which a new mount has to answer.
_MOUNT_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a daemon is started for."""

    settings: Settings
    files: CrypttabFiles
    crypttab: Crypttab
    prompter: Prompter
    report: Report  # hears how the start went
    opens_entries: bool = True


@dataclass(slots=True)
class End:
    """Why the daemon ends."""

    event: trio.Event
    error: MapperError | None = None

    def come(self, reason: str, error: MapperError | None = None) -> None:
        """The first reason counts. An error is raised, and so logged, at the end."""
        if not self.event.is_set():
            if error is None:
                log.info("ending: %s", reason)
            self.error = error
            self.event.set()


@dataclass(frozen=True, slots=True)
class _Parts:
    """What lives as long as the mount: the volumes, and where their keys come from."""

    registry: Registry
    key_service: KeyService
    tokens: PkeyTokens
    renewal: KeyRenewal


def run_daemon(plan: Plan) -> ExitCode:
    """Serve until a signal comes, or mount or engine end.

    Raises:
        MapperError: it did not come to serving, or the engine is gone.
        KeyboardInterrupt: a signal came before it could serve.
    """
    settings = plan.settings
    with (
        own_runtime_dir(settings),
        _stop_on_signals(),
        open_engine(settings) as serving,
    ):
        try:
            return trio.run(_run, plan, serving)
        except* KeyboardInterrupt:
            raise KeyboardInterrupt from None
        finally:
            # What is left of the end takes no second signal either.
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _stop_on_signals() -> Generator[None, None, None]:
    """Until trio takes the signals over, they unwind what has been set up."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _run(plan: Plan, serving: Serving) -> ExitCode:
    end = End(trio.Event())
    process = serving.process
    settings = plan.settings
    parts = _make_parts(settings, process.engine)
    registry, renewal = parts.registry, parts.renewal
    _watch_events(process, end, renewal)
    async with trio.open_nursery() as outer:
        outer.start_soon(_watch_engine, process, end)
        # Until all is closed: a second signal must not cut the end short.
        outer.start_soon(_watch_signals, end)
        await outer.start(_serve_fuse, parts, serving.session, end)
        # To the end, too: what is written back then may need a key.
        outer.start_soon(renewal.serve)
        async with trio.open_nursery() as inner:
            inner.start_soon(registry.close_deferred)
            inner.start_soon(watch_io_errors, registry)
            inner.start_soon(_serve, plan, serving, parts, end)
            await end.event.wait()
            inner.cancel_scope.cancel()
        notify("STOPPING=1", f"STATUS=closing {len(registry)} volumes")
        if end.error is None:
            end.error = await _close_volumes(settings, process.engine, registry)
        parts.key_service.close()
        # pyfuse3 before the engine, whose end it would take for an error.
        outer.cancel_scope.cancel()
    if end.error is None:
        await _shut_down(process)
        return ExitCode.OK
    raise end.error


def _make_parts(settings: Settings, engine: Engine) -> _Parts:
    tree = Tree(0, 0) if settings.is_system else Tree(os.geteuid(), os.getegid())
    registry = Registry(engine, tree, _get_ownership(settings))
    key_service = KeyService(settings)
    return _Parts(
        registry,
        key_service,
        PkeyTokens(settings.device_dir, engine, key_service),
        KeyRenewal(engine, registry, key_service),
    )


async def _serve(plan: Plan, serving: Serving, parts: _Parts, end: End) -> None:
    """Answer on the control socket, open the entries, tell that we are ready."""
    settings = plan.settings
    process = serving.process
    registry, key_service, tokens = parts.registry, parts.key_service, parts.tokens
    try:
        own_device = await _prove_mount(settings.device_dir)
    except EngineError as error:
        end.come("", error)
        return
    read_ahead_kb = await trio.to_thread.run_sync(serving.mount.set_read_ahead)
    activator = Activator(process.engine, registry, key_service, default_lease=settings.lease)
    entries = Entries(plan.crypttab, plan.files, activator, registry, tokens, own_device=own_device)
    methods = Methods(
        settings, process, registry, activator, entries, parts.renewal, read_ahead_kb=read_ahead_kb
    )
    status = summarize(0, 0)

    def note_progress(open_count: int, wanted: int) -> None:
        nonlocal status
        status = summarize(open_count, wanted)
        notify(f"STATUS=opening: {status}")

    async with trio.open_nursery() as nursery:
        own_files = OwnFiles(own_device, registry.tree, tokens)
        serve = functools.partial(serve_control, own_files=own_files)
        await nursery.start(serve, settings.control_socket, methods.get_table())
        nursery.start_soon(feed_watchdog, methods.check)
        failures: list[Failure] = []
        if plan.opens_entries:
            async with extended_start():
                failures = await entries.open_at_start(plan.prompter, note_progress)
        plan.prompter.close()
        log.info("serving %s: %s", settings.device_dir, status)
        notify("READY=1", f"STATUS={status}")
        plan.report(*_sum_up(failures, status))


def _sum_up(failures: Sequence[Failure], status: str) -> tuple[list[str], ExitCode]:
    if not failures:
        return [], ExitCode.OK
    return [*(failure.message for failure in failures), status], ExitCode.PARTLY_DONE


async def _prove_mount(device_dir: Path) -> int:
    """Wait until the mount answers; its st_dev.

    Raises:
        EngineError: it does not.
    """
    with trio.move_on_after(_MOUNT_TIMEOUT) as patience:
        try:
            # In a thread of its own: the answer comes from this one.
            status = await trio.to_thread.run_sync(os.stat, device_dir, abandon_on_cancel=True)
        except OSError as error:
            raise EngineError(f"{device_dir}: the mount fails: {error.strerror}") from error
        return status.st_dev
    assert patience.cancelled_caught
    raise EngineError(f"{device_dir}: the mount does not answer")


async def _serve_fuse(
    parts: _Parts,
    session: socket.socket,
    end: End,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer what the engine forwards. Cancelled, it stops reading; handlers in flight reply."""
    registry = parts.registry
    operations = Operations(registry.tree, registry.note_idle, parts.tokens.make)
    # libfuse takes /dev/fd/N for a connection mounted by somebody else, and closes it at the end.
    pyfuse3.init(operations, f"/dev/fd/{session.detach()}", set())
    drain = trio.CancelScope(shield=True)

    async def terminate_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            drain.deadline = trio.current_time() + _DRAIN_TIMEOUT
            pyfuse3.terminate()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(terminate_when_cancelled)
            task_status.started()
            with drain:
                try:
                    await pyfuse3.main()
                except* OSError as errors:
                    # The engine hung up: unmounted from outside, or dead.
                    log.debug("FUSE session: %s", errors.exceptions[0])
            nursery.cancel_scope.cancel()
    finally:
        pyfuse3.close(unmount=True)
    # The engine's death ends the session too, and is another matter; it has a watcher.
    with trio.move_on_after(_DRAIN_TIMEOUT):
        await end.event.wait()
    end.come("unmounted from outside")


async def _watch_engine(process: EngineProcess, end: End) -> None:
    await trio.lowlevel.wait_readable(process.pidfd)
    status = process.wait(_DRAIN_TIMEOUT)
    how = "" if status is None else f", with status {status}"
    if status is not None and status < 0:
        how = f", with signal {-status}"
    end.come("", EngineError(f"the engine (pid {process.pid}) ended unasked{how}"))


def _watch_events(process: EngineProcess, end: End, renewal: KeyRenewal) -> None:
    token = trio.lowlevel.current_trio_token()

    def note(event: Event) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            match event.kind:
                case EventKind.UNMOUNTED:
                    token.run_sync_soon(end.come, "unmounted from outside")
                case EventKind.KEY_WANTED:
                    token.run_sync_soon(renewal.note_wanted, event.node)

    process.engine.set_event_handler(note)


async def _watch_signals(end: End) -> None:
    with trio.open_signal_receiver(*_SIGNALS) as numbers:
        async for number in numbers:
            end.come(signal.Signals(number).name)


async def _close_volumes(
    settings: Settings, engine: Engine, registry: Registry
) -> EngineError | None:
    """Flush and close all volumes, in bounded time; what went wrong, if anything did."""
    deadline = trio.current_time() + _CLOSE_TIMEOUT

    async def write_back(volume: Volume) -> None:
        if settings.mountd is None:
            path = settings.device_dir / f"dm-{volume.minor}"
            work = functools.partial(mount.write_back, path)
        else:
            # The file is not ours to open; what the kernel drops it writes first.
            work = functools.partial(engine.invalidate, volume.device.number)
        await trio.to_thread.run_sync(work, abandon_on_cancel=True)

    with trio.move_on_after(_CLOSE_TIMEOUT / 2):
        async with trio.open_nursery() as nursery:
            for volume in registry.list_volumes():
                # What callers write through shared mappings is in the page cache only.
                if volume.device.opens and not volume.device.is_closing:
                    nursery.start_soon(write_back, volume)
    failed = await registry.close_all(deadline)
    return EngineError(f"not flushed: {', '.join(sorted(failed))}") if failed else None


async def _shut_down(process: EngineProcess) -> None:
    """Have the engine flush what is still open, wipe its memory and end."""
    with trio.move_on_after(_DRAIN_TIMEOUT):
        try:
            await trio.to_thread.run_sync(process.engine.shutdown, abandon_on_cancel=True)
        except EngineError as error:
            log.error("%s", error)  # noqa: TRY400 (no bug of ours)


def _get_ownership(settings: Settings) -> Ownership:
    """0660 root:disk for the system's daemon, whoever it runs as; 0600 for a user's own."""
    if not settings.is_system:
        return Ownership(os.geteuid(), os.getegid(), 0o600)
    try:
        return Ownership(0, grp.getgrnam("disk").gr_gid, 0o660)
    except KeyError:
        return Ownership(0, 0, 0o600)
