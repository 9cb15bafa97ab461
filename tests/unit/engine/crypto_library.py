"""The engine's cryptography, loaded into this process: thin wrappers that take and give bytes.

One arena a process, as in the engine. Keys that the library made are copied out of it here, which
only tests may do.
"""

import errno
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fusecrypt.dmcrypt.engine._engine import ffi, lib

ARENA_LIMIT = 8 << 20  # bytes: an ordinary user's RLIMIT_MEMLOCK
KDF_MEMORY_LIMIT = 64 << 10  # KiB
WORKERS = 2
PBKDF2, ARGON2I, ARGON2ID = 1, 2, 3
LINE, ALL = 1, 2
KEY_XTS = 1
KEY_SIZE_MAX = 1024


class WrongPassphraseError(OSError):
    """The one refusal that a program acts upon."""


@functools.cache
def start() -> None:
    """Initialise arena, libgcrypt, KDFs and session, once."""
    check(lib.arena_init(512 << 10, ARENA_LIMIT, False))
    check(lib.arena_init_gcrypt())
    check(lib.kdf_init(KDF_MEMORY_LIMIT, WORKERS))
    check(lib.session_init())


def check(result: int) -> None:
    """Turn a negative errno into OSError."""
    if result < 0:
        kind = WrongPassphraseError if result == -errno.ENOKEY else OSError
        raise kind(-result, errno.errorcode.get(-result, "?"))


@contextmanager
def refused(code: int) -> Iterator[None]:
    """The block must end with this errno, and leave nothing in the arena."""
    start()
    before = arena_used()
    with pytest.raises(OSError, match=rf"^\[Errno {code}\]"):
        yield
    assert arena_used() == before


def arena_used() -> int:
    return lib.arena_info().used


@contextmanager
def arena_bytes(size: int) -> Iterator[Any]:
    start()
    p = lib.arena_alloc(size)
    assert p != ffi.NULL
    try:
        yield ffi.cast("uint8_t *", p)
    finally:
        lib.arena_free(p)


def take(pointer: Any, size: int) -> bytes:
    """Copy out of arena memory, and free it."""
    content = bytes(ffi.buffer(pointer, size))
    lib.arena_free(pointer)
    return content


class Cipher:
    """A sector cipher. One thread index unless more are asked for."""

    def __init__(self, spec, key, *, sector_size=512, iv_large_sectors=False, flags=0, threads=1):
        start()
        out = ffi.new("struct cipher **")
        check(
            lib.cipher_open(
                out, spec.encode(), key, len(key), sector_size, flags | iv_large_sectors, threads
            )
        )
        self._cipher = out[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        lib.cipher_close(self._cipher)

    def decrypt(self, ciphertext, sector=0, thread=0):
        buf = bytearray(ciphertext)
        held = ffi.from_buffer(buf)
        check(lib.cipher_decrypt(self._cipher, thread, held, len(buf), sector))
        return bytes(buf)

    def encrypt(self, plaintext, sector=0, thread=0):
        out = ffi.new("uint8_t[]", len(plaintext))
        check(lib.cipher_encrypt(self._cipher, thread, out, plaintext, len(plaintext), sector))
        return bytes(ffi.buffer(out))


def make_kdf(kind, salt, iterations, *, memory=0, lanes=0, hash_name=""):
    kdf = ffi.new("struct wire_kdf *")
    kdf.type, kdf.iterations, kdf.memory, kdf.lanes = kind, iterations, memory, lanes
    kdf.hash = hash_name.encode()
    kdf.salt_length = len(salt)
    kdf.salt[0 : len(salt)] = salt
    return kdf


def derive(kdf, password, size):
    with arena_bytes(size) as out:
        check(lib.kdf_derive(kdf, password, len(password), out, size))
        return bytes(ffi.buffer(out, size))


@contextmanager
def secret(content):
    """The content as the engine would have loaded it: through a descriptor."""
    fd = os.memfd_create("secret")
    try:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        loaded = load_secret(fd, ALL)
    finally:
        os.close(fd)
    try:
        yield loaded
    finally:
        lib.secret_free(loaded)


def load_secret(fd, mode, *, offset=0, size=0):
    """A ``struct secret``, to be freed with lib.secret_free."""
    start()
    how = ffi.new("struct wire_load_secret *", {"mode": mode, "offset": offset, "size": size})
    out = ffi.new("struct secret *")
    check(lib.secret_load(out, fd, how))
    return out


def read_secret(fd, mode, *, offset=0, size=0):
    """What load_secret got."""
    loaded = load_secret(fd, mode, offset=offset, size=size)
    content = bytes(ffi.buffer(loaded.bytes, loaded.length))
    lib.secret_free(loaded)
    return content


def make_digest(hash_name, iterations, salt, digest, length=None):
    made = ffi.new("struct wire_digest *")
    made.hash = hash_name.encode()
    made.iterations = iterations
    made.salt_length = len(salt)
    made.salt[0 : len(salt)] = salt
    made.digest_length = len(digest) if length is None else length
    made.digest[0 : len(digest)] = digest
    return made


def make_keyslot(kdf, *, key_size, stripes, af_hash, cipher, area_key_size, offset=0, length=None):
    slot = ffi.new("struct wire_keyslot *")
    slot.key_size, slot.stripes, slot.area_key_size = key_size, stripes, area_key_size
    slot.area_offset = offset
    slot.area_length = -(-key_size * stripes // 4096) * 4096 if length is None else length
    slot.af_hash = af_hash.encode()
    slot.area_cipher = cipher.encode()
    slot.kdf = kdf[0]
    return slot


def open_keyslot(fd, slot, digest, password):
    key = ffi.new("uint8_t **")
    with secret(password) as loaded:
        check(lib.keyslot_open(fd, slot, digest, loaded, key))
    return take(key[0], slot.key_size)


def create_keyslot(fd, slot, password, key):
    with secret(password) as loaded:
        check(lib.keyslot_create(fd, slot, loaded, key, len(key)))


def make_plain_key(password, key_size, hash_name, *, hash_length=0, xts=False):
    how = ffi.new("struct wire_plain_key *")
    how.key_size, how.hash_length, how.flags = key_size, hash_length, KEY_XTS if xts else 0
    how.hash = hash_name.encode()
    key = ffi.new("uint8_t **")
    with secret(password) as loaded:
        check(lib.plain_key(how, loaded, key))
    return take(key[0], key_size)


def wrap(key):
    start()
    token = ffi.new("struct wire_token *")
    check(lib.session_wrap(key, len(key), token))
    return bytes(ffi.buffer(token.bytes, token.length))


def unwrap(token):
    start()
    given = ffi.new("struct wire_token *", {"length": len(token)})
    given.bytes[0 : len(token)] = token
    key, size = ffi.new("uint8_t **"), ffi.new("size_t *")
    check(lib.session_unwrap(given, key, size))
    return take(key[0], size[0])


def import_blob(blob, key_size=0):
    start()
    token = ffi.new("struct wire_token *")
    check(lib.session_import(blob, len(blob), key_size, token))
    return bytes(ffi.buffer(token.bytes, token.length))
