"""The engine as its user sees it: calls that block, values in and out, never a clear key."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from ...keystore.errors import (
    AccessError,
    BusyError,
    ConfigError,
    EngineError,
    EngineMemoryError,
    FormatError,
    MapperError,
    NoKeyError,
    PolicyError,
    ProtectedKeyExpiredError,
    UnlockError,
    UnsupportedError,
)
from ...keystore.keys import ProtectedKey
from . import messages
from .channel import Channel, Reply
from .messages import (
    DeviceSpec,
    DeviceStats,
    DigestSpec,
    EventKind,
    ExportedKey,
    Hello,
    Kdf,
    KdfType,
    KeyForm,
    KeyslotSpec,
    PkeyType,
    SecretMode,
    SegmentSpec,
)
from .messages import MessageType as Type


class Secret:
    """A passphrase or key file that the engine holds. Leaving the context wipes it there."""

    def __init__(self, channel: Channel, handle: int, length: int) -> None:
        self._channel = channel
        self.handle = handle
        self.length = length  # bytes
        self._is_dropped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Wipe it in the engine; of a dead engine nothing is left to wipe."""
        if self._is_dropped:
            return
        self._is_dropped = True
        with contextlib.suppress(EngineError):
            self._channel.call(Type.DROP_SECRET, messages.SECRET.pack(self.handle, 0))


