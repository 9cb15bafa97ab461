"""The files that a crypttab line names, opened with the daemon's own rights. All of it blocks."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from ..dmcrypt.plain import PlainParams, make_params
from ..dmcrypt.units import SECTOR_SIZE
from ..keystore.errors import AccessError, BusyError, NotFoundError
from .activation import OpenFile, Recipe
from .backing import refuse_own

if TYPE_CHECKING:
    from .crypttab import CrypttabEntry


def open_entry_files(entry: CrypttabEntry, *, own_device: int) -> Recipe:
    """Source and header of an entry; `close_entry_files` closes them.

    Raises:
        MapperError: as `open_backing`, or parameters of plain mode that cannot be.
    """
    options = entry.options
    plain = _make_plain(entry) if entry.type == "plain" else None
    path = entry.source_path
    source = OpenFile(
        open_backing(path, own_device=own_device, is_read_only=options.read_only), path
    )
    header = None
    if options.header is not None:
        try:
            fd = open_backing(options.header, own_device=own_device, is_read_only=True)
        except BaseException:
            os.close(source.fd)
            raise
        header = OpenFile(fd, options.header)
    return Recipe(entry.name, source, header, options.read_only, options.key_slot, plain)


def close_entry_files(recipe: Recipe) -> None:
    """What the engine needs of them it has by now."""
    os.close(recipe.source.fd)
    if recipe.header is not None:
        os.close(recipe.header.fd)


def open_backing(path: str, *, own_device: int, is_read_only: bool) -> int:
    """A descriptor of a source or header, close-on-exec.

    Raises:
        NotFoundError: there is no such file.
        AccessError: the file may not be opened so.
        BusyError: a block device that is mounted or otherwise in use.
        UnsupportedError: a volume of this very daemon.
    """
    flags = os.O_CLOEXEC | os.O_NOCTTY | (os.O_RDONLY if is_read_only else os.O_RDWR)
    try:
        # Before opening: a FIFO would block, a volume of our own could not be closed again.
        status = os.stat(path)  # noqa: PTH116
        refuse_own(status, path, own_device)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise NotFoundError(f"{path}: is neither a regular file nor a block device")
        if stat.S_ISBLK(status.st_mode) and not is_read_only:
            # open(2): without O_CREAT it fails if the kernel itself uses the device.
            flags |= os.O_EXCL
        return os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"{path}: no such file or device") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise BusyError(f"{path}: is in use by the kernel") from None
        wanted = "reading" if is_read_only else "writing"
        raise AccessError(f"{path}: cannot be opened for {wanted}: {error.strerror}") from None


def _make_plain(entry: CrypttabEntry) -> PlainParams:
    options = entry.options
    return make_params(
        cipher=options.cipher,
        key_bits=options.key_bits,
        hash_spec=options.hash,
        # A key file that is discovered later needs no hash either; a passphrase then is refused.
        has_keyfile=entry.key_file is not None or options.hash is None,
        offset=options.offset,
        skip=options.skip,
        sector_size=options.sector_size or SECTOR_SIZE,
    )
