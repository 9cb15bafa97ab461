"""Settings: which of command line, environment, file and default decides."""

import os
from pathlib import Path

import pytest

from fusecrypt.daemon import config
from fusecrypt.daemon.__main__ import main
from fusecrypt.daemon.config import Settings, load_settings, prepare_runtime_dir
from fusecrypt.daemon.exitcodes import ExitCode
from fusecrypt.keystore.errors import AccessError, ConfigError

UID = 12345


@pytest.fixture(autouse=True)
def system_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc"
    path.mkdir()
    monkeypatch.setattr(config, "SYSTEM_CONFIG_DIR", path)
    return path


def load(environment: dict[str, str] | None = None, *, uid: int = 0, **given: str) -> Settings:
    return load_settings(environment=environment or {}, uid=uid, **given)


def test_roots_defaults(system_dir: Path) -> None:
    settings = load()
    assert settings.runtime_dir == Path("/run/fusecrypt")
    assert settings.state_dir == Path("/var/lib/fusecrypt")
    assert settings.zkey_repository == Path("/etc/zkey/repository")
    assert settings.control_socket == Path("/run/fusecrypt/control")
    assert settings.mapper_dir == Path("/run/fusecrypt/dev/mapper")
    assert [(c.path, c.whole, c.required) for c in settings.crypttabs] == [
        (Path("/etc/crypttab"), False, False),
        (system_dir / "crypttab", True, False),
    ]
    assert settings.engine_threads is None


def test_crypttab_d_is_read_in_order_after_the_main_file(system_dir: Path) -> None:
    parts = system_dir / "crypttab.d"
    parts.mkdir()
    for name in ("b.conf", "a.conf", "c.txt"):
        (parts / name).touch()
    assert [c.path.name for c in load().crypttabs][2:] == ["a.conf", "b.conf"]


def test_a_users_defaults_follow_xdg(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    settings = load(home, uid=os.getuid() or 1) if os.getuid() else None
    if settings is None:  # root: the directory must belong to the user
        os.chown(tmp_path, UID, UID)
        settings = load(home, uid=UID)
    assert settings.runtime_dir == tmp_path / "fusecrypt"
    assert settings.state_dir == tmp_path / ".local/state/fusecrypt"
    assert settings.zkey_repository == tmp_path / ".config/fusecrypt/zkey"
    assert [(c.path, c.whole) for c in settings.crypttabs] == [
        (tmp_path / ".config/fusecrypt/crypttab", True)
    ]


def test_xdg_directories_that_are_not_absolute_are_ignored() -> None:
    given = {
        "HOME": "/home/u",
        "XDG_CONFIG_HOME": "conf",
        "XDG_STATE_HOME": "/state",
        "FUSECRYPT_RUNTIME_DIR": "/r",
    }
    settings = load(given, uid=UID)
    assert settings.state_dir == Path("/state/fusecrypt")
    assert settings.zkey_repository == Path("/home/u/.config/fusecrypt/zkey")


def test_no_runtime_directory_is_refused_naming_the_variable(tmp_path: Path) -> None:
    for runtime in ({}, {"XDG_RUNTIME_DIR": "relative"}, {"XDG_RUNTIME_DIR": str(tmp_path / "no")}):
        with pytest.raises(ConfigError, match="FUSECRYPT_RUNTIME_DIR"):
            assert load({"HOME": "/home/u", **runtime}, uid=UID).runtime_dir


def test_a_runtime_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"not to user {UID}"):
        assert load({"HOME": "/", "XDG_RUNTIME_DIR": str(tmp_path)}, uid=UID).runtime_dir


def test_the_command_line_beats_the_environment_beats_the_file(system_dir: Path) -> None:
    (system_dir / "fusecrypt.toml").write_text('runtime-dir = "/file"\nstate-dir = "/s"\n')
    assert load().runtime_dir == Path("/file")
    given = {"FUSECRYPT_RUNTIME_DIR": "/env", "FUSECRYPT_STATE_DIR": "/es", "ZKEY_REPOSITORY": "/z"}
    settings = load(given)
    assert settings.runtime_dir == Path("/env")
    assert settings.state_dir == Path("/es")
    assert settings.zkey_repository == Path("/z")
    assert load(given, runtime_dir="/cli").runtime_dir == Path("/cli")
    assert load({"FUSECRYPT_RUNTIME_DIR": ""}).runtime_dir == Path("/file")