class Engine:
    """A connection to an engine process. All methods block, and may be called from any thread.

    All raise EngineError when the engine is gone or refuses, and EngineMemoryError when its key
    memory is full or a KDF wants more memory than policy allows.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._channel = Channel(sock)
        try:
            reply = self._channel.call(Type.HELLO, messages.KEY_SIZE.pack(messages.PROTOCOL, 0))
            _check_greeting(reply)
            self.hello = Hello.parse(reply.body)
            self._stats = mmap.mmap(
                reply.fds[0],
                self.hello.stats_slots * messages.STATS.size,
                prot=mmap.PROT_READ,
                flags=mmap.MAP_SHARED,
            )
            os.close(reply.fds[0])
        except BaseException:
            self._channel.close()
            raise

    def close(self) -> None:
        """Hang up; the engine goes on serving."""
        self._channel.close()
        self._stats.close()

    def set_event_handler(self, handler: Callable[[EventKind], None]) -> None:
        """Have ``handler`` called, from the channel's thread, for each event of the engine."""
        self._channel.set_event_handler(handler)

    # Secrets and keys.

    def load_secret(self, fd: int, mode: SecretMode, *, offset: int = 0, size: int = 0) -> Secret:
        """The secret read from ``fd``: ``size`` bytes (0: all) after ``offset``, or one line.

        Raises:
            UnlockError: the file is shorter than offset and size say, or longer than 8 MiB.
        """
        reply = self._channel.call(
            Type.LOAD_SECRET, messages.LOAD_SECRET.pack(mode, offset, size), [fd]
        )
        if reply.status == -errno.ENODATA:
            wanted = f"{size} bytes" if size else "at least one byte"
            raise UnlockError(f"key file: ends too early, wanted {wanted} from offset {offset}")
        if reply.status == -errno.EFBIG:
            raise UnlockError("key file: longer than 8388608 bytes, cryptsetup's limit")
        _check(reply, "reading the passphrase or key file")
        handle, length = messages.SECRET.unpack(reply.body)
        return Secret(self._channel, handle, length)

    def open_keyslot(
        self, fd: int, secret: Secret, keyslot: KeyslotSpec, digest: DigestSpec
    ) -> ProtectedKey:
        """The volume key in a keyslot of the header that ``fd`` is.

        Raises:
            NoKeyError: the secret does not open this keyslot.
            UnsupportedError: a hash or cipher that the engine does not have.
            FormatError: the keyslot area lies beyond the end of the header.
        """
        body = messages.OPEN_KEYSLOT.pack(secret.handle, keyslot.pack(), digest.pack())
        reply = self._channel.call(Type.OPEN_KEYSLOT, body, [fd])
        if reply.status == -errno.ENOKEY:
            raise NoKeyError("no key available with this passphrase")
        if reply.status == -errno.ENODATA:
            end = keyslot.area_offset + keyslot.area_length
            raise FormatError(f"keyslot area: ends at byte {end}, beyond the end of the header")
        _check_keyslot(reply, keyslot, secret, "opening the keyslot")
        return messages.parse_token(reply.body)

    def create_keyslot(
        self, fd: int, secret: Secret, key: ProtectedKey, keyslot: KeyslotSpec
    ) -> None:
        """Write the area of a keyslot that holds ``key`` under ``secret``. Not synced.

        Raises:
            UnsupportedError: a hash or cipher that the engine does not have.
        """
        body = messages.CREATE_KEYSLOT.pack(secret.handle, messages.pack_token(key), keyslot.pack())
        reply = self._channel.call(Type.CREATE_KEYSLOT, body, [fd])
        _check_keyslot(reply, keyslot, secret, "creating the keyslot")

    def generate_key(self, size: int, *, xts: bool) -> ProtectedKey:
        """A random volume key of ``size`` bytes; for XTS one whose halves differ."""
        return self._key(Type.GENERATE_KEY, messages.KEY_SIZE.pack(size, _xts(xts)), [], size)

    def table_key(self, secret: Secret, offset: int, size: int) -> ProtectedKey:
        """The key of ``size`` bytes in hexadecimal text, from character ``offset`` on.

        Raises:
            UnlockError: other text there, or less.
        """
        body = messages.TABLE_KEY.pack(secret.handle, offset, size)
        reply = self._channel.call(Type.TABLE_KEY, body)
        if reply.status in (-errno.EILSEQ, -errno.ENODATA):
            raise UnlockError(f"key: wanted {2 * size} hexadecimal digits")
        _check_key(reply, None, size)
        return messages.parse_token(reply.body)

    def show_key(self, node: int, segment: int, fd: int) -> None:
        """Write the clear key of a device's segment to ``fd``, as hexadecimal text.

        Raises:
            PolicyError: a coprocessor guards this key.
            UnlockError: there is none, or none while the device is suspended.
            AccessError: it cannot be written there.
        """
        reply = self._channel.call(Type.SHOW_KEY, messages.SHOW_KEY.pack(node, segment), [fd])
        refusals: dict[int, MapperError] = {
            errno.EACCES: PolicyError(
                "the key is a secure key's: only the engine has it, in clear"
            ),
            errno.ENOKEY: UnlockError("there is no key in the engine"),
            errno.EPIPE: AccessError("the key cannot be written: nobody reads"),
        }
        if -reply.status in refusals:
            raise refusals[-reply.status]
        _check(reply, "showing the key")

    def write_key(self, key: ProtectedKey, fd: int, form: KeyForm) -> None:
        """Write a clear volume key to ``fd``. Only an engine that serves no mount does it.

        Raises:
            PolicyError: it is a secure key, or one that a coprocessor sent.
            AccessError: it cannot be written there.
        """
        body = messages.WRITE_KEY.pack(messages.pack_token(key), form)
        reply = self._channel.call(Type.WRITE_KEY, body, [fd])
        if reply.status == -errno.EACCES:
            raise PolicyError("the volume key is a secure key, and is not shown")
        if reply.status in (-errno.EPIPE, -errno.ENOSPC, -errno.EIO, -errno.EBADF):
            raise AccessError(f"the key cannot be written: {os.strerror(-reply.status)}")
        _check(reply, "writing the volume key")

    def load_key(self, fd: int, size: int, *, xts: bool) -> ProtectedKey:
        """The volume key that the first ``size`` bytes of ``fd`` are."""
        return self._key(Type.LOAD_KEY, messages.KEY_SIZE.pack(size, _xts(xts)), [fd], size)

    def plain_key(
        self, secret: Secret, *, key_size: int, hash_name: str, hash_length: int = 0, xts: bool
    ) -> ProtectedKey:
        """The key of a plain volume, made from a secret as cryptsetup makes it.

        ``hash_name`` "" takes the secret itself (key file), "plain" pads it with zeros.

        Raises:
            UnsupportedError: a hash that the engine does not have.
        """
        body = messages.PLAIN_KEY.pack(
            secret.handle,
            key_size,
            hash_length,
            _xts(xts),
            hash_name.encode()[: messages.NAME_MAX - 1],
        )
        reply = self._channel.call(Type.PLAIN_KEY, body)
        if reply.status == -errno.EOPNOTSUPP:
            raise UnsupportedError(f"hash {hash_name}: not supported")
        if reply.status == -errno.EINVAL and hash_name:
            raise UnlockError(
                f"hash {hash_name}:{hash_length}: does not give a key of {key_size} bytes"
            )
        _check_key(reply, secret.length, key_size)
        return messages.parse_token(reply.body)

    def loopaes_key(
        self, secret: Secret, *, key_size: int, hash_name: str = ""
    ) -> tuple[ProtectedKey, int]:
        """The keys in a loop-AES key file, ``key_size`` bytes each, in one; and how many they are.

        Without ``hash_name`` it is the one that loop-AES has for this size.

        Raises:
            UnlockError: no loop-AES key file, or one that gpg encrypted.
            UnsupportedError: a hash that the engine does not have.
            ConfigError: a size that the hash does not give.
        """
        body = messages.LOOPAES_KEY.pack(
            secret.handle, key_size, hash_name.encode()[: messages.NAME_MAX - 1]
        )
        reply = self._channel.call(Type.LOOPAES_KEY, body)
        if reply.status == -errno.EOPNOTSUPP:
            raise UnsupportedError(f"hash {hash_name}: not supported")
        refusals: dict[int, MapperError] = {
            errno.ENOTUNIQ: UnlockError(
                "loop-AES key file: encrypted by gpg; wanted: what it holds, as in "
                "gpg -d FILE | fusecrypt open --type loopaes --key-file - …"
            ),
            errno.EINVAL: UnlockError(
                "loop-AES key file: wanted 1, 64 or 65 lines of one length, each with its newline"
            ),
            errno.EDOM: ConfigError(
                f"loop-AES: keys of {key_size * 8} bits by {hash_name or 'no hash'}; "
                "wanted 128, 192 or 256 bits, or a --hash that is as long"
            ),
        }
        if -reply.status in refusals:
            raise refusals[-reply.status]
        _check(reply, "making the keys of loop-AES")
        count, token = messages.LOOPAES_KEYS.unpack(reply.body)
        return messages.parse_token(token), count

    def make_digest(self, key: ProtectedKey, digest: DigestSpec) -> bytes:
        """The digest of a volume key, ``digest.digest_length`` bytes.

        Raises:
            UnsupportedError: a hash that the engine does not have.
        """
        body = messages.MAKE_DIGEST.pack(messages.pack_token(key), digest.pack())
        reply = self._channel.call(Type.MAKE_DIGEST, body)
        if reply.status == -errno.EOPNOTSUPP:
            raise UnsupportedError(f"digest hash {digest.hash_name}: not supported")
        _check(reply, "computing the digest")
        length, value = messages.DIGEST_VALUE.unpack(reply.body)
        return bytes(value[:length])

    def benchmark_kdf(self, kdf: Kdf, *, key_size: int, milliseconds: int) -> Kdf:
        """``kdf`` with the costs that take about ``milliseconds`` on this machine.

        Raises:
            UnsupportedError: a hash that the engine does not have.
        """
        body = messages.BENCHMARK.pack(kdf.pack(), key_size, milliseconds)
        reply = self._channel.call(Type.BENCHMARK_KDF, body)
        if reply.status == -errno.EOPNOTSUPP:
            raise UnsupportedError(f"hash {kdf.hash_name}: not supported")
        _check(reply, "measuring the KDF")
        return Kdf.parse(reply.body)

    def benchmark_cipher(
        self, cipher: str, *, key_size: int, sector_size: int, milliseconds: int
    ) -> tuple[float, float]:
        """How fast sectors are enciphered and deciphered in one thread here, in bytes a second.

        Raises:
            UnsupportedError: a cipher that the engine does not have.
            ConfigError: it takes no key, or serves no sectors, of that size.
        """
        body = messages.CIPHER_BENCHMARK.pack(cipher.encode(), key_size, sector_size, milliseconds)
        reply = self._channel.call(Type.BENCHMARK_CIPHER, body)
        if reply.status == -errno.EOPNOTSUPP:
            raise UnsupportedError(f"cipher {cipher}: not supported")
        if reply.status == -errno.EINVAL:
            raise ConfigError(
                f"cipher {cipher}: no key of {key_size * 8} bits, or no sectors of {sector_size}"
            )
        _check(reply, "measuring the cipher")
        encrypted, encrypt_time, decrypted, decrypt_time = messages.CIPHER_SPEED.unpack(reply.body)
        return encrypted * 1e9 / encrypt_time, decrypted * 1e9 / decrypt_time

    def import_key(self, blob: bytes, *, key_size: int = 0) -> ProtectedKey:
        """The key that a coprocessor sent in a transport blob made for this engine's session.

        Raises:
            UnlockError: not authentic, used before, or of another size than ``key_size``.
            UnsupportedError: a kind of blob that this engine does not take.
        """
        if len(blob) > messages.BLOB_MAX:
            raise UnlockError(f"transport blob: {len(blob)} bytes, at most {messages.BLOB_MAX}")
        reply = self._channel.call(
            Type.IMPORT_KEY, messages.BLOB.pack(len(blob), key_size, bytes(blob))
        )
        if reply.status == -errno.EOPNOTSUPP:
            kind = blob[0] if blob else "none"
            raise UnsupportedError(f"transport blob of kind {kind}: not supported, wanted kind 1")
        refusals = {
            errno.EKEYREJECTED: "not made for this session, or altered",
            errno.EEXIST: "used before",
            errno.EINVAL: f"{len(blob)} bytes hold no key of the wanted size {key_size or 'any'}",
        }
        if -reply.status in refusals:
            raise UnlockError(f"transport blob: {refusals[-reply.status]}")
        _check(reply, "importing the key")
        return messages.parse_token(reply.body)

    def export_key(self, key: ProtectedKey) -> ExportedKey:
        """What a volume key is, and what may be shown of it: a secure key's tokens, no clear key.

        Raises:
            ProtectedKeyExpiredError: it consists of protected key tokens of another session.
        """
        reply = self._channel.call(Type.EXPORT_KEY, messages.pack_token(key))
        if reply.status == -errno.EKEYEXPIRED:
            raise ProtectedKeyExpiredError(
                "protected key: made in another session of the engine, which nothing can use now"
            )
        _check(reply, "looking at the volume key")
        return ExportedKey.parse(reply.body)

    def make_pkey_token(self, kind: PkeyType) -> bytes:
        """A random protected key of IBM Z's layout (80 bytes; XTS-128 80, XTS-256 112)."""
        reply = self._channel.call(Type.MAKE_PKEY, messages.KEY_SIZE.pack(kind, 0))
        _check(reply, "making a protected key")
        return messages.parse_token(reply.body).token

    # Devices.

    def add_device(self, device: DeviceSpec, fds: Sequence[int]) -> int:
        """Serve a device under its node id from now on; the slot of its statistics.

        ``fds`` are the backing descriptors that the segments count; the engine keeps duplicates.
        """
        reply = self._channel.call(Type.ADD_DEVICE, device.pack(), fds)
        _check_table(reply, device.segments)
        return int(messages.ADDED.unpack(reply.body)[0])

    def load_table(self, device: DeviceSpec, fds: Sequence[int]) -> None:
        """Replace the table of a suspended device."""
        _check_table(self._channel.call(Type.LOAD_TABLE, device.pack(), fds), device.segments)

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
        _check(reply, "resizing")

    def resume(self, node: int) -> None:
        """Go on with a suspended device, with the I/O that was held first."""
        self._node(Type.RESUME, node, "resuming")

    def rekey(self, node: int, segment: int, key: ProtectedKey) -> None:
        """Give segment number ``segment`` of a suspended device its key."""
        body = messages.REKEY.pack(node, segment, messages.pack_token(key))
        _check(self._channel.call(Type.REKEY, body), f"key for segment {segment}")

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
        _check(reply, "reading")
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

    # The process.

    def status(self) -> Hello:
        """The engine's account of itself, of this moment."""
        reply = self._channel.call(Type.STATUS)
        _check(reply, "engine's status")
        return Hello.parse(reply.body)

    def shutdown(self) -> None:
        """Drain, sync and drop every device, wipe, end the process.

        Raises:
            EngineError: a backing store failed to sync.
        """
        _check(self._channel.call(Type.SHUTDOWN), "flushing the backing stores")

    def _key(self, kind: Type, body: bytes, fds: Sequence[int], size: int) -> ProtectedKey:
        reply = self._channel.call(kind, body, fds)
        _check_key(reply, None, size)
        return messages.parse_token(reply.body)

    def _node(self, kind: Type, node: int, what: str, flags: int = 0) -> None:
        _check(self._channel.call(kind, messages.NODE.pack(node, flags)), what)

    def _invalidate(self, node: int, parent: int, name: bytes) -> None:
        reply = self._channel.call(Type.INVALIDATE, messages.INVALIDATE.pack(node, parent, name))
        # The kernel knows nothing of what nobody looked up: then nothing is cached either.
        if reply.status != -errno.ENOENT:
            _check(reply, "dropping the kernel's pages")


