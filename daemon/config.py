"""Settings: which directories and files this process works with.

Order: command line, then environment, then the settings file, then the default. The settings file
is `/etc/fusecrypt/fusecrypt.toml` for root, `$XDG_CONFIG_HOME/fusecrypt/fusecrypt.toml` for others:

    runtime-dir = "/run/fusecrypt"
    state-dir = "/var/lib/fusecrypt"
    crypttab = "/srv/volumes.crypttab"      # replaces all default crypttabs, as --crypttab does
    zkey-repository = "/etc/zkey/repository"
    engine-threads = 4                      # I/O threads; without it, one for each processor
    keystore-socket = "/run/keystore"       # where fusecrypt-keystored listens
    host-key = "/etc/fusecrypt/host.key"    # seals the adapters' state
    key-lease = 3600                        # seconds after which a secure key is derived anew
    key-idle = 300                          # seconds without I/O after which it is forgotten
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..keystore.errors import AccessError, ConfigError
from .live_key import LEASE_MAX, NO_LEASE, Lease

RUNTIME_DIR_VARIABLE: Final = "FUSECRYPT_RUNTIME_DIR"
STATE_DIR_VARIABLE: Final = "FUSECRYPT_STATE_DIR"
CRYPTTAB_VARIABLE: Final = "FUSECRYPT_CRYPTTAB"
REPOSITORY_VARIABLE: Final = "ZKEY_REPOSITORY"
KEYSTORE_VARIABLE: Final = "FUSECRYPT_KEYSTORE"
HOST_KEY_VARIABLE: Final = "FUSECRYPT_HOST_KEY"
MOUNTD_VARIABLE: Final = "FUSECRYPT_MOUNTD"
ENGINE_VARIABLE: Final = "FUSECRYPT_ENGINE"
ENGINES_VARIABLE: Final = "FUSECRYPT_ENGINES"

SYSTEM_CONFIG_DIR: Final = Path("/etc/fusecrypt")
SYSTEM_CRYPTTAB: Final = Path("/etc/crypttab")
_FILE_NAME: Final = "fusecrypt.toml"

# unix(7): sun_path has 108 bytes, the terminating NUL included.
_MAX_SOCKET_PATH: Final = 107

_PATH_SETTINGS: Final = (
    "runtime-dir", "state-dir", "crypttab", "zkey-repository", "keystore-socket", "host-key"
)  # fmt: skip
#: The least and the most that each may be.
_NUMBER_SETTINGS: Final = {
    "engine-threads": (1, 256),
    "key-lease": (0, LEASE_MAX),
    "key-idle": (0, LEASE_MAX),
}


@dataclass(frozen=True, slots=True)
class CrypttabSource:
    """One file that crypttab lines are read from."""

    path: Path
    whole: bool  # every line is ours; otherwise only lines with the option x-fusecrypt
    required: bool  # named by the user, so that its absence is an error


@dataclass(frozen=True, slots=True)
class Settings:
    """Where everything of one instance is."""

    #: The directory, or why there is none, which only those who need it mind.
    runtime_place: Path | ConfigError
    state_dir: Path
    zkey_repository: Path
    crypttabs: tuple[CrypttabSource, ...]
    engine_threads: int | None  # None: one for each processor
    #: Of secure keys, where a volume says nothing else.
    lease: Lease = NO_LEASE
    #: Where another user, or a service, runs fusecrypt-keystored; None: we start one ourselves.
    named_keystore_socket: Path | None = None
    named_host_key: Path | None = None
    #: Where fusecrypt-mountd listens: it mounts, and opens what the crypttab names, for a daemon
    #: without rights. None: we do it ourselves.
    mountd: Path | None = None
    #: Where systemd starts an engine, of another user, for each connection. None: we start our own.
    engine: Path | None = None
    #: For keystored: where such engines answer for their public keys. None: anybody's are taken.
    engines: Path | None = None
    is_system: bool = False  # the machine's own instance, not a user's
    is_crypttab_named: bool = False  # by the command line or the environment

    @property
    def runtime_dir(self) -> Path:
        """Where the daemon's socket and mount are.

        Raises:
            ConfigError: there is no directory for it, as for a user without a session.
        """
        if isinstance(self.runtime_place, ConfigError):
            raise self.runtime_place
        return self.runtime_place

    @property
    def control_socket(self) -> Path:
        """Where the daemon listens for the command line tool."""
        return self.runtime_dir / "control"

    @property
    def keystore_socket(self) -> Path:
        """Where fusecrypt-keystored listens."""
        return self.named_keystore_socket or self.runtime_dir / "keystore"

    @property
    def keystore_dir(self) -> Path:
        """The virtual adapters' sealed state."""
        return self.state_dir / "keystore"

    @property
    def host_key(self) -> Path:
        """The key that seals them."""
        return self.named_host_key or self.keystore_dir / "host.key"

    @property
    def device_dir(self) -> Path:
        """The mount: a tree laid out as /dev."""
        return self.runtime_dir / "dev"

    @property
    def mapper_dir(self) -> Path:
        """Where opened volumes appear by name."""
        return self.device_dir / "mapper"

    @property
    def log_file(self) -> Path:
        """Where a daemon in the background writes its log when there is no journal."""
        return self.runtime_dir / "log"

    @property
    def start_lock(self) -> Path:
        """Locked (flock) while a daemon is being started, so that two never are."""
        return self.runtime_dir / "start.lock"


