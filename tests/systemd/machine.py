"""Machines that boot the installed product: a container, and a virtual machine."""

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

from tests.product import ROOT, command

MACHINE = ROOT / "tests" / "systemd" / "machine"
MANUAL = ROOT / "docs" / "manual" / "fusecrypt-systemd.7.md"
EXTRAS = "pkcs11"
IMAGE_SIZE = 48 << 20
KEYS = {"data": b"key of data", "raw": b"key of raw", "asked": b"typed"}
CRYPTTAB = """\
data /srv/data.img /etc/keys/data.key noauto,x-fusecrypt
raw /srv/raw.img /etc/keys/raw.key noauto,x-fusecrypt
asked /srv/asked.img none noauto,x-fusecrypt
other /srv/other.img none luks,noauto
"""


def why_no_container() -> str | None:
    """Why no container with systemd can run here; None when one can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [w for w in ("systemd-nspawn", "mmdebstrap", "script") if shutil.which(w) is None]
    if absent:
        return f"not installed: {' '.join(absent)}"
    if not Path("/dev/fuse").exists():
        return "no /dev/fuse"
    namespace = ["unshare", "--mount", "--propagation", "slave", "true"]
    can = subprocess.run(namespace, capture_output=True, text=True, check=False)
    return can.stderr.strip() or None


def install(directory: Path) -> None:
    """``make install`` into a directory that a machine is given.

    Raises:
        AssertionError: it fails; its output says why.
    """
    result = subprocess.run(
        ["make", "--no-print-directory", "install", f"DESTDIR={directory}", f"EXTRAS={EXTRAS}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def read_drop_ins() -> dict[str, str]:
    """The drop-ins for keystored's unit that the manual shows, by the headings above them."""
    found: dict[str, str] = {}
    for section in MANUAL.read_text().split("\n### ")[1:]:
        heading, _, text = section.partition("\n")
        block = re.search(r"^    \[(?:Unit|Service)\]\n(?:    .+\n)+", text, re.MULTILINE)
        if block:
            found[heading] = textwrap.dedent(block[0])
    return found


def put_drop_ins(directory: Path) -> None:
    """The manual's words of what is secret and of a guest, and what the machine does with them."""
    drop_ins = read_drop_ins()
    place = directory / "root" / "drop-ins"
    place.mkdir(parents=True)
    (directory / "root").chmod(0o700)
    shutil.copy(MACHINE / "keystore.sh", directory / "root")
    (place / "credential.conf").write_text(drop_ins["A credential of systemd"])
    (place / "softhsm.conf").write_text(drop_ins["A PKCS#11 token: SoftHSM"])
    # In place of the device, which a container has not, a TPM in software.
    tools = "[Service]\nEnvironment=TPM2TOOLS_TCTI=swtpm:path=/run/tpm/sock\n"
    (place / "tpm.conf").write_text(drop_ins["A TPM"] + tools)
    guest = MANUAL.read_text().partition("## A SECURE GUEST AT BOOT\n")[2]
    unit = re.search(r"^    \[Unit\]\n(?:    .+\n)+", guest, re.MULTILINE)
    assert unit is not None
    (place / "fusecrypt-guest.service").write_text(textwrap.dedent(unit[0]))


def make_volumes(directory: Path) -> None:
    """Images, key files that only root may read, and the crypttab that names them."""
    keys = directory / "etc" / "keys"
    keys.mkdir(parents=True, mode=0o700)
    for place in ("srv", "mnt/data"):
        (directory / place).mkdir(parents=True)
    for name, key in KEYS.items():
        image, key_file = directory / "srv" / f"{name}.img", keys / f"{name}.key"
        with image.open("wb") as file:
            os.truncate(file.fileno(), IMAGE_SIZE)
        image.chmod(0o600)
        key_file.write_bytes(key)
        key_file.chmod(0o400)
        cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
        subprocess.run(
            [*command("fusecrypt"), "luksFormat", "--batch-mode", *cheap, image, key_file],
            check=True,
            capture_output=True,
        )
    (keys / "asked.key").unlink()
    (directory / "etc" / "crypttab").write_text(CRYPTTAB)


def boot(kind: str, files: Path, script: Path, seconds: int) -> str:
    """Boot a machine (``container`` or ``vm``) with ``files`` and run a script; what it said.

    Raises:
        AssertionError: the script failed, or time was up.
    """
    devices = " ".join(str(path) for path in sorted(Path("/dev").glob("loop*")))
    result = subprocess.run(
        ["bash", MACHINE / f"{kind}.sh", files, script, str(seconds)],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "DEVICES": devices},
        check=False,
    )
    assert result.returncode == 0, f"{result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout
