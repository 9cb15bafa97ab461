"""``fusecrypt adapter backup|restore``: master keys in a file, under a passphrase."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Final

from ...keystore.errors import ConfigError
from ..config import Settings
from ..control.messages import KeyInput
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .key_input import make_key_options, provide_key, try_keys
from .new_file import make_new_file, write_all
from .output import Output
from .passphrase import is_handed_on, read_stream
from .source import open_for_reading

#: Bytes; thousands of adapters.
_MAX_BACKUP: Final = 512 << 10


def run_backup(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Save all adapters."""
    (path,) = args.positionals
    keystore = Keystore(settings)
    adapters = keystore.list_adapters()
    if not adapters:
        raise ConfigError("no adapters, so no backup of them")
    options = make_key_options(args, is_verified=True)
    prompt = f"Enter passphrase for the backup {path}: "
    # The file first: nobody is asked, and no master key leaves keystored, for one that cannot be.
    with make_new_file(path, "backup") as file:
        with provide_key(options, prompt) as key, as_stream(key) as fd:
            backup = keystore.backup(fd)
        write_all(file, backup)
    apqns = [str(adapter.apqn) for adapter in adapters]
    output.json({"file": path, "apqns": apqns})
    for adapter in adapters:
        if adapter.uri:
            output.warn(
                f"{adapter.apqn} is a PKCS#11 token: the backup has its URI and PIN, and not its"
                " master keys, which cannot leave it"
            )
    output.line(f"{path}: {', '.join(apqns)}. Keep it, and its passphrase, on another machine.")
    return ExitCode.OK


def run_restore(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Make the adapters of a backup again."""
    (path,) = args.positionals
    with open_for_reading(path, "backup") as file:
        if file.size > _MAX_BACKUP:
            raise ConfigError(f"backup {path}: {file.size} bytes; wanted: a file of adapter backup")
        backup = file.pread(0, file.size)
    keystore = Keystore(settings)

    def attempt(key: KeyInput) -> list[str]:
        with as_stream(key) as fd:
            return [str(apqn) for apqn in keystore.restore(backup, fd)]

    options = make_key_options(args)
    apqns = try_keys(options, f"Enter passphrase for the backup {path}: ", attempt)
    output.json({"file": path, "apqns": apqns})
    output.line(f"Restored: {', '.join(apqns) or 'nothing, all of them are there'}.")
    return ExitCode.OK


@contextlib.contextmanager
def as_stream(key: KeyInput) -> Generator[int, None, None]:
    """A descriptor that yields just the passphrase: no more of a key file than was asked for."""
    if not is_handed_on(key.fd):
        yield key.fd
        return
    with (
        read_stream(
            key.fd, "key file", to_newline=False, offset=key.offset, size=key.size
        ) as passphrase,
        passphrase.pipe() as fd,
    ):
        yield fd
