"""fusecrypt as its users run it: processes, a mount, a command line, in directories of their own.

An `Instance` finds its processes by the runtime directory that stands in their initial environment
(each fusecrypt process keeps it there), and ends them by pid.
"""

import contextlib
import json
import os
import pwd
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
USER_ID = 65534  # nobody: an ordinary user without any privilege
START_TIMEOUT = 60.0  # generous: a loaded machine is no failure
STOP_TIMEOUT = 30.0


class ProductError(AssertionError):
    """fusecrypt did not do what every test relies on."""


def command(name: str) -> list[str]:
    """How to run ``fusecrypt`` or ``fusecryptd``: the installed command, else the module."""
    script = Path(sys.executable).parent / name
    if script.exists():
        return [str(script)]
    module = {
        "fusecrypt": "fusecrypt.daemon.cli",
        "fusecryptd": "fusecrypt.daemon.__main__",
        "fusecrypt-keystored": "fusecrypt.daemon.keystored.__main__",
    }[name]
    return [sys.executable, "-c", f"import sys; from {module} import main; sys.exit(main())"]


def why_no_fuse(*, as_user: bool = False) -> str | None:
    """Why no FUSE mount can be made here; None when one can."""
    if not Path("/dev/fuse").exists():
        return "no /dev/fuse"
    if (as_user or os.geteuid() != 0) and shutil.which("fusermount3") is None:
        return "no fusermount3 (Debian package fuse3)"
    if as_user and os.geteuid() != 0:
        return "only root can start processes of another user"
    if as_user:
        helper = Path(shutil.which("fusermount3") or "/").stat()
        if not helper.st_mode & stat.S_ISUID:
            return "fusermount3 is not setuid"
        reachable = subprocess.run(
            [
                *_as_user(USER_ID),
                sys.executable,
                "-c",
                f"import sys; open({str(ROOT)!r} + '/pyproject.toml')",
            ],
            capture_output=True,
            check=False,
        )
        if reachable.returncode:
            return f"an ordinary user may not read {ROOT} or run {sys.executable}"
    return None


# A daemon whose test run was killed ends in good order by itself (PR_SET_PDEATHSIG).
_DIES_WITH_US = ("setpriv", "--pdeathsig", "TERM")


def _as_user(uid: int) -> list[str]:
    group = pwd.getpwuid(uid).pw_gid
    return ["setpriv", f"--reuid={uid}", f"--regid={group}", "--clear-groups", "--"]


def mounts_below(directory: Path) -> list[Path]:
    """Mount points at or below a directory, the deepest first; dead ones are listed as well."""
    prefix = str(directory)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4].encode().decode("unicode_escape")
        if place == prefix or place.startswith(prefix + "/"):
            found.append(Path(place))
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def processes_in(runtime_dir: Path) -> dict[int, str]:
    """All living processes that were started with a runtime directory: pid to command line."""
    wanted = f"FUSECRYPT_RUNTIME_DIR={runtime_dir}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted not in (entry / "environ").read_bytes().split(b"\0"):
                    continue
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if words:  # a zombie has none
                    found[int(entry.name)] = words
    return found


def wait_for(condition, what: str, timeout: float = START_TIMEOUT):
    """Wait until ``condition()`` is true and return it.

    Raises:
        ProductError: it is not true in time.
    """
    limit = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise ProductError(f"{what}: not so after {timeout:.0f} s")
        time.sleep(0.01)


def make_environment(home: Path) -> dict[str, str]:
    """One that holds nothing of whoever runs the tests: no settings, and no language."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(home), "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Result:
    """What a command said and how it ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self):
        """Standard output as a JSON value."""
        return json.loads(self.stdout)

    def __str__(self) -> str:
        return f"status {self.status}\nstdout: {self.stdout}\nstderr: {self.stderr}"