def load_settings(
    *,
    runtime_dir: str | None = None,
    crypttab: str | None = None,
    environment: Mapping[str, str] | None = None,
    uid: int | None = None,
) -> Settings:
    """The settings of this process; arguments are what the command line gave.

    Creates nothing and opens nothing but the settings file.

    Raises:
        ConfigError: a setting that cannot be taken.
        AccessError: a settings file that exists and cannot be read.
    """
    env = os.environ if environment is None else environment
    user = os.geteuid() if uid is None else uid
    # The unit of the system's daemon names its mountd, and only that.
    is_system = user == 0 or bool(env.get(MOUNTD_VARIABLE))
    config_dir = SYSTEM_CONFIG_DIR if is_system else _get_user_config_dir(env)
    file = _load_file(config_dir / _FILE_NAME)

    def choose(argument: str | None, variable: str, key: str) -> Path | None:
        for value in (argument, env.get(variable), file.paths.get(key)):
            if value:
                return Path(os.path.abspath(value))  # noqa: PTH100 - resolve() would follow symlinks
        return None

    def choose_unit(variable: str) -> Path | None:
        return Path(env[variable]) if env.get(variable) else None

    runtime = choose(runtime_dir, RUNTIME_DIR_VARIABLE, "runtime-dir")
    named_crypttab = choose(crypttab, CRYPTTAB_VARIABLE, "crypttab")
    settings = Settings(
        runtime_place=runtime or _find_default_runtime_dir(env, user, is_system=is_system),
        state_dir=choose(None, STATE_DIR_VARIABLE, "state-dir")
        or _get_state_dir(env, is_system=is_system),
        zkey_repository=choose(None, REPOSITORY_VARIABLE, "zkey-repository")
        or (Path("/etc/zkey/repository") if is_system else config_dir / "zkey"),
        crypttabs=_find_crypttabs(named_crypttab, config_dir, is_system=is_system),
        engine_threads=file.numbers.get("engine-threads"),
        lease=Lease(file.numbers.get("key-lease", 0), file.numbers.get("key-idle", 0)),
        named_keystore_socket=choose(None, KEYSTORE_VARIABLE, "keystore-socket"),
        named_host_key=choose(None, HOST_KEY_VARIABLE, "host-key"),
        # Not in the file: units set them, and which file is read depends on it.
        mountd=choose_unit(MOUNTD_VARIABLE),
        engine=choose_unit(ENGINE_VARIABLE),
        engines=choose_unit(ENGINES_VARIABLE),
        is_system=is_system,
        is_crypttab_named=bool(crypttab or env.get(CRYPTTAB_VARIABLE)),
    )
    if runtime is not None:
        _check_socket_path(settings)
    return settings


def _check_socket_path(settings: Settings) -> None:
    length = len(os.fsencode(settings.control_socket))
    if length > _MAX_SOCKET_PATH:
        raise ConfigError(
            f"runtime directory {settings.runtime_dir}: the path of its control socket has {length}"
            f" bytes, more than the {_MAX_SOCKET_PATH} of a socket address; wanted: a shorter one"
        )


def prepare_runtime_dir(settings: Settings) -> None:
    """Make the runtime directory (0700, or 0755 for root), or check the one that is there.

    Raises:
        AccessError: it cannot be made.
        ConfigError: it is not a directory, not ours, or writable by others.
    """
    path = settings.runtime_dir
    mode = 0o755 if settings.is_system else 0o700
    try:
        if not path.is_dir():
            path.mkdir(mode=mode)
            path.chmod(mode)  # whatever the umask
        status = path.stat()
    except FileExistsError:
        raise ConfigError(f"runtime directory {path}: is a file; wanted: a directory") from None
    except OSError as error:
        raise AccessError(f"runtime directory {path}: cannot make it: {error.strerror}") from None
    if status.st_uid != os.geteuid():
        hint = "; the service's daemon is started by systemctl" if os.geteuid() == 0 else ""
        raise ConfigError(
            f"runtime directory {path}: belongs to user {status.st_uid};"
            f" wanted: one of user {os.geteuid()} ({RUNTIME_DIR_VARIABLE}){hint}"
        )
    if status.st_mode & 0o022:
        raise ConfigError(
            f"runtime directory {path}: mode {stat.S_IMODE(status.st_mode):04o} lets others write;"
            " wanted: 0755 or less"
        )


