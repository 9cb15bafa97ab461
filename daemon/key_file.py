"""The key file of a crypttab entry: the one its line names, or one found by the volume's name."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..keystore.errors import AccessError, ConfigError, NotFoundError, UnsupportedError
from .crypttab import KEY_FILE_HASH, CrypttabEntry, is_unhashed
from .entry_files import Find, find_path, reopen

log = logging.getLogger(__name__)

# crypttab(5): where NAME.key is looked for when the third field is none.
KEY_DIRS: Final = (Path("/etc/cryptsetup-keys.d"), Path("/run/cryptsetup-keys.d"))
OPEN_TO_ALL: Final = "everybody may read it; wanted: mode 0600"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """An open key file; who holds it closes ``fd``."""

    path: str
    fd: int


def open_key_file(
    entry: CrypttabEntry, key_dirs: Sequence[Path] = KEY_DIRS, *, find: Find = find_path
) -> KeyFile | None:
    """The entry's key file, or None when the passphrase must be asked for. Blocks.

    Of a FIFO only the reading end is opened: whoever reads waits for its writer.

    Raises:
        NotFoundError: the file that the line names does not exist.
        AccessError: a key file cannot be opened, or is a directory.
        UnsupportedError: it is a socket.
        ConfigError: a discovered file for a plain volume whose line has a hash.
    """
    if entry.key_file is not None:
        return _open(entry, entry.key_file, find)
    for key_dir in key_dirs:
        path = key_dir / f"{entry.name}.key"
        if path.exists():
            if entry.type == "plain" and not is_unhashed(entry.options):
                raise ConfigError(
                    f"{entry.name}: {path}: {KEY_FILE_HASH.format(entry.options.hash)}"
                )
            return _open(entry, str(path), find)
    return None


def _open(entry: CrypttabEntry, path: str, find: Find) -> KeyFile:
    where = f"{entry.name}: key file {path}"
    try:
        found = find(path)
        try:
            mode = os.fstat(found).st_mode
            refuse_kind(mode, where)
            fd = reopen(found, os.O_RDONLY)
        finally:
            os.close(found)
    except FileNotFoundError:
        raise NotFoundError(f"{where}: no such file") from None
    except OSError as error:
        raise AccessError(f"{where}: cannot open it: {error.strerror}") from None
    if is_open_to_all(mode):
        log.warning("%s: %s", where, OPEN_TO_ALL)
    return KeyFile(path, fd)


def refuse_kind(mode: int, where: str) -> None:
    """Refuse what is no file to read a key from, by its st_mode.

    Raises:
        UnsupportedError: a socket.
        AccessError: a directory.
    """
    if stat.S_ISSOCK(mode):
        raise UnsupportedError(f"{where}: not supported: a socket that sends the key")
    if stat.S_ISDIR(mode):
        raise AccessError(f"{where}: is a directory; wanted: a file")


def is_open_to_all(mode: int) -> bool:
    """Whether everybody may read a file of this st_mode. Of /dev/urandom everybody should."""
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)
