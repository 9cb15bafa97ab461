"""The real dm-crypt in a virtual machine (lab.sh), for tests."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = ("qemu-system-x86_64", "busybox", "cpio", "dmsetup", "lz4", "xxd", "cryptsetup")


class VmError(Exception):
    """The virtual machine could not be made, died, or its script failed."""


def why_not() -> str | None:
    """Why no VM can run here; None when one can."""
    if platform.machine() != "x86_64":
        return f"the VM is built for x86_64, this is {platform.machine()}"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = [word for word in NEEDED if shutil.which(word, path=path) is None]
    return f"not installed: {' '.join(absent)} (tests/lab/install.sh --vm)" if absent else None


def run(
    script: str, disks: Sequence[Path | str], inputs: Sequence[Path] = (), seconds: int = 120
) -> str:
    """Run a shell script as root in the VM and return what it printed.

    Raises:
        VmError: with the output, when the script did not end with status 0.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        arguments = [word for path in inputs for word in ("-i", str(path))]
        result = subprocess.run(
            [
                *("bash", str(HERE / "lab.sh"), "-t", str(seconds), *arguments),
                *(file.name, *map(str, disks)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise VmError(f"status {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result.stdout
