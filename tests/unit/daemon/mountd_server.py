"""fusecrypt-mountd in a thread, with directories and a crypttab of its own."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fusecrypt.daemon import keeper
from fusecrypt.daemon.config import CrypttabSource
from fusecrypt.daemon.mountd import client
from fusecrypt.daemon.mountd.opening import Opener
from fusecrypt.daemon.mountd.server import Client, Server
from tests.product import mounts_below

DAEMON = 65534  # nobody stands for the user fusecrypt
STRANGER = 65533


class Mountd:
    """The server, and how to ask it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "mountd.sock"
        self.run = directory / "run"
        self.run.mkdir(mode=0o755)
        self.mount_point = self.run / "dev"
        self.mount_point.mkdir(mode=0o755)
        for path in (self.run, self.mount_point):
            os.chown(path, DAEMON, DAEMON)
        self.crypttab = directory / "crypttab"
        self.crypttab.write_text("")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(self.socket))
        self.socket.chmod(0o666)
        self.listener.listen(8)
        sources = (CrypttabSource(self.crypttab, whole=True, required=False),)
        opener = Opener(self.mount_point, sources)
        self.server = Server(Client(DAEMON, DAEMON), self.mount_point, opener)
        self.thread = threading.Thread(target=self.server.serve, args=(self.listener,), daemon=True)
        self.thread.start()

    def write_crypttab(self, *lines: str) -> None:
        self.crypttab.write_text("".join(f"{line}\n" for line in lines))

    def file(self, name: str, owner: int = 0, content: bytes = b"x" * 4096) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        os.chown(path, owner, owner)
        path.chmod(0o400)
        return path

    def call(self, method: str, **fields: object) -> client.Answer:
        return client.call(self.socket, method, timeout=10, **fields)

    def stop(self) -> None:
        """End it, when all that was asked for is done."""
        self.listener.shutdown(socket.SHUT_RDWR)
        # It may only just have begun, and needs the descriptor to see the end.
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.listener.close()
        self.wait_idle()

    def wait_idle(self) -> None:
        """Come back when no connection is served."""
        for thread in list(self.server.threads):
            thread.join(10)
            assert not thread.is_alive()

    def device(self) -> str | None:
        return keeper.find_mount(Path("/proc/self/mountinfo").read_bytes(), str(self.mount_point))


@contextmanager
def running_mountd() -> Iterator[Mountd]:
    with ExitStack() as stack:
        # Below /run, whose directories are root's as the service's are; /tmp is everybody's.
        directory = Path(tempfile.mkdtemp(prefix="fusecrypt-test.", dir="/run"))
        stack.callback(remove, directory)
        directory.chmod(0o755)
        made = Mountd(directory)
        stack.callback(made.stop)
        yield made


def remove(directory: Path) -> None:
    for place in mounts_below(directory):
        subprocess.run(["umount", "-l", place], check=True)
    shutil.rmtree(directory)


def read_all(fds: list[int]) -> list[bytes]:
    contents = [os.pread(fd, 100, 0) for fd in fds]
    for fd in fds:
        os.close(fd)
    return contents
