"""fusecrypt-engine.socket as systemd would serve it: an engine for each connection."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# sd_listen_fds(3): descriptor 3, and the pid of the process that shall have it.
_START = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-I", "-m", "fusecrypt.dmcrypt.engine.unit"])
"""


class Units:
    """A socket, and the directory in which each engine has a place of its own."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "engine.sock"
        self.engines = directory / "fusecrypt-engine"
        self.engines.mkdir(mode=0o755)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.socket))
        self.listener.listen(4)
        threading.Thread(target=self._accept_all, daemon=True).start()

    def _accept_all(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                place = self.engines / str(len(self.processes))
                place.mkdir(mode=0o750, exist_ok=True)
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", _START, str(connection.fileno())],
                        env={**os.environ, "RUNTIME_DIRECTORY": str(place)},
                        pass_fds=[connection.fileno()],
                    )
                )


@contextmanager
def engine_units() -> Iterator[Units]:
    # Not pytest's directory: the path of a socket has 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="fusecrypt-units."))
    units = Units(directory)
    try:
        yield units
    finally:
        units.listener.shutdown(socket.SHUT_RDWR)
        units.listener.close()
        for process in units.processes:
            process.kill()
            process.wait()
        shutil.rmtree(directory)
