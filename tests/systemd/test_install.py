"""`make install` and `make uninstall`: files where systemd reads them, and none afterwards."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.product import ROOT
from tests.systemd import machine

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
def test_an_extra_that_was_asked_for_is_there_and_no_other(installed):
    assert machine.EXTRAS == "pkcs11"
    (packages,) = (installed / "opt/fusecrypt/lib").glob("python3.*/site-packages")
    assert (packages / "pkcs11").is_dir()
    assert not (packages / "shamir_mnemonic").exists()


def test_an_extra_that_is_not_known_is_refused_before_anything_is_done(tmp_path):
    result = subprocess.run(
        ["make", "install", f"DESTDIR={tmp_path}", "EXTRAS=pkcs11,pkcs12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "EXTRAS: no pkcs12; wanted: pkcs11 ceremony" in result.stderr
    assert not list(tmp_path.iterdir())


def test_make_knows_the_extras_that_there_are():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (known,) = re.findall(r"^KNOWN_EXTRAS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {*known.split(), "dev"} == set(project["optional-dependencies"])


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