def _find_crypttabs(
    named: Path | None, config_dir: Path, *, is_system: bool
) -> tuple[CrypttabSource, ...]:
    if named is not None:
        return (CrypttabSource(named, whole=True, required=True),)
    own = CrypttabSource(config_dir / "crypttab", whole=True, required=False)
    if not is_system:
        return (own,)
    parts = sorted((config_dir / "crypttab.d").glob("*.conf"))
    return (
        CrypttabSource(SYSTEM_CRYPTTAB, whole=False, required=False),
        own,
        *(CrypttabSource(part, whole=True, required=False) for part in parts),
    )


def _find_default_runtime_dir(
    env: Mapping[str, str], uid: int, *, is_system: bool
) -> Path | ConfigError:
    if is_system:
        return Path("/run/fusecrypt")
    named = env.get("XDG_RUNTIME_DIR", "")
    # XDG Base Directory Specification: a relative path is invalid and is to be ignored.
    base = Path(named) if os.path.isabs(named) else Path(f"/run/user/{uid}")  # noqa: PTH117
    source = f"XDG_RUNTIME_DIR={named}" if base == Path(named) else f"{base} (no XDG_RUNTIME_DIR)"
    try:
        status = base.stat()
    except OSError as error:
        return _no_runtime_dir(f"{source}: {error.strerror}")
    if not stat.S_ISDIR(status.st_mode):
        return _no_runtime_dir(f"{source}: is not a directory")
    if status.st_uid != uid:
        return _no_runtime_dir(f"{source}: belongs to user {status.st_uid}, not to user {uid}")
    return base / "fusecrypt"


def _no_runtime_dir(reason: str) -> ConfigError:
    return ConfigError(
        f"no runtime directory: {reason}; set {RUNTIME_DIR_VARIABLE} or give --runtime-dir"
    )


def _get_state_dir(env: Mapping[str, str], *, is_system: bool) -> Path:
    if is_system:
        return Path("/var/lib/fusecrypt")
    return _get_xdg_dir(env, "XDG_STATE_HOME", ".local/state") / "fusecrypt"


def _get_user_config_dir(env: Mapping[str, str]) -> Path:
    return _get_xdg_dir(env, "XDG_CONFIG_HOME", ".config") / "fusecrypt"


def _get_xdg_dir(env: Mapping[str, str], variable: str, default: str) -> Path:
    named = env.get(variable, "")
    if os.path.isabs(named):  # noqa: PTH117
        return Path(named)
    home = env.get("HOME", "")
    base = Path(home) if os.path.isabs(home) else Path("~").expanduser()  # noqa: PTH117
    return base / default


@dataclass(frozen=True, slots=True)
class _SettingsFile:
    """What a settings file says, checked."""

    paths: dict[str, str] = field(default_factory=dict[str, str])
    numbers: dict[str, int] = field(default_factory=dict[str, int])


def _load_file(path: Path) -> _SettingsFile:
    """A settings file; one that says nothing where there is none."""
    settings = _SettingsFile()
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return settings
    except OSError as error:
        raise AccessError(f"settings file {path}: cannot read it: {error.strerror}") from None
    import tomllib  # most machines have no settings file

    try:
        document: dict[str, object] = tomllib.loads(raw.decode())
    except ValueError as error:
        raise ConfigError(f"settings file {path}: {error}; wanted: TOML in UTF-8") from None
    for key, value in document.items():
        if key in _PATH_SETTINGS:
            settings.paths[key] = _check_path(path, key, value)
        elif key in _NUMBER_SETTINGS:
            settings.numbers[key] = _check_number(path, key, value)
        else:
            known = ", ".join((*_PATH_SETTINGS, *_NUMBER_SETTINGS))
            raise ConfigError(f"{path}: unknown setting {key!r}; known: {known}")
    return settings


def _check_path(file: Path, key: str, value: object) -> str:
    if not isinstance(value, str) or not os.path.isabs(value):  # noqa: PTH117
        raise ConfigError(f"{file}: {key}: got {value!r}; wanted: an absolute path")
    return value


def _check_number(file: Path, key: str, value: object) -> int:
    least, most = _NUMBER_SETTINGS[key]
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"{file}: {key}: got {value!r}; wanted: {least} to {most}")
    return value
