"""The engine as its user sees it: calls that block, values in and out, never a clear key."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections.abc import Callable, Sequence

from ...keystore.errors import (
    AccessError,
    BusyError,
    ConfigError,
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
from .channel import Channel
from .devices import Devices
from .messages import (
    DigestSpec,
    ExportedKey,
    Kdf,
    KeyForm,
    KeyslotSpec,
    PkeyType,
    SecretMode,
)
from .messages import MessageType as Type
from .replies import check, check_greeting, check_key, check_keyslot
from .reports import Event, Hello
from .secret import Secret

__all__ = ["Engine", "Secret"]


class Engine(Devices):
    """A connection to an engine process. All methods block, and may be called from any thread.

    All raise EngineError when the engine is gone or refuses, and EngineMemoryError when its key
    memory is full or a KDF wants more memory than policy allows.
    """

    def __init__(self, sock: socket.socket) -> None:
        channel = Channel(sock)
        try:
            reply = channel.call(Type.HELLO, messages.KEY_SIZE.pack(messages.PROTOCOL, 0))
            check_greeting(reply)
            self.hello = Hello.parse(reply.body)
            stats = mmap.mmap(
                reply.fds[0],
                self.hello.stats_slots * messages.STATS.size,
                prot=mmap.PROT_READ,
                flags=mmap.MAP_SHARED,
            )
            os.close(reply.fds[0])
        except BaseException:
            channel.close()
            raise
        super().__init__(channel, stats)

    def close(self) -> None:
        """Hang up; the engine goes on serving."""
        self._channel.close()
        self._stats.close()

    def set_event_handler(self, handler: Callable[[Event], None]) -> None:
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
        check(reply, "reading the passphrase or key file")
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
        check_keyslot(reply, keyslot, "opening the keyslot", digest)
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
        check_keyslot(reply, keyslot, "creating the keyslot")

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
        check_key(reply, None, size)
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
        check(reply, "showing the key")

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
        check(reply, "writing the volume key")

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
        check_key(reply, secret.length, key_size)
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
        check(reply, "making the keys of loop-AES")
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
        check(reply, "computing the digest")
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
        check(reply, "measuring the KDF")
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
        check(reply, "measuring the cipher")
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
        if reply.status in (-errno.EKEYREJECTED, -errno.EDQUOT):
            self.hello = self.status()  # the public key may be another one since the blob was made
        if reply.status == -errno.EOPNOTSUPP:
            kind = blob[0] if blob else "none"
            raise UnsupportedError(f"transport blob of kind {kind}: not supported, wanted 1 or 2")
        refusals = {
            errno.EKEYREJECTED: "not made for this session, or altered",
            errno.EEXIST: "used before",
            errno.EDQUOT: "the engine took as many as it can tell apart; its public key is another",
            errno.EINVAL: f"{len(blob)} bytes hold no key of the wanted size {key_size or 'any'}",
        }
        if -reply.status in refusals:
            raise UnlockError(f"transport blob: {refusals[-reply.status]}")
        check(reply, "importing the key")
        return messages.parse_token(reply.body)

    def get_rsa_modulus(self) -> bytes:
        """The public key of this session for transport blobs of kind 2, with the exponent 65537.

        The first call takes about a second.
        """
        reply = self._channel.call(Type.RSA_KEY)
        check(reply, "making an RSA key pair")
        return messages.parse_rsa_modulus(reply.body)

    def bump_session(self) -> None:
        """Begin another session, with another public key: all protected keys of this one are void.

        Devices with keys of a coprocessor lose them, and want them again (`renew_key`); I/O of
        those with random protected keys fails from now on; all others go on. Done when every key is
        gone.

        Raises:
            BusyError: a device is being changed just now, and nothing has happened.
        """
        reply = self._channel.call(Type.BUMP_SESSION)
        if reply.status == -errno.EBUSY:
            raise BusyError("another session: a volume is being changed just now")
        check(reply, "beginning another session")
        self.hello = Hello.parse(reply.body)

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
        check(reply, "looking at the volume key")
        return ExportedKey.parse(reply.body)

    def make_pkey_token(self, kind: PkeyType) -> bytes:
        """A random protected key of IBM Z's layout (80 bytes; XTS-128 80, XTS-256 112)."""
        reply = self._channel.call(Type.MAKE_PKEY, messages.KEY_SIZE.pack(kind, 0))
        check(reply, "making a protected key")
        return messages.parse_token(reply.body).token

    # The process.

    def status(self) -> Hello:
        """The engine's account of itself, of this moment."""
        reply = self._channel.call(Type.STATUS)
        check(reply, "engine's status")
        return Hello.parse(reply.body)

    def shutdown(self) -> None:
        """Drain, sync and drop every device, wipe, end the process.

        Raises:
            EngineError: a backing store failed to sync.
        """
        check(self._channel.call(Type.SHUTDOWN), "flushing the backing stores")

    def _key(self, kind: Type, body: bytes, fds: Sequence[int], size: int) -> ProtectedKey:
        reply = self._channel.call(kind, body, fds)
        check_key(reply, None, size)
        return messages.parse_token(reply.body)


def _xts(xts: bool) -> int:  # noqa: FBT001 (a flag turned into its bit)
    return messages.KEY_XTS if xts else 0