class Instance:
    """One runtime directory, with whatever daemon serves in it."""

    def __init__(self, directory: Path, uid: int | None = None) -> None:
        """Make the directories below ``directory``; run everything as ``uid`` when given."""
        self.directory = directory
        self.uid = uid
        self.runtime_dir = directory / "run"
        self.crypttab = directory / "crypttab"
        self.log = directory / "daemon.log"
        self.environment = {
            **make_environment(directory),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "FUSECRYPT_RUNTIME_DIR": str(self.runtime_dir),
            "FUSECRYPT_STATE_DIR": str(directory / "state"),
            "FUSECRYPT_CRYPTTAB": str(self.crypttab),
            "ZKEY_REPOSITORY": str(directory / "zkey"),
        }
        for path in (self.runtime_dir, directory / "state", directory / "config"):
            path.mkdir(mode=0o700)
            self.own(path)
        self.crypttab.write_text("")
        self.own(self.crypttab)
        self.daemon_command = command("fusecryptd")
        self._daemon: subprocess.Popen | None = None
        self._notify: socket.socket | None = None

    # --- places ---

    def own(self, path: Path) -> Path:
        """Give a file to the user who runs fusecrypt here."""
        if self.uid is not None:
            os.chown(path, self.uid, pwd.getpwuid(self.uid).pw_gid)
        return path

    def device(self, name: str) -> Path:
        return self.runtime_dir / "dev" / "mapper" / name

    def write_file(self, name: str, data: bytes, mode: int = 0o600) -> Path:
        """A file beside the instance's directories, its user's own."""
        path = self.directory / name
        path.write_bytes(data)
        path.chmod(mode)
        return self.own(path)

    # --- commands ---

    def _prefix(self) -> list[str]:
        return [] if self.uid is None else _as_user(self.uid)

    def run(self, *arguments, stdin: bytes = b"", timeout: float = 120.0) -> Result:
        """Run ``fusecrypt`` with arguments, whatever it returns."""
        result = subprocess.run(
            [*self._prefix(), *command("fusecrypt"), *map(str, arguments)],
            input=stdin,
            capture_output=True,
            env=self.environment,
            cwd=self.directory,
            timeout=timeout,
            check=False,
        )
        return Result(
            result.returncode,
            result.stdout.decode(errors="replace"),
            result.stderr.decode(errors="replace"),
        )

    def cli(self, *arguments, stdin: bytes = b"") -> Result:
        """Run ``fusecrypt`` and insist on status 0."""
        result = self.run(*arguments, stdin=stdin)
        if result.status:
            words = " ".join(map(str, arguments))
            raise ProductError(f"fusecrypt {words}: {result}\n{self.read_log()}")
        return result

    def io(self, script: str, *arguments) -> subprocess.CompletedProcess:
        """Run Python code as this instance's user: root may not look into a user's mount."""
        return subprocess.run(
            [*self._prefix(), sys.executable, "-I", "-c", script, *map(str, arguments)],
            capture_output=True,
            check=False,
        )

    # --- the daemon ---

    def start(self, *lines: str, wait: bool = True) -> None:
        """Start ``fusecryptd`` in the foreground with a crypttab of ``lines``."""
        if lines:
            self.crypttab.write_text("".join(line + "\n" for line in lines))
        environment = {**self.environment, "NOTIFY_SOCKET": str(self._listen())}
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [
                    *_DIES_WITH_US,
                    *(*self._prefix()[1:], *self.daemon_command),
                    *("--runtime-dir", str(self.runtime_dir), "--crypttab", str(self.crypttab)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.directory,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def _listen(self) -> Path:
        """Hear from the daemon as systemd does (sd_notify(3))."""
        self._hang_up()
        path = self.directory / "notify"
        path.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(path))
        self._notify.settimeout(0.2)
        self.own(path)
        return path

    def _hang_up(self) -> None:
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    def run_daemon(self, *arguments, timeout: float = 120.0) -> Result:
        """Run ``fusecryptd`` with arguments until it returns, as it does with ``--fork``."""
        result = subprocess.run(
            [*self._prefix(), *self.daemon_command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self.environment,
            cwd=self.directory,
            timeout=timeout,
            check=False,
        )
        return Result(
            result.returncode,
            result.stdout.decode(errors="replace"),
            result.stderr.decode(errors="replace"),
        )

    def wait_ready(self) -> None:
        """Wait until the daemon says READY=1: it serves and has tried all crypttab entries."""
        assert self._daemon is not None
        assert self._notify is not None
        limit = time.monotonic() + START_TIMEOUT
        while time.monotonic() < limit:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in self._notify.recv(4096).split(b"\n"):
                    return
            if self._daemon.poll() is not None:
                status = self._daemon.returncode
                raise ProductError(f"fusecryptd ended with status {status}\n{self.read_log()}")
        raise ProductError(f"fusecryptd is not ready\n{self.read_log()}")

    def read_log(self) -> str:
        """What the daemon has said so far."""
        texts = [
            p.read_text(errors="replace")
            for p in (self.log, self.runtime_dir / "log")
            if p.exists()
        ]
        return "\n".join(texts)

    def pids(self) -> dict[int, str]:
        """All living processes of this instance: pid to command line."""
        return processes_in(self.runtime_dir)

    def pid(self, word: str) -> int:
        """The one process with ``word`` in its command line."""
        found = [pid for pid, words in self.pids().items() if word in words]
        if len(found) != 1:
            raise ProductError(f"{word}: processes {found} of {self.pids()}, wanted one")
        return found[0]

    @property
    def daemon_pid(self) -> int:
        return self._daemon.pid if self._daemon is not None else self.pid("fusecryptd")

    @property
    def engine_pid(self) -> int:
        return self.pid("fusecrypt.dmcrypt.engine")

    def signal(self, pid: int, number: int) -> None:
        os.kill(pid, number)

    def wait_daemon(self, timeout: float = STOP_TIMEOUT) -> int:
        """The exit status of the daemon that `start` started."""
        assert self._daemon is not None
        status = self._daemon.wait(timeout)
        self._daemon = None
        return status

    def stop(self) -> int:
        """SIGTERM to the daemon; its exit status, once everything of the instance is gone."""
        if self._daemon is None:
            pid = self.pid("fusecryptd")
            pidfd = os.pidfd_open(pid)
            os.kill(pid, signal.SIGTERM)
            gone, _, _ = select.select([pidfd], [], [], STOP_TIMEOUT)
            os.close(pidfd)
            if not gone:
                raise ProductError("the daemon does not end on SIGTERM")
            status = 0
        else:
            self._daemon.terminate()
            status = self.wait_daemon()
        self.wait_gone()
        return status

    def wait_gone(self) -> None:
        """Wait until no process and no mount of the instance is left."""
        wait_for(lambda: not self.pids(), "all processes gone", STOP_TIMEOUT)
        wait_for(lambda: not mounts_below(self.directory), "no mount left", STOP_TIMEOUT)

    def destroy(self) -> list[str]:
        """End everything at once, by pid; what was left over, for the test to complain of."""
        self._hang_up()
        left = [f"{pid}: {words}" for pid, words in self.pids().items()]
        for _ in range(100):
            pids = self.pids()
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self._daemon is not None:
                self._daemon.poll()
            time.sleep(0.02)
        if self._daemon is not None:
            self._daemon.wait()
        for mountpoint in mounts_below(self.directory):
            left.append(f"mount {mountpoint}")
            subprocess.run(["umount", "-l", mountpoint], check=False, capture_output=True)
        return left


@contextlib.contextmanager
def running(parent: Path, uid: int | None = None) -> Iterator[Instance]:
    """An instance that is gone afterwards, whatever happened."""
    directory = Path(tempfile.mkdtemp(prefix="fusecrypt-test.", dir=parent))
    directory.chmod(0o755)
    instance = Instance(directory, uid)
    instance.own(directory)
    try:
        yield instance
    except BaseException:
        sys.stderr.write(instance.read_log())
        raise
    finally:
        instance.destroy()
        shutil.rmtree(directory, ignore_errors=True)
