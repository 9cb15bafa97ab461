"""Passphrases: read into memory that is wiped, handed on by a pipe. Never a `str`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import stat
import termios
import threading
import time
from collections.abc import Callable, Generator
from typing import Final, Self

from ...keystore.errors import AccessError, ConfigError, UnlockError

# cryptsetup's limits (cryptsetup --help): what is typed, and what is read from a file.
MAX_TYPED: Final = 512
MAX_READ: Final = 8192 * 1024

_PIPE_CAPACITY: Final = 65536


class NoInputError(ConfigError):
    """Nothing at all came from where a passphrase was to be read."""


class Passphrase:
    """Bytes of a passphrase in one buffer. Wiped by `wipe`, or at the end of a ``with``."""

    def __init__(self, capacity: int) -> None:
        _forbid_core_dumps()
        self._buffer = bytearray(capacity)  # never resized: a resize would leave a copy behind
        self.length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return "Passphrase(…)"

    def wipe(self) -> None:
        """Overwrite the bytes."""
        with memoryview(self._buffer) as view:
            view[: self.length] = bytes(self.length)
        self.length = 0

    def get_bytes(self) -> bytes:
        """A copy, of what is no secret."""
        return bytes(self._buffer[: self.length])

    def view(self) -> memoryview:
        """The bytes where they are; to be released before they are wiped."""
        return memoryview(self._buffer)[: self.length]

    def append(self, data: bytes | memoryview) -> None:
        """Add some; there must be room."""
        assert self.length + len(data) <= len(self._buffer)
        with memoryview(self._buffer) as view:
            view[self.length : self.length + len(data)] = data
        self.length += len(data)

    def read_line(self, fd: int, deadline: float | None = None) -> bool:
        """Read up to a newline, which is not kept; byte by byte, so that nothing else is consumed.

        Returns:
            Whether a newline ended it; otherwise the file did, or the buffer is full.

        Raises:
            UnlockError: the deadline (monotonic) has passed.
        """
        with memoryview(self._buffer) as view:
            while self.length < len(view):
                _wait_readable(fd, deadline)
                if os.readv(fd, [view[self.length : self.length + 1]]) == 0:
                    return False
                if view[self.length] == ord("\n"):
                    view[self.length] = 0
                    return True
                self.length += 1
        return False

    def read_all(self, fd: int) -> None:
        """Read until the end of the file or until the buffer is full."""
        with memoryview(self._buffer) as view:
            while self.length < len(view):
                count = os.readv(fd, [view[self.length :]])
                if count == 0:
                    return
                self.length += count

    def fill(self, read: Callable[[object, int], int]) -> bool:
        """Have ``read`` put bytes into a ctypes array of so many; whether it did.

        It returns how many there are, which may be more than it could put there, or -1.
        """
        place = (ctypes.c_char * len(self._buffer)).from_buffer(self._buffer)
        count = read(place, len(self._buffer))
        self.length = min(max(count, 0), len(self._buffer))
        return 0 <= count <= len(self._buffer)

    def skip(self, fd: int, count: int) -> None:
        """Read ``count`` bytes and forget them."""
        while count > 0:
            with memoryview(self._buffer) as view:
                done = os.readv(fd, [view[: min(count, len(view))]])
            if done == 0:
                return
            self.length = done
            self.wipe()
            count -= done

    def is_equal(self, other: Passphrase) -> bool:
        """Whether two were typed alike."""
        with memoryview(self._buffer) as mine, memoryview(other._buffer) as theirs:
            return mine[: self.length] == theirs[: other.length]

    @contextlib.contextmanager
    def pipe(self) -> Generator[int, None, None]:
        """A pipe's read end that yields the bytes and then the end of the file."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        feeder: threading.Thread | None = None
        try:
            if self.length <= _PIPE_CAPACITY:
                self._write(writer)
            else:  # more than a pipe holds: somebody has to write while the other side reads
                feeder = threading.Thread(target=self._write, args=(writer,))
                feeder.start()
            yield reader
        finally:
            os.close(reader)
            if feeder is not None:
                feeder.join()

    def _write(self, fd: int) -> None:
        try:
            with memoryview(self._buffer) as view:
                position = 0
                while position < self.length:
                    position += os.writev(fd, [view[position : self.length]])
        except BrokenPipeError:
            pass  # the reader wanted no more
        finally:
            os.close(fd)


