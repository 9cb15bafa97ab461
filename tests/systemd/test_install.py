"""`make install` and `make uninstall`: files where systemd reads them, and none afterwards."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.product import ROOT

COMMANDS = ("fusecrypt", "fusecryptd", "fusecrypt-keystored", "fusecrypt-mountd")


def list_files(directory: Path) -> set[str]:
    return {
        str(Path(place, name).relative_to(directory))
        for place, _, names in os.walk(directory)
        for name in names
    }


@pytest.mark.root
def test_units_and_users_are_where_systemd_looks(installed):
    lib = installed / "usr/local/lib"
    units = {path.name for path in (ROOT / "systemd/system").iterdir()}
    assert {path.name for path in (lib / "systemd/system").iterdir()} == units
    assert (lib / "systemd/user/fusecryptd.service").exists()
    assert (lib / "sysusers.d/fusecrypt.conf").exists()
    assert (lib / "tmpfiles.d/fusecrypt.conf").exists()
    generator = lib / "systemd/system-generators/fusecrypt-generator"
    assert os.readlink(generator) == "/opt/fusecrypt/bin/fusecrypt-generator"
    for path in lib.rglob("*.*"):
        if path.is_file() and not path.is_symlink():
            assert "@PREFIX@" not in path.read_text()
            assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.root
def test_nothing_that_is_installed_names_the_place_it_was_put(installed):
    found = subprocess.run(
        ["grep", "-rlI", str(installed), installed / "opt/fusecrypt/bin", installed / "usr"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == ""
    for name in COMMANDS:
        assert os.readlink(installed / "usr/local/bin" / name) == f"/opt/fusecrypt/bin/{name}"
        first = (installed / "opt/fusecrypt/bin" / name).read_text().splitlines()[0]
        assert first == "#!/opt/fusecrypt/bin/python3"


@pytest.mark.root
def test_uninstall_takes_away_what_install_brought_and_nothing_else(installed, tmp_path):
    subprocess.run(["cp", "-a", f"{installed}/usr", tmp_path], check=True)
    (tmp_path / "opt/fusecrypt/bin").mkdir(parents=True)
    (tmp_path / "opt/fusecrypt/bin/fusecryptd").touch()
    other = tmp_path / "usr/local/lib/systemd/system/other.service"
    other.touch()
    subprocess.run(
        ["make", "--no-print-directory", "uninstall", f"DESTDIR={tmp_path}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    assert list_files(tmp_path) == {"usr/local/lib/systemd/system/other.service"}