def _xts(xts: bool) -> int:  # noqa: FBT001 (a flag turned into its bit)
    return messages.KEY_XTS if xts else 0


def _check(reply: Reply, what: str) -> None:
    if reply.status == 0:
        return
    code = -reply.status
    if code == errno.ENOSPC:
        raise EngineMemoryError(f"{what}: the engine's key memory is full (RLIMIT_MEMLOCK)")
    if code in (errno.ENOMEM, errno.E2BIG):
        raise EngineMemoryError(
            f"{what}: the KDF wants more memory than policy or the machine allows"
        )
    if code == errno.EKEYEXPIRED:
        raise EngineError(f"{what}: the key belongs to another session of the engine")
    raise EngineError(f"{what}: {os.strerror(code)}")


def _check_greeting(reply: Reply) -> None:
    _check(reply, "engine's greeting")
    if len(reply.fds) != 1:
        raise EngineError(f"engine's greeting: {len(reply.fds)} descriptors, wanted 1")


def _check_keyslot(reply: Reply, keyslot: KeyslotSpec, secret: Secret, what: str) -> None:
    if reply.status == -errno.EOPNOTSUPP:
        kdf = keyslot.kdf
        if kdf.type is not KdfType.PBKDF2 and secret.length == 0:
            raise UnsupportedError(f"{what}: {kdf.type.name.lower()} of an empty passphrase")
        raise UnsupportedError(
            f"{what}: area cipher {keyslot.area_cipher}, AF hash {keyslot.af_hash} or "
            f"KDF {kdf.type.name.lower()} {kdf.hash_name}".rstrip()
            + ": not supported"
        )
    if reply.status == -errno.E2BIG:
        raise EngineMemoryError(
            f"{what}: Argon2 wants {keyslot.kdf.memory_kib} KiB, more than policy allows"
        )
    if reply.status == -errno.EINVAL:
        raise FormatError(f"{what}: sizes or KDF costs that cannot be")
    _check(reply, what)


