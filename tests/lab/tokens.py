"""PKCS#11 tokens that are made for the tests: SoftHSM's, and openCryptoki's software token."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

PIN = "31415926"
_SO_PIN = "27182818"
_SOFTHSM_PATHS = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so")
_OPENCRYPTOKI_PATHS = (
    "/usr/lib/x86_64-linux-gnu/opencryptoki/libopencryptoki.so.0",
    "/usr/lib/aarch64-linux-gnu/opencryptoki/libopencryptoki.so.0",
    "/usr/lib64/opencryptoki/libopencryptoki.so",
)
_LABEL_IN_OPENCRYPTOKI = "lab"
#: Set in the processes that run beside an openCryptoki of their own.
BESIDE_OPENCRYPTOKI = "FUSECRYPT_TEST_OPENCRYPTOKI"


class SoftHsm:
    """SoftHSM with tokens in a directory; whoever uses them needs `environment`."""

    def __init__(self, directory: Path) -> None:
        self.module = _find(_SOFTHSM_PATHS, "softhsm2")
        self.tokens = directory / "tokens"
        self.tokens.mkdir(mode=0o700)
        configuration = directory / "softhsm2.conf"
        configuration.write_text(f"directories.tokendir = {self.tokens}\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(configuration)}

    def make(self, label: str, pin: str = PIN) -> str:
        """The URI of a new token."""
        subprocess.run(
            [
                *("softhsm2-util", "--init-token", "--free", "--label", label),
                *("--so-pin", _SO_PIN, "--pin", pin),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
        )
        return f"pkcs11:token={label}?module-path={self.module}"


def get_opencryptoki_uri() -> str:
    """The token of the openCryptoki that this process runs beside."""
    module = _find(_OPENCRYPTOKI_PATHS, "opencryptoki")
    return f"pkcs11:token={_LABEL_IN_OPENCRYPTOKI}?module-path={module}"


def run_beside_opencryptoki(command: Sequence[str]) -> None:
    """Run a command beside an openCryptoki of its own; skips where that cannot be."""
    _find(_OPENCRYPTOKI_PATHS, "opencryptoki")
    if os.geteuid() != 0:
        pytest.skip("only root gives openCryptoki, which has fixed paths, namespaces of its own")
    script = Path(__file__).with_name("opencryptoki.sh")
    can = subprocess.run(
        [
            "unshare",
            "--mount",
            "--ipc",
            "--pid",
            "--fork",
            "--mount-proc",
            "mount",
            "--make-rprivate",
            "/",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if can.returncode != 0:
        pytest.skip(f"no namespaces for openCryptoki: {can.stderr.strip()}")
    environment = {
        **os.environ,
        BESIDE_OPENCRYPTOKI: "1",
        "TOKEN_LABEL": _LABEL_IN_OPENCRYPTOKI,
        "TOKEN_PIN": PIN,
    }
    done = subprocess.run(
        [str(script), *command],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def _find(paths: Sequence[str], package: str) -> str:
    for path in paths:
        if Path(path).exists() and (package != "softhsm2" or shutil.which("softhsm2-util")):
            return path
    pytest.skip(f"no {package} on this machine")
