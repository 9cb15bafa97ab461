"""Processes and threads that wait for a device, and how it is known that they do.

Source: proc(5), /proc/PID/syscall: the number of the call that a task sleeps in.
"""

import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.product import wait_for

READ = "os.pread(os.open(sys.argv[1], os.O_RDONLY), 4096, 0)"
WRITE = "os.pwrite(os.open(sys.argv[1], os.O_WRONLY), b'x' * 4096, 0)"
SYNC = "os.fsync(os.open(sys.argv[1], os.O_WRONLY))"

#: pread64, pwrite64, fsync, preadv2 and pwritev2 of x86-64; of AArch64. Not one of these numbers is
#: a call of the other that a Python program sleeps in.
_CALLS = {"17", "18", "74", "327", "328"} | {"67", "68", "82", "286", "287"}
#: Seconds. A sleeping task's request is in the kernel's queue; the engine takes it out in no time.
_MOMENT = 0.1


def start_waiting(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A process of its own in ``code``, when it waits for a device."""
    words = [sys.executable, "-I", "-c", f"import os, sys\n{code}", *map(str, arguments)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    wait_until_waiting(process)
    return process


def wait_until_waiting(*waiting: subprocess.Popen | threading.Thread) -> None:
    """Wait until each of them waits for a device, and the engine has had time to see it."""
    for each in waiting:
        wait_for(lambda each=each: _is_in_io(each), f"{each} waits")
    time.sleep(_MOMENT)
    for each in waiting:
        assert _is_in_io(each), f"{each} no longer waits"


def _is_in_io(each: subprocess.Popen | threading.Thread) -> bool:
    if isinstance(each, subprocess.Popen):
        assert each.poll() is None, f"{each} has ended"
        task = Path(f"/proc/{each.pid}")
    else:
        assert each.is_alive(), f"{each} has ended"
        task = Path(f"/proc/self/task/{each.native_id}")
    return (task / "syscall").read_text().split()[0] in _CALLS
