"""KDFs against hashlib and `cryptography`."""

import errno
import hashlib
import hmac
import random
import threading
import time

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2i, Argon2id

from tests.unit.engine.crypto_library import (
    ARGON2I,
    ARGON2ID,
    KDF_MEMORY_LIMIT,
    PBKDF2,
    check,
    derive,
    ffi,
    lib,
    make_digest,
    make_kdf,
    refused,
    start,
)

RANDOM = random.Random(2)
HASHES = {
    "sha1": "sha1",
    "sha224": "sha224",
    "sha256": "sha256",
    "sha384": "sha384",
    "sha512": "sha512",
    "sha512-256": "sha512_256",
    "sha512-224": "sha512_224",
    "sha3-224": "sha3_224",
    "sha3-256": "sha3_256",
    "sha3-384": "sha3_384",
    "sha3-512": "sha3_512",
    "ripemd160": "ripemd160",
    "rmd160": "ripemd160",
    "blake2b-512": "blake2b",
    "blake2s-256": "blake2s",
    "sm3": "sm3",
    "md5": "md5",
}
PASSWORDS = [
    b"",
    b"x",
    b"correct horse battery staple",
    b"k" * 64,
    b"l" * 128,
    b"m" * 200,
    b"n" * 70000,
]


def hash_names():
    return [name for name, theirs in HASHES.items() if theirs in hashlib.algorithms_available]


@pytest.mark.parametrize("name", hash_names())
def test_pbkdf2_is_hashlibs(name):
    for password in PASSWORDS:
        salt, size = RANDOM.randbytes(32), RANDOM.choice((1, 16, 32, 64, 65, 150))
        ours = derive(make_kdf(PBKDF2, salt, 7, hash_name=name), password, size)
        assert ours == hashlib.pbkdf2_hmac(HASHES[name], password, salt, 7, size)


@pytest.mark.parametrize("size", [160, 256, 384])
def test_pbkdf2_with_a_short_blake2b(size):
    def digest(data=b""):
        return hashlib.blake2b(data, digest_size=size // 8)

    salt = RANDOM.randbytes(32)
    block = hmac.new(b"password", salt + bytes((0, 0, 0, 1)), digest).digest()
    kdf = make_kdf(PBKDF2, salt, 1, hash_name=f"blake2b-{size}")
    assert derive(kdf, b"password", size // 8) == block


def test_pbkdf2_with_stribog():
    """RFC 7836's hash in PBKDF2: R 50.1.111-2016, first example."""
    answer = bytes.fromhex(
        "64770af7f748c3b1c9ac831dbcfd85c26111b30a8a657ddc3056b80ca73e040d"
        "2854fd36811f6d825cc4ab66ec0a68a490a9e5cf5156b3a2b7eecddbf9a16b47"
    )
    assert derive(make_kdf(PBKDF2, b"salt", 1, hash_name="stribog512"), b"password", 64) == answer


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("kind", "reference"), [(ARGON2I, Argon2i), (ARGON2ID, Argon2id)])
def test_argon2_is_cryptographys(kind, reference, lanes):
    for memory in (8 * lanes, 8 * lanes + 1, 8 * lanes + 3, 100, 257, 1024, 2053):
        passes, salt = RANDOM.randint(1, 5), RANDOM.randbytes(RANDOM.choice((8, 16, 17, 32, 64)))
        size = RANDOM.choice((16, 31, 32, 33, 48, 63, 64))
        password = RANDOM.randbytes(RANDOM.choice((1, 8, 64, 127, 128, 129, 70000)))
        ours = derive(make_kdf(kind, salt, passes, memory=memory, lanes=lanes), password, size)
        theirs = reference(
            salt=salt, length=size, iterations=passes, lanes=lanes, memory_cost=memory
        ).derive(password)
        assert ours == theirs, (memory, passes, salt, size, len(password))


def test_argon2_of_64_mib():
    kdf = make_kdf(ARGON2ID, b"s" * 32, 4, memory=KDF_MEMORY_LIMIT, lanes=4)
    theirs = Argon2id(
        salt=b"s" * 32, length=64, iterations=4, lanes=4, memory_cost=KDF_MEMORY_LIMIT
    ).derive(b"password")
    assert derive(kdf, b"password", 64) == theirs
    assert lib.arena_info().kdf_memory == 0


def test_more_memory_than_the_limit_is_refused_before_it_is_allocated():
    started = time.monotonic()
    for memory in (KDF_MEMORY_LIMIT + 1, 4 << 20, 2**32 - 1):
        with refused(errno.E2BIG):
            derive(make_kdf(ARGON2ID, b"s" * 16, 4, memory=memory, lanes=1), b"p", 32)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("kind", "reference"), [(ARGON2I, Argon2i), (ARGON2ID, Argon2id)])
