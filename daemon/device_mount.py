"""The daemon's mount, whoever made it: ourselves, with a keeper, or fusecrypt-mountd."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from . import mount
from .mountd import client
from .runtime_dir import forget_process, record_process

if TYPE_CHECKING:
    from .config import Settings

#: The most readers that an engine takes clones for; it opens further descriptors where it may.
_MAX_CLONES: Final = 16


class DeviceMount(Protocol):
    """A mount, and what its engine is given of it."""

    @property
    def fuse_fd(self) -> int:
        """The connection."""
        ...

    @property
    def lifetime_fd(self) -> int:
        """To be held by the engine: the mount stays until it is closed and the daemon is gone."""
        ...

    @property
    def clone_fds(self) -> Sequence[int]:
        """Open /dev/fuse descriptors for an engine that may not open it itself."""
        ...

    def hand_over(self) -> None:
        """The engine has its descriptors now; ours are closed."""
        ...

    def set_read_ahead(self) -> int:
        """Read ahead as far as may be, once the mount answers; kilobytes in force. Blocks."""
        ...


@dataclass(slots=True)
class OwnMount:
    """A mount that this process made, and that a keeper takes away after it."""

    fuse_fd: int
    clone_fds: Sequence[int]
    _device: str
    _keeper: mount.Keeper

    @property
    def lifetime_fd(self) -> int:
        return self._keeper.lifetime_fd

    def hand_over(self) -> None:
        # From here on only the engine has a descriptor of the connection.
        os.close(self.fuse_fd)
        self.fuse_fd = -1
        self._keeper.hand_over()

    def set_read_ahead(self) -> int:
        return mount.set_read_ahead(self._device)


def open_device_mount(settings: Settings) -> contextlib.AbstractContextManager[DeviceMount]:
    """Mount at the settings' device directory; unmounted at the end.

    Raises:
        MapperError: it cannot be mounted.
    """
    if settings.mountd is not None:
        threads = settings.engine_threads or os.cpu_count() or 1
        return client.open_mount(settings.mountd, min(threads, _MAX_CLONES))
    return _open_own_mount(settings)


@contextlib.contextmanager
def _open_own_mount(settings: Settings) -> Generator[OwnMount, None, None]:
    device_dir = settings.device_dir
    with mount.open_keeper(device_dir) as keeper:
        record_process(settings, "keeper", keeper.process.pid)
        fuse_fd = mount.mount(device_dir)
        device = mount.find_device(device_dir) or ""
        made = OwnMount(fuse_fd, (), device, keeper)
        try:
            keeper.watch(device)
            yield made
        finally:
            if made.fuse_fd >= 0:
                made.hand_over()
            mount.unmount(device_dir)
            keeper.dismiss()
            forget_process(settings, "keeper")
