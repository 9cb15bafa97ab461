"""The crypttab and the files that its entries name: who opens them for the daemon.

Started by hand, the daemon opens them itself (`OwnRights`). As a service it has no right to them,
and asks fusecrypt-mountd (`mountd.client.MountdFiles`). All methods block.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .crypttab import load_crypttabs
from .entry_files import make_recipe, open_entry_files
from .key_file import open_key_file

if TYPE_CHECKING:
    from .activation import Recipe
    from .config import CrypttabSource
    from .crypttab import Crypttab, CrypttabEntry
    from .key_file import KeyFile


class CrypttabFiles(Protocol):
    """Opens what the crypttab names, and the crypttab itself."""

    def load(self) -> Crypttab:
        """The crypttab as it is now.

        Raises:
            MapperError: it cannot be read.
        """
        ...

    def open_entry(self, entry: CrypttabEntry, *, own_device: int) -> Recipe:
        """The entry with its source and header open; `close_entry_files` closes them.

        ``own_device`` is the st_dev of the daemon's own files, which are refused.

        Raises:
            MapperError: one of them cannot be opened.
        """
        ...

    def open_key_file(self, entry: CrypttabEntry) -> KeyFile | None:
        """Its key file, or None when the passphrase must be asked for. Waits for a FIFO's writer.

        Raises:
            MapperError: as `key_file.open_key_file`.
        """
        ...


class OwnRights:
    """Opens them with the rights of this process."""

    def __init__(self, sources: Sequence[CrypttabSource]) -> None:
        self._sources = sources

    def load(self) -> Crypttab:
        return load_crypttabs(self._sources)

    def open_entry(self, entry: CrypttabEntry, *, own_device: int) -> Recipe:
        return make_recipe(entry, *open_entry_files(entry, own_device=own_device))

    def open_key_file(self, entry: CrypttabEntry) -> KeyFile | None:
        return wait_for_writer(open_key_file(entry))


def wait_for_writer(file: KeyFile | None) -> KeyFile | None:
    """The same file; if it is a FIFO, when somebody has something to write to it."""
    if file is not None and stat.S_ISFIFO(os.fstat(file.fd).st_mode):
        poll = select.poll()
        poll.register(file.fd, select.POLLIN)
        try:
            poll.poll()
        except BaseException:
            os.close(file.fd)
            raise
    return file
