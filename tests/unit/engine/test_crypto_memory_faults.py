"""Every operation with too little key memory, from none up: an errno, nothing left, no abort."""

import errno
import os
import random
from contextlib import contextmanager

import pytest

from tests.unit.engine import test_crypto_rsa
from tests.unit.engine.crypto_library import (
    ALL,
    ARGON2ID,
    PBKDF2,
    Cipher,
    arena_used,
    check,
    ffi,
    lib,
    make_digest,
    make_kdf,
    make_keyslot,
    read_secret,
    start,
    unwrap,
    wrap,
)
from tests.unit.engine.test_crypto_session import seal

RANDOM = random.Random(8)
WINDOW = 64 << 10  # bytes: more than any operation here needs
PIECE = 64


def open_cipher():
    with Cipher("twofish-cbc-essiv:sha256", b"k" * 32, threads=2):
        pass


def derive_by(kdf):
    out = ffi.new("uint8_t[]", 32)
    check(lib.kdf_derive(kdf, b"password", 8, out, 32))


def pbkdf2():
    derive_by(make_kdf(PBKDF2, b"s" * 32, 2, hash_name="sha512"))


def argon2():
    derive_by(make_kdf(ARGON2ID, b"s" * 32, 1, memory=16, lanes=2))


SLOT = make_keyslot(
    make_kdf(PBKDF2, b"s" * 32, 2, hash_name="sha256"),
    key_size=64,
    stripes=8,
    af_hash="sha256",
    cipher="aes-xts-plain64",
    area_key_size=64,
)
NO_SECRET = ffi.new("struct secret *")


def use_keyslot():
    fd = os.memfd_create("area")
    key = ffi.new("uint8_t **")
    try:
        check(lib.keyslot_create(fd, SLOT, NO_SECRET, b"k" * 64, 64))
        result = lib.keyslot_open(
            fd, SLOT, make_digest("sha256", 2, b"s" * 32, b"d" * 32), NO_SECRET, key
        )
        check(0 if result == -errno.ENOKEY else result)
    finally:
        os.close(fd)


def split():
    material = ffi.new("uint8_t[]", 1024)
    check(lib.af_split(b"sha256", b"k" * 64, 64, 16, material))
    check(lib.af_merge(b"sha256", material, 64, 16, ffi.new("uint8_t[]", 64)))


def use_token():
    assert unwrap(wrap(b"k" * 64)) == b"k" * 64


def import_sealed():
    blob, token = seal(b"k" * 64), ffi.new("struct wire_token *")
    check(lib.session_import(blob, len(blob), 64, token))


def import_enciphered():
    blob, token = test_crypto_rsa.seal(b"k" * 32), ffi.new("struct wire_token *")
    check(lib.session_import(blob, len(blob), 32, token))


def make_plain_key():
    how = ffi.new("struct wire_plain_key *", {"key_size": 64, "hash": b"sha256"})
    key = ffi.new("uint8_t **")
    check(lib.plain_key(how, NO_SECRET, key))
    lib.arena_free(key[0])


def load():
    fd = os.memfd_create("secret")
    try:
        os.write(fd, bytes(5000))
        os.lseek(fd, 0, os.SEEK_SET)
        assert read_secret(fd, ALL) == bytes(5000)
    finally:
        os.close(fd)


def prepare_session():
    session = ffi.new("struct session *")
    check(lib.session_prepare(session))
    lib.session_discard(session)


@contextmanager
def shortage():
    """A full arena, and the pieces of one window in it that may be freed one after the other."""
    start()
    failed = ffi.new("const char **")
    check(lib.selftest_run(failed))  # as the engine does: libgcrypt tests a cipher at its first use
    window, held = lib.arena_alloc(WINDOW), []
    for size in (100_000, 4096, PIECE):
        while (p := lib.arena_alloc(size)) != ffi.NULL:
            held.append(p)
    lib.arena_free(window)
    pieces = [lib.arena_alloc(PIECE) for _ in range(WINDOW // PIECE)]
    assert ffi.NULL not in pieces
    assert lib.arena_alloc(PIECE) == ffi.NULL
    try:
        yield pieces
    finally:
        for p in (*held, *pieces):
            lib.arena_free(p)


WITHIN_RESERVE = (pbkdf2, split)


@pytest.mark.parametrize(
    "operation",
    [
        open_cipher,
        pbkdf2,
        argon2,
        use_keyslot,
        split,
        use_token,
        import_sealed,
        import_enciphered,
        make_plain_key,
        load,
        prepare_session,
    ],
)
def test_an_operation_fails_cleanly_until_there_is_enough(operation):
    start()
    operation()  # what is made once for the engine's life, an RSA pair, is made
    before, refusals = arena_used(), 0
    with shortage() as pieces:
        while True:
            used = arena_used()
            try:
                operation()
            except OSError as e:
                refusals += e.errno == errno.ENOSPC
                assert e.errno == errno.ENOSPC  # noqa: PT017 (each step must fail so, or succeed)
                assert arena_used() == used
                lib.arena_free(pieces.pop(0))
            else:
                assert arena_used() == used
                break
    assert refusals > 0 or operation in WITHIN_RESERVE
    assert arena_used() == before