def test_argon2_in_one_thread_is_cryptographys(kind, reference, lanes):
    """What derives with 4 GiB, as tests/interop/test_found_headers.py has the real tool judge."""
    start()
    for memory in (8 * lanes, 8 * lanes + 3, 257, 2053):
        passes, salt = RANDOM.randint(1, 4), RANDOM.randbytes(RANDOM.choice((8, 16, 32, 64)))
        size = RANDOM.choice((16, 32, 33, 64))
        password = RANDOM.randbytes(RANDOM.choice((0, 1, 64, 129, 70000)))
        kdf = make_kdf(kind, salt, passes, memory=memory, lanes=lanes)
        out = ffi.new("uint8_t[]", size)
        check(lib.argon2_single(kdf, password, len(password), out, size))
        theirs = reference(
            salt=salt, length=size, iterations=passes, lanes=lanes, memory_cost=memory
        ).derive(password)
        assert bytes(out) == theirs, (memory, passes, salt, len(password))
    assert lib.arena_info().kdf_memory == 0


def test_no_benchmark_chooses_four_gib():
    """They would be worked on by one thread alone."""
    start()
    check(lib.kdf_init(2**32 - 1, 0))
    try:
        assert 0 < lib.kdf_memory_ceiling() < 4 << 20
    finally:
        check(lib.kdf_init(KDF_MEMORY_LIMIT, 0))


@pytest.mark.parametrize("kind", [Argon2i, Argon2id])
@pytest.mark.parametrize(
    ("memory", "passes", "lanes", "size"),
    [
        *((8 * lanes, 1, lanes, 32) for lanes in (1, 2, 3, 4, 64)),
        *((memory, 4, 1, 64) for memory in (8, 9, 33, 515, 1030)),
        *((2100, 3, 4, size) for size in (16, 24, 48, 63, 64, 65, 96, 97, 128)),
    ],
)
def test_argon2_of_an_empty_passphrase(kind, memory, passes, lanes, size):
    """libgcrypt has none: it is libargon2's."""
    number = ARGON2I if kind is Argon2i else ARGON2ID
    for salt in (b"s" * 8, RANDOM.randbytes(32), RANDOM.randbytes(64)):
        kdf = make_kdf(number, salt, passes, memory=memory, lanes=lanes)
        theirs = kind(salt=salt, length=size, iterations=passes, lanes=lanes, memory_cost=memory)
        assert derive(kdf, b"", size) == theirs.derive(b"")
    assert lib.arena_info().kdf_memory == 0


def test_argon2_of_an_empty_passphrase_is_limited_too():
    with refused(errno.E2BIG):
        derive(make_kdf(ARGON2ID, b"s" * 16, 1, memory=KDF_MEMORY_LIMIT + 1, lanes=1), b"", 32)
    with refused(errno.EINVAL):
        derive(make_kdf(ARGON2ID, b"s" * 16, 1, memory=31, lanes=4), b"", 32)


def test_names_of_hashes_may_be_in_capitals():
    kdf = make_kdf(PBKDF2, b"salt", 7, hash_name="SHA256")
    assert derive(kdf, b"p", 32) == hashlib.pbkdf2_hmac("sha256", b"p", b"salt", 7)


def test_one_argon2_at_a_time():
    start()
    most, done = [], threading.Event()

    def watch():
        while not done.wait(0.001):
            most.append(lib.arena_info().kdf_memory)

    def run():
        kdf = make_kdf(ARGON2ID, b"s" * 16, 4, memory=16 << 10, lanes=2)
        results.append(derive(kdf, b"password", 32))

    results: list[bytes] = []
    watcher = threading.Thread(target=watch)
    watcher.start()
    runners = [threading.Thread(target=run) for _ in range(4)]
    for thread in runners:
        thread.start()
    for thread in runners:
        thread.join()
    done.set()
    watcher.join()
    assert len(set(results)) == 1
    assert 0 < max(most) < 20 << 20