def test_a_named_crypttab_replaces_all_others() -> None:
    for settings in (load(crypttab="/x"), load({"FUSECRYPT_CRYPTTAB": "/x"})):
        assert [(c.path, c.whole, c.required) for c in settings.crypttabs] == [
            (Path("/x"), True, True)
        ]


def test_relative_paths_are_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(runtime_dir="run").runtime_dir == tmp_path / "run"


def test_a_runtime_directory_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(ConfigError, match="107 of a socket address"):
        load(runtime_dir="/" + "x" * 105)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runtime-dir = 5", "wanted: an absolute path"),
        ('crypttab = "rel"', "wanted: an absolute path"),
        ("engine-threads = 0", "wanted: 1 to 256"),
        ("engine-threads = true", "wanted: 1 to 256"),
        ("key-idle = -1", "wanted: 0 to 31622400"),
        ('key-lease = "1h"', "wanted: 0 to 31622400"),
        ("colour = 1", "unknown setting 'colour'"),
        ("not toml", "wanted: TOML"),
    ],
)
def test_a_bad_settings_file_is_refused(system_dir: Path, text: str, message: str) -> None:
    (system_dir / "fusecrypt.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load()
    assert "fusecrypt.toml" in str(caught.value)


def test_a_settings_file_that_cannot_be_read_is_refused(system_dir: Path) -> None:
    (system_dir / "fusecrypt.toml").mkdir()
    with pytest.raises(AccessError, match="cannot read it"):
        load()


def test_threads_come_from_the_file(system_dir: Path) -> None:
    (system_dir / "fusecrypt.toml").write_text("engine-threads = 3")
    assert load().engine_threads == 3


def test_the_runtime_directory_is_made_or_checked(tmp_path: Path) -> None:
    settings = load(runtime_dir=str(tmp_path / "run"))
    prepare_runtime_dir(settings)
    prepare_runtime_dir(settings)
    settings.runtime_dir.chmod(0o777)
    with pytest.raises(ConfigError, match="lets others write"):
        prepare_runtime_dir(settings)
    settings.runtime_dir.rmdir()
    settings.runtime_dir.touch()
    with pytest.raises(ConfigError, match="is a file"):
        prepare_runtime_dir(settings)
    with pytest.raises(AccessError, match="cannot make it"):
        prepare_runtime_dir(load(runtime_dir=str(tmp_path / "no/run")))


def test_a_daemon_with_a_mountd_is_the_machines_own_whoever_it_runs_as(system_dir: Path) -> None:
    (system_dir / "fusecrypt.toml").write_text('crypttab = "/srv/crypttab"\n')
    settings = load({"FUSECRYPT_MOUNTD": "/run/mountd.sock", "HOME": "/nowhere"}, uid=UID)
    assert settings.mountd == Path("/run/mountd.sock")
    assert settings.is_system
    assert settings.runtime_dir == Path("/run/fusecrypt")
    assert settings.state_dir == Path("/var/lib/fusecrypt")
    assert not settings.is_crypttab_named
    assert [source.path for source in settings.crypttabs] == [Path("/srv/crypttab")]
    assert not load({"HOME": "/nowhere", "XDG_RUNTIME_DIR": "/"}, uid=UID).is_system


def test_the_crypttab_of_a_service_is_mountds_to_read(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("FUSECRYPT_MOUNTD", str(tmp_path / "mountd.sock"))
    status = main(["--runtime-dir", str(tmp_path / "run"), "--crypttab", "/x"])
    assert status == ExitCode.WRONG_PARAMETERS
    assert "fusecrypt-mountd reads the crypttab" in capsys.readouterr().err
