"""The engine's devices as its user sees them: served, suspended, changed, removed."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Sequence

from ...keystore.errors import AccessError, BusyError, ConfigError, EngineError
from ...keystore.keys import ProtectedKey
from . import messages
from .channel import Channel
from .messages import DeviceSpec
from .messages import MessageType as Type
from .replies import check, check_table
from .reports import DeviceStats


class Devices:
    """The calls of `Engine` about devices; they block, and any thread may make them."""

    def __init__(self, channel: Channel, stats: mmap.mmap) -> None:
        self._channel = channel
        self._stats = stats

    def add_device(self, device: DeviceSpec, fds: Sequence[int]) -> int:
        """Serve a device under its node id from now on; the slot of its statistics.

        ``fds`` are the backing descriptors that the segments count; the engine keeps duplicates.
        """
        reply = self._channel.call(Type.ADD_DEVICE, device.pack(), fds)
        check_table(reply, device.segments)
        return int(messages.ADDED.unpack(reply.body)[0])

    def load_table(self, device: DeviceSpec, fds: Sequence[int]) -> None:
        """Replace the table of a suspended device."""
        check_table(self._channel.call(Type.LOAD_TABLE, device.pack(), fds), device.segments)

    def remove_device(self, node: int) -> None:
        """Refuse new I/O, finish what runs, sync, drop the keys and the device.

        Raises:
            EngineError: the backing store failed to sync; the device is gone all the same.
        """
        self._node(Type.REMOVE_DEVICE, node, "flushing the backing store")

    def suspend(self, node: int, *, wipe_keys: bool = False, fail_io: bool = False) -> None:
        """Finish what runs, sync, and hold new I/O, or with ``fail_io`` refuse it (EIO).

        ``wipe_keys`` drops the keys as well. Of a suspended device ``fail_io`` ends the waiting.

        Raises:
            EngineError: already suspended, or the backing store failed to sync, which does not keep
                the device from being suspended.
        """
        flags = messages.SUSPEND_WIPE if wipe_keys else 0
        flags |= messages.SUSPEND_FAIL if fail_io else 0
        self._node(Type.SUSPEND, node, "suspending", flags)

    def resize(self, node: int, size: int) -> None:
        """Give a device of one segment another size, in bytes, while it is in use.

        Raises:
            ConfigError: no whole sectors, or a table of several targets.
            AccessError: the backing store ends before.
            BusyError: somebody else uses what would be added, or the device is suspended.
        """
        reply = self._channel.call(Type.RESIZE, messages.RESIZE.pack(node, size))
        if reply.status == -errno.EINVAL:
            raise ConfigError(f"{size} bytes: no whole sectors, or a table of several targets")
        if reply.status == -errno.ENOSPC:
            raise AccessError(f"device is too small for {size} bytes of data")
        if reply.status == -errno.EBUSY:
            raise BusyError("the data area cannot grow: in use, or the volume is suspended")
        check(reply, "resizing")

    def resume(self, node: int) -> None:
        """Go on with a suspended device, with the I/O that was held first."""
        self._node(Type.RESUME, node, "resuming")

    def rekey(self, node: int, segment: int, key: ProtectedKey) -> None:
        """Give segment number ``segment`` of a suspended device its key."""
        body = messages.REKEY.pack(node, segment, messages.pack_token(key))
        check(self._channel.call(Type.REKEY, body), f"key for segment {segment}")

    def forget_key(self, node: int) -> None:
        """Finish what runs, sync, and forget a key that a coprocessor sent.

        Of a device that wants a key already nothing happens. I/O waits from now on; the first one
        is told by the event KEY_WANTED.

        Raises:
            BusyError: the device is being changed, or suspended otherwise.
            EngineError: the backing store failed to sync; the key is gone all the same.
        """
        reply = self._channel.call(Type.FORGET_KEY, messages.NODE.pack(node, 0))
        if reply.status == -errno.EBUSY:
            raise BusyError("forgetting the key: the volume is being changed, or suspended")
        check(reply, "forgetting the key")

    def renew_key(self, node: int, segment: int, key: ProtectedKey) -> bool:
        """Give a device the key that it wants, and go on; False: it wants none any more.

        Raises:
            ProtectedKeyExpiredError: a key of another session.
        """
        body = messages.REKEY.pack(node, segment, messages.pack_token(key))
        reply = self._channel.call(Type.RENEW_KEY, body)
        if reply.status == -errno.EALREADY:
            return False
        check(reply, f"key for segment {segment}")
        return True

    def deny_key(self, node: int, *, milliseconds: int) -> None:
        """Let fail what waits for a key, and what comes in this time; then I/O asks again."""
        reply = self._channel.call(Type.DENY_KEY, messages.NODE.pack(node, milliseconds))
        if reply.status != -errno.EALREADY:
            check(reply, "refusing I/O without a key")

    def refresh(self, node: int, *, discards: bool) -> None:
        """Let hole punching reach the backing store, or no longer, while the device is in use."""
        self._node(Type.REFRESH, node, "refreshing", messages.DISCARDS if discards else 0)

    def read(self, node: int, offset: int, size: int) -> bytes:
        """At most 8192 bytes of a device, deciphered; fewer at its end.

        For the one command that started this engine: one that serves a mount refuses.

        Raises:
            EngineError: it refuses, or the backing store fails.
        """
        reply = self._channel.call(Type.READ, messages.READ.pack(node, offset, size))
        check(reply, "reading")
        return reply.body

    def flush(self, node: int) -> None:
        """Sync the backing store of a device."""
        self._node(Type.FLUSH, node, "flushing the backing store")

    def invalidate(self, node: int, entries: Sequence[tuple[int, bytes]] = ()) -> None:
        """Make the kernel drop the pages of ``node`` and each (parent node, name) entry."""
        for parent, name in entries:
            if not 0 < len(name) <= messages.ENTRY_NAME_MAX:
                raise EngineError(f"entry name of {len(name)} bytes, wanted 1 to 255")
            self._invalidate(0, parent, name)
        self._invalidate(node, 0, b"")

    def stats(self, slot: int) -> DeviceStats:
        """The counters in a slot that `add_device` named."""
        at = slot * messages.STATS.size
        return DeviceStats.parse(self._stats[at : at + messages.STATS.size])

    def _node(self, kind: Type, node: int, what: str, flags: int = 0) -> None:
        check(self._channel.call(kind, messages.NODE.pack(node, flags)), what)

    def _invalidate(self, node: int, parent: int, name: bytes) -> None:
        reply = self._channel.call(Type.INVALIDATE, messages.INVALIDATE.pack(node, parent, name))
        # The kernel knows nothing of what nobody looked up: then nothing is cached either.
        if reply.status != -errno.ENOENT:
            check(reply, "dropping the kernel's pages")
