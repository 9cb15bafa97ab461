"""What each unit could reach, by systemd's own reckoning, and whether systemd takes the files."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.product import ROOT
from tests.systemd import machine

UNITS = ROOT / "systemd"
# systemd-analyze(1): 0 is perfect, 10 is none at all.
LIMITS = {
    "fusecryptd": 0.5,
    "fusecrypt-engine@": 0.5,
    "fusecrypt-keystored": 0.5,
    "fusecrypt-mountd": 3.5,
}

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The system's units as `make install` writes them, with commands that are there."""
    for unit in (UNITS / "system").iterdir():
        text = unit.read_text().replace("@PREFIX@", str(tmp_path))
        (tmp_path / unit.name).write_text(text)
    (tmp_path / "bin").mkdir()
    for name in LIMITS:
        (tmp_path / "bin" / name).symlink_to("/bin/true")
    return tmp_path


def analyze(unit: Path, limit: float) -> str:
    """How exposed a unit is, which is no more than allowed."""
    result = subprocess.run(
        [
            *("systemd-analyze", "security", "--offline=true", "--no-pager"),
            *(f"--threshold={limit * 10:.0f}", unit),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for \S+: (\d+\.\d)", result.stdout)
    assert found, result.stderr
    assert result.returncode == 0, result.stdout
    assert float(found[1]) <= limit
    return found[1]


@pytest.mark.parametrize("name", LIMITS)
def test_a_unit_is_exposed_no_more_than_allowed(units, name, record_figure):
    record_figure("exposure", analyze(units / f"{name}.service", LIMITS[name]))


def read_told_exposures() -> dict[str, str]:
    """What the manual says of keystored's unit with each of its drop-ins."""
    table = re.search(
        r"\| drop-in \| exposure \|\n\|---\|---\|\n((?:\|.*\n)+)", machine.MANUAL.read_text()
    )
    assert table
    return dict(re.findall(r"^\| (.+) \| (\d+\.\d) \|$", table[1], re.MULTILINE))


def test_keystored_is_exposed_as_the_manual_says_of_each_drop_in(units):
    unit = units / "fusecrypt-keystored.service"
    measured = {"none": analyze(unit, LIMITS["fusecrypt-keystored"])}
    (units / f"{unit.name}.d").mkdir()
    for heading, drop_in in machine.read_drop_ins().items():
        (units / f"{unit.name}.d" / "override.conf").write_text(drop_in)
        measured[heading] = analyze(unit, 1.5)
    assert measured == read_told_exposures()


def test_the_threshold_is_one_that_fails(units):
    unit = units / "fusecryptd.service"
    unit.write_text(unit.read_text().replace("NoNewPrivileges=yes", "").replace("User=", "#"))
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=5", unit],
        capture_output=True,
        check=False,
    )
    assert result.returncode != 0


def test_the_helper_has_no_mount_namespace_of_its_own():
    # systemd.exec(5): each of these makes one, in which a mount would stay unseen.
    makers = (
        "Protect(System|Home|Proc|Kernel(Tunables|Modules|Logs)|ControlGroups)|ProcSubset"
        "|Private(Tmp|Devices|Mounts|IPC|Network|Users)|TemporaryFileSystem|(ReadOnly|ReadWrite"
        "|Inaccessible|Exec|NoExec|Bind|BindReadOnly)Paths|Root(Directory|Image)|DynamicUser"
        "|(State|Cache|Logs|Runtime|Configuration)Directory"
    )
    unit = (UNITS / "system" / "fusecrypt-mountd.service").read_text()
    assert not re.findall(rf"^(?:{makers})=", unit, re.MULTILINE)


def test_a_users_daemon_may_start_the_setuid_helper():
    # systemd.exec(5): without a right to set it, each filter implies NoNewPrivileges=.
    unit = (UNITS / "user" / "fusecryptd.service").read_text()
    assert not re.findall(
        r"^(NoNewPrivileges|SystemCall|Restrict|Protect|Private|Lock|Memory)\w*=",
        unit,
        re.MULTILINE,
    )


def test_units_name_commands_where_they_are_installed():
    for unit in (*(UNITS / "system").iterdir(), *(UNITS / "user").iterdir()):
        for command in re.findall(r"^ExecStart=(\S+)", unit.read_text(), re.MULTILINE):
            assert command.startswith("@PREFIX@/bin/fusecrypt"), unit
