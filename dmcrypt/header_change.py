"""A LUKS header of either version while it is changed, under the exclusive lock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from .backing import sync
from .extent import Extent
from .old_header import Keep, OldHeader
from .wipe import wipe_random

HeaderT = TypeVar("HeaderT")


class HeaderChange(ABC, Generic[HeaderT]):
    """A header that may be replaced by another. Before the first byte is written, it is kept."""

    def __init__(self, fd: int, header: HeaderT, keep: Keep) -> None:
        self.fd = fd
        self.header = header
        self._keep = keep
        self._has_begun = False

    def begin(self) -> None:
        """Keep the old header, once: to be called before anything is written.

        Raises:
            AccessError: the old header cannot be kept, or the backing store refuses.
        """
        if self._has_begun:
            return
        self._keep(self._read_old())
        self._mend()
        self._has_begun = True

    @abstractmethod
    def write(self, header: HeaderT) -> HeaderT:
        """Replace the header; the new one as it is on disk.

        Raises:
            FormatError: it cannot be written as a header.
            AccessError: the backing store refuses.
        """

    def wipe(self, extent: Extent) -> None:
        """Overwrite what was key material, durably.

        Raises:
            AccessError: the backing store refuses.
        """
        self.begin()
        wipe_random(self.fd, extent)
        sync(self.fd)

    @abstractmethod
    def _read_old(self) -> OldHeader:
        """What is kept of the header as it is."""

    def _mend(self) -> None:
        """Make the header whole, where a copy of it is damaged."""
