"""One header, two tools: who comes second waits until the first is done, and loses nothing."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusecrypt.dmcrypt import backing
from tests.lab.header_volume import PROGRAM, Lab

pytestmark = pytest.mark.skipif(
    shutil.which("cryptsetup") is None or shutil.which("strace") is None,
    reason="no cryptsetup, or no strace",
)

#: Holds the lock that it gets first for so long.
HOLD = 1.2
SLOWLY = ("strace", "-qq", "-f", "-o", "/dev/null", "-e", "trace=flock", "-e",
          f"inject=flock:delay_exit={HOLD * 1e6:.0f}:when=1")  # fmt: skip
OURS = (sys.executable, "-c", PROGRAM, "config", "--label", "ours")
THEIRS = ("cryptsetup", "token", "add", "--key-description", "theirs")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def loop(lab: Lab) -> Iterator[Path]:
    """A volume on a loop device."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    image = lab.image()
    made = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr}")
    device = Path(made.stdout.strip())
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def run_both(lab: Lab, path: Path, first: tuple[str, ...], second: tuple[str, ...]) -> None:
    """``first`` gets the lock and dawdles; ``second`` must not be done before it."""
    began = time.monotonic()
    slow = subprocess.Popen([*SLOWLY, *first, path], env=lab.environment)
    try:
        while not _holds_lock(slow.pid):
            assert slow.poll() is None, "it never took the lock"
            time.sleep(0.005)
        quick = subprocess.run([*second, path], env=lab.environment, check=False)
        waited = time.monotonic() - began
        assert slow.wait(30) == 0
    finally:
        slow.kill()
        slow.wait()
    assert quick.returncode == 0
    assert waited > HOLD
    found = lab.metadata(path)
    assert [token["key_description"] for token in found["tokens"].values()] == ["theirs"]
    assert "Label:         \tours\n" in lab.real_ok("luksDump", path)


def _holds_lock(pid: int) -> bool:
    """Whether a process or one of its children has locked a file (proc(5), fdinfo).

    Not by locking it ourselves, which would be in the way of who is to be the first.
    """
    with contextlib.suppress(OSError):  # it ends just now
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        infos = [path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir()]
        return any("FLOCK" in info for info in infos) or any(map(_holds_lock, map(int, children)))
    return False


def test_we_wait_for_the_real_tool(lab: Lab) -> None:
    run_both(lab, lab.image(), THEIRS, OURS)


def test_the_real_tool_waits_for_us(lab: Lab) -> None:
    run_both(lab, lab.image(), OURS, THEIRS)


@pytest.mark.root
def test_we_wait_for_the_real_tool_at_a_device(lab: Lab, loop: Path) -> None:
    run_both(lab, loop, THEIRS, OURS)


@pytest.mark.root
def test_the_real_tool_waits_for_us_at_a_device(lab: Lab, loop: Path) -> None:
    run_both(lab, loop, OURS, THEIRS)


@pytest.mark.root
def test_a_lock_file_that_was_removed_meanwhile_is_no_lock(
    loop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cryptsetup removes its own when it is done; who waited for it holds a name that is gone."""
    real = backing.open_device_lock
    removed: list[Path] = []

    def open_then_remove(asked: int) -> int | None:
        opened = real(asked)
        if not removed:
            removed.append(Path(os.readlink(f"/proc/self/fd/{opened}")))
            removed[0].unlink()
        return opened

    monkeypatch.setattr(backing, "open_device_lock", open_then_remove)
    fd = os.open(loop, os.O_RDWR)
    try:
        with (
            backing.locked(fd, exclusive=True),
            removed[0].open("rb") as file,
            pytest.raises(BlockingIOError),
        ):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        os.close(fd)


def test_two_of_ours_at_once_lose_nothing(lab: Lab) -> None:
    image = lab.image()
    words = [sys.executable, "-c", PROGRAM, "token", "add", image, "--key-description"]
    running = [subprocess.Popen([*words, str(n)], env=lab.environment) for n in range(5)]
    assert [process.wait(60) for process in running] == [0] * 5
    names = {token["key_description"] for token in lab.metadata(image)["tokens"].values()}
    assert names == {str(n) for n in range(5)}
