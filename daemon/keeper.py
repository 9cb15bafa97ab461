"""The mount keeper: unmounts when neither daemon nor engine is left to do it.

A program of its own, started by path with ``-I -S``, with nothing but `os` and `select`, because it
stays for as long as the mount and does nothing. It never holds a descriptor of the FUSE connection.

Descriptor 0 is a pipe whose write end only the daemon holds, descriptor 1 one whose write end only
the engine holds (until the engine has started, the daemon too) and nobody writes to: end of file on
both means that both are gone. The daemon writes lines on the first: ``mounted MAJOR:MINOR`` names
the mount, ``quit`` ends the keeper because the daemon has unmounted itself.
"""

from __future__ import annotations

import os
import select
import signal
import sys

# Known to type checkers; typing itself would take a megabyte of this process.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DAEMON_FD: Final = 0
ENGINE_FD: Final = 1
_MNT_DETACH: Final = 2


def find_mount(mountinfo: bytes, mountpoint: str) -> str | None:
    """``MAJOR:MINOR`` of the topmost fuse.fusecrypt mount there, from a /proc/PID/mountinfo."""
    found = None
    for line in mountinfo.splitlines():
        fields = line.split(b" ")
        if b"-" not in fields[6:]:
            continue
        # proc(5): blank, tab, newline and backslash are octal in paths.
        path = fields[4]
        for code in (b"040", b"011", b"012", b"134"):
            path = path.replace(b"\\" + code, bytes([int(code, 8)]))
        kind = fields[fields.index(b"-", 6) + 1]
        if kind == b"fuse.fusecrypt" and path == os.fsencode(mountpoint):
            found = fields[2].decode()
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 (pathlib would double the size of this process)
        return file.read()


def unmount(mountpoint: str, device: str | None) -> int:
    """Take the mount away, busy or not, if it is still the one that was guarded. Exit status."""
    found = find_mount(_read("/proc/self/mountinfo"), mountpoint)
    if found is None or device not in (None, found):
        return 0
    # Imported here: most keepers end without it.
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(mountpoint), _MNT_DETACH) == 0:
        return 0
    program = "fusermount3"
    try:
        os.execvp(program, [program, "-u", "-z", "-q", "--", mountpoint])  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"keeper: {mountpoint}: cannot start {program}: {error.strerror}\n")
    return 1


def watch() -> str | None:
    """Wait until the mount must go; the device number of the mount, or None if it is not known.

    Raises:
        SystemExit: the daemon has unmounted.
    """
    wake, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(woken)
    poll = select.poll()
    for fd in (DAEMON_FD, ENGINE_FD, wake):
        poll.register(fd, select.POLLIN)
    living = {DAEMON_FD, ENGINE_FD}
    is_ended = False
    words = b""
    while living and not (is_ended and DAEMON_FD not in living):
        for fd, _ in poll.poll():
            data = os.read(fd, 256)
            if fd == wake:
                is_ended = is_ended or signal.SIGTERM in data
            elif data:
                words += data
            else:
                poll.unregister(fd)
                living.discard(fd)
        if b"quit\n" in words:
            raise SystemExit(0)
    for line in words.splitlines():
        if line.startswith(b"mounted "):
            return line.removeprefix(b"mounted ").decode()
    return None


def main() -> int:
    """Guard the mount point named by the only argument."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # A handler is needed for the wake-up descriptor; while the daemon lives, it decides.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    os.chdir("/")
    return unmount(sys.argv[1], watch())


if __name__ == "__main__":
    sys.exit(main())
