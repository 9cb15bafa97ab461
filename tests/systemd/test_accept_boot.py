"""`systemctl start`, reboot, crash and stop of the service, with root's crypttab and fstab."""

import os
from pathlib import Path

import pytest

from tests.systemd import machine

BOOT = machine.MACHINE / "boot.sh"


# The first run on a machine makes its root file system from some 70 packages.
@pytest.mark.timeout(900)
@pytest.mark.root
def test_a_container_opens_and_mounts_at_boot_and_heals(installed):
    reason = machine.why_no_container()
    if reason:
        pytest.skip(reason)
    if not any(Path("/dev").glob("loop[0-9]*")):
        pytest.skip("no loop devices")
    assert "all well" in machine.boot("container", installed, BOOT, 180)


@pytest.mark.root
@pytest.mark.vm
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not os.environ.get("FUSECRYPT_TEST_VM"), reason="runs with make test-vm")
def test_a_virtual_machine_opens_and_mounts_at_boot_and_heals(installed):
    assert "all well" in machine.boot("vm", installed, BOOT, 1200)
