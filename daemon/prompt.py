"""Passphrases at start: one question at a time, on the terminal or through systemd's agents.

What is typed goes by pipe from the asking process to the engine; it never enters this process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import trio

from ..keystore.errors import UnlockError
from . import ask
from .mountd.client import Question
from .password_agent import find_agent, make_command, make_printable

log = logging.getLogger(__name__)


class Prompter:
    """Asks for passphrases, on the terminal, which it owns, or by systemd's agents.

    Only root may ask systemd's agents: for a daemon without rights ``mountd`` does it.
    """

    def __init__(self, terminal: int | None, mountd: Path | None = None) -> None:
        self._terminal = terminal
        self._mountd = mountd
        self._turn = trio.Lock()

    def close(self) -> None:
        """Give the terminal back to whoever started us: nobody is asked there any more."""
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def can_ask(self) -> bool:
        """Whether there is anybody to be asked."""
        return self._terminal is not None or find_agent() is not None

    @contextlib.asynccontextmanager
    async def ask(
        self, message: str, *, name: str, identity: str, time_limit: float
    ) -> AsyncGenerator[int, None]:
        """A pipe from which the passphrase can be read as a line.

        ``name`` is the volume's; ``identity`` names it to password agents; ``time_limit`` in
        seconds, 0 for none. Only one question is out at a time.

        Raises:
            UnlockError: nobody answered.
        """
        async with self._turn:
            if self._terminal is None and self._mountd is not None:
                readable = await _ask_by_mountd(self._mountd, name)
            else:
                readable = await self._ask_here(message, identity, time_limit)
        try:
            yield readable
        finally:
            os.close(readable)

    async def _ask_here(self, message: str, identity: str, time_limit: float) -> int:
        """By a process of ours; the read end of its pipe, the caller's to close."""
        readable, writable = os.pipe2(os.O_CLOEXEC)
        try:
            await self._run(message, identity, time_limit, writable)
        except BaseException:
            os.close(readable)
            raise
        finally:
            os.close(writable)
        return readable

    async def _run(self, message: str, identity: str, time_limit: float, writable: int) -> None:
        assert self.can_ask()
        if self._terminal is not None:
            text = f"{make_printable(message)} "
            command = [sys.executable, "-I", "-S", ask.__file__, text, str(time_limit)]
            stdin = self._terminal
        else:
            agent = find_agent() or ""
            command = make_command(agent, message, identity=identity, time_limit=time_limit)
            stdin = subprocess.DEVNULL
        status = await _run_to_end(command, stdin=stdin, stdout=writable)
        if status != 0:
            raise UnlockError(_explain(status))


async def _ask_by_mountd(path: Path, name: str) -> int:
    question = Question(path, name)
    try:
        return await trio.to_thread.run_sync(question.ask, abandon_on_cancel=True)
    except trio.Cancelled:
        question.take_back()
        raise


async def _run_to_end(command: Sequence[str], *, stdin: int, stdout: int) -> int:
    process = await trio.lowlevel.open_process(command, stdin=stdin, stdout=stdout)
    try:
        return await process.wait()
    except trio.Cancelled:
        # The terminal's echo comes back only if the asking process ends in order.
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2):
            await process.wait()
        raise


def _explain(status: int) -> str:
    reasons = {
        ask.TIMED_OUT: "no passphrase was entered in time",
        ask.NO_TERMINAL: "a passphrase is needed, and the terminal cannot be read",
    }
    return reasons.get(status, "no passphrase was entered")
