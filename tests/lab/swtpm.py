"""A TPM 2.0 in software, for one test: swtpm, spoken to by tpm2-tools."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

TOOLS = ("swtpm", "tpm2_createprimary", "tpm2_unseal")


def find_missing() -> str:
    """The first program that is not installed; empty: all are."""
    return next((name for name in TOOLS if shutil.which(name) is None), "")


@contextlib.contextmanager
def running_tpm(directory: Path):
    """The value of TPM2TOOLS_TCTI for the length of a block; its state is in the directory."""
    directory.mkdir(exist_ok=True)
    sock = directory / "sock"
    process = subprocess.Popen(
        [
            *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={directory}"),
            *("--server", f"type=unixio,path={sock}", "--ctrl", f"type=unixio,path={sock}.ctrl"),
            *("--flags", "not-need-init,startup-clear"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # it tells of every connection
    )
    try:
        deadline = time.monotonic() + 10
        while not sock.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"swtpm does not run: status {process.poll()}")
            time.sleep(0.01)
        yield f"swtpm:path={sock}"
    finally:
        process.terminate()
        process.wait(10)


def extend(tcti: str, pcr: int) -> None:
    """Change a PCR, as another boot would."""
    subprocess.run(
        ["tpm2_pcrextend", f"{pcr}:sha256={os.urandom(32).hex()}"],
        env={**os.environ, "TPM2TOOLS_TCTI": tcti},
        check=True,
        capture_output=True,
    )
