"""The manual names everything that can be typed, and nothing that cannot."""

import re
from pathlib import Path

import pytest

from fusecrypt.daemon import crypttab_options as options
from fusecrypt.daemon.cli.arguments import VOCABULARIES
from fusecrypt.daemon.cli.commands import COMMANDS
from fusecrypt.daemon.cli.options import ALIASES, OPTIONS
from fusecrypt.daemon.config import load_settings
from fusecrypt.daemon.exitcodes import ExitCode
from fusecrypt.daemon.keystored import __main__ as keystored_main
from fusecrypt.daemon.keystored import client
from fusecrypt.daemon.live_key import Lease

MANUAL = Path(__file__).resolve().parents[3] / "docs/manual"
COMMAND = (MANUAL / "fusecrypt.8.md").read_text()
DAEMON = (MANUAL / "fusecryptd.8.md").read_text()
KEYSTORED = (MANUAL / "fusecrypt-keystored.8.md").read_text()
ZKEY = (MANUAL / "fusecrypt-zkey.1.md").read_text()
MASTER_KEY = (MANUAL / "fusecrypt-master-key.8.md").read_text()
ZKEY_CRYPTSETUP = (MANUAL / "fusecrypt-zkey-cryptsetup.1.md").read_text()
CRYPTTAB = (MANUAL / "fusecrypt-crypttab.5.md").read_text()


def test_every_option_of_the_command_is_described() -> None:
    described = set(re.findall(r"--([a-z][a-z0-9_-]+)", COMMAND))
    for name in [*OPTIONS, *ALIASES]:
        assert name in described, name
    assert described <= {*OPTIONS, *ALIASES}


def test_every_short_option_is_described() -> None:
    for option in OPTIONS.values():
        if option.short:
            assert f"**-{option.short}**" in COMMAND


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_action_is_in_the_synopsis(name: str) -> None:
    assert f"    fusecrypt [OPTIONS] {name}" in COMMAND


def test_every_option_of_zkey_and_lszcrypt_is_described() -> None:
    described = set(re.findall(r"--([a-z][a-z0-9_-]+)", ZKEY))
    names = ("zkey", "lszcrypt", "chzcrypt", "pvsecret")
    options = {name: o for tool in names for name, o in VOCABULARIES[tool].options.items()}
    # The example makes an adapter.
    assert described - {"mode"} == options.keys()
    for option in options.values():
        assert not option.short or f"**-{option.short}**" in ZKEY


def test_every_option_of_zkey_cryptsetup_is_described() -> None:
    vocabulary = VOCABULARIES["zkey-cryptsetup"]
    described = set(re.findall(r"--([a-z][a-z0-9_-]+)", ZKEY_CRYPTSETUP))
    assert described == {*vocabulary.options, *vocabulary.aliases}
    for option in vocabulary.options.values():
        assert not option.short or f"**-{option.short}**" in ZKEY_CRYPTSETUP


def test_every_option_of_master_key_is_described() -> None:
    vocabulary = VOCABULARIES["master-key"]
    described = set(re.findall(r"--([a-z][a-z0-9_-]+)", MASTER_KEY))
    assert described == vocabulary.options.keys()
    for option in vocabulary.options.values():
        assert not option.short or f"**-{option.short}**" in MASTER_KEY


def test_every_method_of_the_keystore_is_described() -> None:
    here = Path(client.__file__)
    source = "".join(
        here.with_name(f"{name}.py").read_text()
        for name in ("methods", "adapter_methods", "guest_methods")
    )
    for name in re.findall(r'^            "([A-Z][A-Za-z]+)": self', source, re.MULTILINE):
        assert f"| `{name}` |" in KEYSTORED, name


def test_every_exit_code_is_described() -> None:
    for code in ExitCode:
        assert f"| {code:d} | {code.name} |" in COMMAND


def test_every_crypttab_option_is_described() -> None:
    known = {*options._FLAGS, *options._VALUES, *options._REFUSED, *options._WITHOUT_EFFECT}
    for name in known:
        assert re.search(rf"`{re.escape(name)}(=[a-z]*)?`", CRYPTTAB), name


def test_the_settings_shown_can_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = DAEMON.partition("paths absolute:\n")[2].partition("\n`key-lease`")[0]
    (tmp_path / "fusecrypt.toml").write_text(example)
    monkeypatch.setattr("fusecrypt.daemon.config.SYSTEM_CONFIG_DIR", tmp_path)
    settings = load_settings(environment={}, uid=0)
    assert settings.engine_threads == 4
    assert settings.lease == Lease(3600, 300)


def test_every_option_of_the_daemon_is_described() -> None:
    from fusecrypt.daemon import __main__ as main

    source = Path(main.__file__).read_text()
    for name in re.findall(r'"(--[a-z-]+)"', source):
        assert f"**{name}**" in DAEMON, name


def test_every_option_of_the_keystored_is_described() -> None:
    source = Path(keystored_main.__file__).read_text()
    for name in re.findall(r'"(--[a-z-]+)"', source):
        assert f"**{name}**" in KEYSTORED, name