@pytest.mark.parametrize(
    ("kdf", "size", "code"),
    [
        ({"kind": PBKDF2, "iterations": 0, "hash_name": "sha256"}, 32, errno.EINVAL),
        ({"kind": PBKDF2, "iterations": 1, "hash_name": "sha257"}, 32, errno.EOPNOTSUPP),
        ({"kind": PBKDF2, "iterations": 1, "hash_name": ""}, 32, errno.EOPNOTSUPP),
        ({"kind": PBKDF2, "iterations": 1, "hash_name": "sha256"}, 0, errno.EINVAL),
        ({"kind": PBKDF2, "iterations": 1, "hash_name": "sha256"}, 513, errno.EINVAL),
        ({"kind": PBKDF2, "iterations": 1, "hash_name": "sha256", "salt": b""}, 32, errno.EINVAL),
        ({"kind": 0, "iterations": 1}, 32, errno.EOPNOTSUPP),
        ({"kind": 4, "iterations": 1}, 32, errno.EOPNOTSUPP),
        ({"kind": ARGON2ID, "iterations": 1, "memory": 64, "lanes": 1}, 513, errno.EINVAL),
        ({"kind": ARGON2ID, "iterations": 0, "memory": 64, "lanes": 1}, 32, errno.EINVAL),
        ({"kind": ARGON2ID, "iterations": 1, "memory": 64, "lanes": 0}, 32, errno.EINVAL),
        ({"kind": ARGON2ID, "iterations": 1, "memory": 7, "lanes": 1}, 32, errno.EINVAL),
        ({"kind": ARGON2ID, "iterations": 1, "memory": 31, "lanes": 4}, 32, errno.EINVAL),
        ({"kind": ARGON2ID, "iterations": 1, "memory": 2048, "lanes": 65}, 32, errno.EINVAL),
        ({"kind": ARGON2ID, "iterations": 1, "memory": 64, "lanes": 2**29 + 1}, 32, errno.EINVAL),
    ],
)
def test_bad_parameters_are_refused(kdf, size, code):
    made = make_kdf(**{"salt": b"s" * 16, **kdf})
    out = ffi.new("uint8_t[]", 1024)
    with refused(code):
        check(lib.kdf_derive(made, b"p", 1, out, size))


def test_a_salt_longer_than_its_field_is_refused():
    start()
    kdf = make_kdf(PBKDF2, b"s" * 64, 1, hash_name="sha256")
    kdf.salt_length = 65
    assert lib.kdf_derive(kdf, b"p", 1, ffi.new("uint8_t[]", 32), 32) == -errno.EINVAL


def test_a_hash_name_without_its_end_is_none():
    start()
    kdf = make_kdf(PBKDF2, b"s" * 64, 1)
    ffi.memmove(kdf.hash, b"sha256" * 11, 64)
    assert lib.kdf_derive(kdf, b"p", 1, ffi.new("uint8_t[]", 32), 32) == -errno.EOPNOTSUPP


@pytest.mark.parametrize(("name", "length"), [("sha256", 32), ("sha1", 20), ("sha512", 64)])
def test_a_digest_is_pbkdf2_of_the_volume_key(name, length):
    start()
    key, salt = RANDOM.randbytes(64), RANDOM.randbytes(32)
    out = ffi.new("uint8_t[]", 512)
    check(lib.digest_compute(make_digest(name, 1000, salt, b"", length), key, len(key), out))
    assert bytes(ffi.buffer(out, length)) == hashlib.pbkdf2_hmac(name, key, salt, 1000, length)


def test_a_pbkdf2_benchmark_hits_its_time():
    start()
    benchmark = ffi.new("struct wire_benchmark *")
    benchmark.kdf = make_kdf(PBKDF2, b"", 0, hash_name="sha256")[0]
    benchmark.key_size, benchmark.milliseconds = 32, 300
    out = ffi.new("struct wire_kdf *")
    check(lib.kdf_benchmark(benchmark, out))
    assert out.iterations >= 1000
    out.salt_length = 32
    started = time.thread_time()
    derive(out, b"password", 32)
    assert 0.1 < time.thread_time() - started < 0.9


def test_a_short_pbkdf2_benchmark_keeps_to_the_least_iterations():
    start()
    benchmark = ffi.new("struct wire_benchmark *")
    benchmark.kdf = make_kdf(PBKDF2, b"", 0, hash_name="stribog512")[0]
    benchmark.key_size, benchmark.milliseconds = 64, 1
    out = ffi.new("struct wire_kdf *")
    check(lib.kdf_benchmark(benchmark, out))
    assert out.iterations >= 1000


@pytest.mark.parametrize("memory", [32, 4 << 10, 1 << 20])
def test_an_argon2_benchmark_keeps_to_its_ceiling(memory):
    start()
    benchmark = ffi.new("struct wire_benchmark *")
    benchmark.kdf = make_kdf(ARGON2ID, b"", 0, memory=memory, lanes=2)[0]
    benchmark.key_size, benchmark.milliseconds = 32, 100
    out = ffi.new("struct wire_kdf *")
    check(lib.kdf_benchmark(benchmark, out))
    assert out.iterations >= 4
    assert min(memory, KDF_MEMORY_LIMIT) == out.memory or 64 <= out.memory <= memory


@pytest.mark.parametrize(("key_size", "milliseconds"), [(0, 100), (1024, 100), (32, 0)])
def test_a_benchmark_of_nothing_is_refused(key_size, milliseconds):
    start()
    benchmark = ffi.new("struct wire_benchmark *")
    benchmark.kdf = make_kdf(PBKDF2, b"", 0, hash_name="sha256")[0]
    benchmark.key_size, benchmark.milliseconds = key_size, milliseconds
    assert lib.kdf_benchmark(benchmark, ffi.new("struct wire_kdf *")) == -errno.EINVAL