def _check_key(reply: Reply, got: int | None, wanted: int) -> None:
    refusals: dict[int, MapperError] = {
        errno.EKEYREJECTED: UnlockError("volume key: the two halves of an XTS key are equal"),
        errno.ENODATA: UnlockError(
            f"key file: {'too few' if got is None else got} bytes, wanted {wanted}"
        ),
        errno.EINVAL: UnlockError(f"volume key: {wanted} bytes, possible are 1 to 2080"),
    }
    if -reply.status in refusals:
        raise refusals[-reply.status]
    _check(reply, "making the volume key")


def _check_table(reply: Reply, segments: Sequence[SegmentSpec]) -> None:
    ciphers = ", ".join(sorted({s.cipher for s in segments if s.cipher}))
    if reply.status == -errno.EOPNOTSUPP:
        raise UnsupportedError(f"cipher {ciphers}: not supported")
    if reply.status == -errno.EKEYREJECTED:
        raise UnlockError("volume key: the two halves of an XTS key are equal")
    if reply.status == -errno.EINVAL:
        raise EngineError(f"table: sizes, offsets or a key that do not fit cipher {ciphers}")
    if reply.status == -errno.EEXIST:
        raise EngineError("table: this node id is in use")
    if reply.status == -errno.EUSERS:
        raise EngineError("table: the engine serves as many devices as it can")
    _check(reply, "loading the table")
