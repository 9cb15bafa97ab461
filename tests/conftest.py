"""Fixtures that more than one folder of tests uses."""

import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.lab import vm
from tests.product import USER_ID, Instance, mounts_below, running, why_no_fuse


def pytest_configure() -> None:
    """Have tests depend neither on who started them nor on what else runs."""
    # A shell ignores SIGINT for what it starts in the background, and programs inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # By default an example that takes 200 ms, which it does when the machine is busy, is a failure.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


@pytest.fixture(autouse=True)
def same_process() -> Iterator[None]:
    """What a command's ``main`` does to its process ends with the test that calls it in ours."""
    hook, root, noisy = sys.excepthook, logging.getLogger(), logging.getLogger("pyfuse3")
    handlers, level, noise = root.handlers[:], root.level, noisy.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    sys.excepthook = hook
    for number, handler in signals.items():
        signal.signal(number, handler)
    root.handlers[:] = handlers
    root.setLevel(level)
    noisy.setLevel(noise)


@pytest.fixture(scope="session", autouse=True)
def no_mount_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Who removes these directories one day would run into it."""
    yield
    assert mounts_below(tmp_path_factory.getbasetemp()) == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that cannot run on this machine are skipped, with the reason in the summary."""
    reason = vm.why_not() if any(item.get_closest_marker("vm") for item in items) else None
    for item in items:
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        if item.get_closest_marker("vm") and reason:
            item.add_marker(pytest.mark.skip(reason=reason))


_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def record_figure(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Have a measured value shown in the summary; it decides nothing."""
    figures = request.config.stash.setdefault(_FIGURES, [])

    def record(name: str, value: object) -> None:
        figures.append(f"{request.node.name}: {name}: {value}")

    return record


class FailuresAtOnce:
    """Names a failed test with its reason when it fails, and not only after half an hour."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest after each phase of each test."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message if crash else report.longreprtext
            self._terminal.ensure_newline()
            self._terminal.line(f"{report.when} of {report.nodeid} failed: {reason}", red=True)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Has failures named at once."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        session.config.pluginmanager.register(FailuresAtOnce(terminal))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what `record_figure` was given."""
    figures = terminalreporter.config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("figures")
        for figure in figures:
            terminalreporter.line(figure)


@pytest.fixture(scope="session")
def scratch() -> Path:
    """Where instances live: short paths that every user may enter, on a memory file system."""
    shared = Path("/dev/shm")  # of 64 MiB in many a container, where two images fill it
    is_usable = os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 1 << 30
    return shared if is_usable else Path("/tmp")


@pytest.fixture
def instance(scratch: Path) -> Iterator[Instance]:
    """Directories, crypttab and command line of one fusecrypt of the caller's own."""
    reason = why_no_fuse()
    if reason:
        pytest.skip(reason)
    with running(scratch) as made:
        yield made


@pytest.fixture(scope="session")
def fuse_for_users() -> Iterator[None]:
    """/dev/fuse as udev's own rule makes it on every machine: mode 0666; afterwards as it was.

    fusermount3 opens it with its caller's rights, setuid or not.
    """
    device = Path("/dev/fuse")
    mode = device.stat().st_mode & 0o7777 if device.exists() else 0o666
    if os.geteuid() == 0 and mode & 0o666 != 0o666:
        device.chmod(0o666)
        yield
        device.chmod(mode)
    else:
        yield


@pytest.fixture
def user_instance(scratch: Path, fuse_for_users: None) -> Iterator[Instance]:  # noqa: ARG001
    """The same for an ordinary user without any privilege."""
    reason = why_no_fuse(as_user=True)
    if reason:
        pytest.skip(reason)
    with running(scratch, USER_ID) as made:
        yield made