def read_typed(prompt: str, *, timeout: float | None = None) -> Passphrase:
    """A passphrase typed at the terminal, without echo.

    Raises:
        ConfigError: longer than `MAX_TYPED`.
        UnlockError: nothing was typed in ``timeout`` seconds, or the terminal went away.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    passphrase = Passphrase(MAX_TYPED + 1)
    try:
        with _open_terminal() as (source, sink), _echo_off(source):
            os.write(sink, prompt.encode("utf-8", "backslashreplace"))
            try:
                ended = passphrase.read_line(source, deadline)
            finally:
                os.write(sink, b"\n")
    except BaseException:
        passphrase.wipe()
        raise
    if passphrase.length > MAX_TYPED:
        passphrase.wipe()
        raise ConfigError(f"passphrase: more than {MAX_TYPED} bytes typed; wanted: a key file")
    if not ended and passphrase.length == 0:
        raise UnlockError("passphrase: end of input at the terminal; wanted: a line")
    return passphrase


def write_terminal(text: str) -> None:
    """Tell the one who types something."""
    with _open_terminal() as (_, sink):
        os.write(sink, text.encode("utf-8", "backslashreplace"))


def ask_terminal(question: str) -> bytes:
    """A line that is no secret, typed with echo; without its newline."""
    write_terminal(question)
    with _open_terminal() as (source, _), Passphrase(MAX_TYPED) as answer:
        answer.read_line(source)
        return answer.get_bytes()


def read_verified(prompt: str, *, timeout: float | None = None) -> Passphrase:
    """A passphrase typed twice.

    Raises:
        UnlockError: the two differ; otherwise as `read_typed`.
    """
    first = read_typed(prompt, timeout=timeout)
    equal = False
    try:
        with read_typed("Verify passphrase: ", timeout=timeout) as second:
            equal = first.is_equal(second)
    finally:
        if not equal:
            first.wipe()
    if not equal:
        raise UnlockError("passphrase: the two that were typed differ")
    return first


def read_stream(fd: int, where: str, *, to_newline: bool, offset: int, size: int) -> Passphrase:
    """A passphrase from something that cannot be handed on: standard input, a FIFO, a terminal.

    Args:
        fd: what to read.
        where: its name, for messages.
        to_newline: stop at the first newline, which is not part of it.
        offset: bytes to skip.
        size: bytes to take at most; 0: all there are.

    Raises:
        ConfigError: nothing there, or too much.
        AccessError: reading failed.
    """
    passphrase = Passphrase(size or MAX_READ + 1)
    ended = False
    try:
        passphrase.skip(fd, offset)
        if to_newline:
            ended = passphrase.read_line(fd)
        else:
            passphrase.read_all(fd)
        fault = _find_fault(passphrase.length, size, ended=ended, to_newline=to_newline)
    except OSError as error:
        passphrase.wipe()
        raise AccessError(f"{where}: cannot read it: {error.strerror}") from None
    except BaseException:
        passphrase.wipe()
        raise
    if fault is not None:
        is_empty = passphrase.length == 0
        passphrase.wipe()
        raise (NoInputError if is_empty else ConfigError)(f"{where}: {fault}")
    return passphrase


def _find_fault(length: int, size: int, *, ended: bool, to_newline: bool) -> str | None:
    if length == 0 and not ended:
        return "nothing to read; wanted: a passphrase"
    if length > MAX_READ:
        return f"more than {MAX_READ} bytes; wanted: --keyfile-size"
    if length < size and not to_newline:
        return f"ends after {length} bytes; wanted: {size}"
    return None


def is_handed_on(fd: int) -> bool:
    """Whether another process may read this descriptor itself without having to wait."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def is_terminal(fd: int = 0) -> bool:
    """Whether somebody types there."""
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _wait_readable(fd: int, deadline: float | None) -> None:
    if deadline is None:
        return
    ready, _, _ = select.select([fd], [], [], max(deadline - time.monotonic(), 0))
    if not ready:
        raise UnlockError("passphrase: nothing typed in time (--timeout)")


@contextlib.contextmanager
def _open_terminal() -> Generator[tuple[int, int], None, None]:
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        yield 0, 2
        return
    try:
        yield fd, fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _echo_off(fd: int) -> Generator[None, None, None]:
    before = termios.tcgetattr(fd)
    silent = termios.tcgetattr(fd)
    silent[3] &= ~(termios.ECHO | termios.ECHOE | termios.ECHOK | termios.ECHONL)
    termios.tcsetattr(fd, termios.TCSAFLUSH, silent)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def _forbid_core_dumps() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
