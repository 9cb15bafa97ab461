"""Key memory: what it is made of, how it fills, and that nothing stays in it."""

import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.unit.engine.crypto_library import (
    ARENA_LIMIT,
    KDF_MEMORY_LIMIT,
    Cipher,
    arena_used,
    check,
    ffi,
    lib,
    start,
)

RANDOM = random.Random(6)
MEMFD_SECRET, MLOCK = 1, 2

PRELUDE = f"""
import ctypes, os, re, signal, sys
from fusecrypt.dmcrypt.engine._engine import ffi, lib
def init(force_mlock=False, first={512 << 10}, limit={ARENA_LIMIT}):
    return lib.arena_init(first, limit, force_mlock)
def flags(p):
    address, inside = int(ffi.cast("uintptr_t", p)), False
    for line in open("/proc/self/smaps"):
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= address < int(found[2], 16)
        if inside and line.startswith("VmFlags:"):
            return line.split()[1:]
"""


def run(program, **options):
    """Run in a process of its own, whose arena it is. Returns the words that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        env={**os.environ, "PYTHONPATH": "build/ns"},
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
        **options,
    )
    return done.stdout.decode().split()


def alloc(size):
    start()
    return lib.arena_alloc(size)


def test_what_is_handed_out_is_zeroed_aligned_and_as_long_as_wanted():
    for size in (0, 1, 63, 64, 65, 1000, 16384, 400_000):
        p = alloc(size)
        assert int(ffi.cast("uintptr_t", p)) % 64 == 0
        assert bytes(ffi.buffer(p, size)) == bytes(size)
        assert size <= lib.arena_size(p) < size + 64 + (size == 0)
        lib.arena_free(p)


def test_what_is_given_back_is_wiped():
    p = alloc(1000)
    ffi.memmove(p, b"\xaa" * 1000, 1000)
    lib.arena_free(p)
    assert bytes(ffi.buffer(p, 1000)) == bytes(1000)


def test_nothing_may_be_given_back():
    lib.arena_free(ffi.NULL)
    assert lib.arena_size(ffi.NULL) == 0


def test_other_memory_is_not_ours():
    start()
    assert lib.arena_size(ffi.new("char[]", 100)) == 0


def test_pieces_never_overlap_and_all_come_back():
    """Random sizes in random order, against a model."""
    start()
    before, held = arena_used(), {}
    for step in range(4000):
        if held and (len(held) > 300 or RANDOM.random() < 0.45):
            p, (mark, size) = held.popitem() if step % 2 else (k := next(iter(held)), held.pop(k))
            assert bytes(ffi.buffer(p, size)) == bytes([mark]) * size
            lib.arena_free(p)
        else:
            size = RANDOM.choice((1, 100, 1768, 3038, 3038, 9247, 20000, 256_000))
            p = alloc(size)
            if p == ffi.NULL:
                continue
            mark = RANDOM.randrange(1, 256)
            ffi.memmove(p, bytes([mark]) * size, size)
            held[p] = (mark, size)
    used = sum(-(-size // 64) * 64 for _, size in held.values())
    assert arena_used() - before == used
    for p in held:
        lib.arena_free(p)
    assert arena_used() == before


def test_long_lived_contexts_leave_room_for_keyslots():
    """100 volumes of 2 threads, opened one after the other, each with a keyslot's buffers."""
    start()
    size_before, volumes = lib.arena_info().size, []
    for _ in range(100):
        work = [alloc(size) for size in (64, 256_000, 1768, 64)]
        assert ffi.NULL not in work
        volumes.append(Cipher("aes-xts-plain64", RANDOM.randbytes(64), threads=2).__enter__())
        for p in work:
            lib.arena_free(p)
    assert lib.arena_info().size - size_before <= 2 << 20
    for volume in volumes:
        volume.__exit__()


def test_a_full_arena_refuses_and_stays_whole():
    start()
    before, held = arena_used(), []
    while (p := alloc(100_000)) != ffi.NULL:
        held.append(p)
    assert 7 << 20 < arena_used() <= ARENA_LIMIT
    assert lib.arena_info().size <= ARENA_LIMIT
    while (p := alloc(3000)) != ffi.NULL:
        held.append(p)
    with pytest.raises(OSError, match=r"Errno 28\]"):  # ENOSPC, and nothing half opened
        Cipher("aes-xts-plain64", RANDOM.randbytes(64), threads=8)
    for p in held:
        lib.arena_free(p)
    assert arena_used() == before


def test_the_reserve_is_for_who_asks_for_it():
    start()
    before, held = arena_used(), []
    for size in (100_000, 3000, 64):
        while (p := alloc(size)) != ffi.NULL:
            held.append(p)
    lib.arena_use_reserve(True)
    p, too_large = lib.arena_alloc(1000), lib.arena_alloc(10_000)
    lib.arena_use_reserve(False)
    assert p != ffi.NULL
    assert too_large == ffi.NULL
    assert alloc(64) == ffi.NULL
    for piece in (p, *held):
        lib.arena_free(piece)
    assert arena_used() == before


def test_more_users_of_the_reserve_than_it_serves_wait():
    start()
    inside, leave, most = [], threading.Event(), []

    def use():
        lib.arena_use_reserve(True)
        lib.arena_use_reserve(True)  # nests: counts once
        inside.append(1)
        most.append(len(inside))
        leave.wait(10)
        inside.pop()
        lib.arena_use_reserve(False)
        lib.arena_use_reserve(False)

    threads = [threading.Thread(target=use) for _ in range(12)]
    for thread in threads:
        thread.start()
    while len(most) < 8:
        threads[0].join(0.001)
    threads[0].join(0.05)
    assert max(most) == 8
    leave.set()
    for thread in threads:
        thread.join(10)
    assert len(most) == 12


@pytest.mark.parametrize("size", [ARENA_LIMIT, 1 << 40, 2**63, 2**64 - 1])
def test_impossible_sizes_are_refused(size):
    assert alloc(size) == ffi.NULL


def test_a_large_piece_may_follow_many_small_ones():
    """Empty mappings of the usual size make way for one that fits."""
    start()
    held = []
    while (p := alloc(3000)) != ffi.NULL:
        held.append(p)
    for p in held:
        lib.arena_free(p)
    p = alloc(5 << 20)
    assert p != ffi.NULL
    lib.arena_free(p)


def test_threads_share_the_arena():
    start()
    before, wrong = arena_used(), []

    def work(mark):
        for n in range(500):
            size = 64 + n * 7
            p = lib.arena_alloc(size)
            ffi.memmove(p, bytes([mark]) * size, size)
            if bytes(ffi.buffer(p, size)) != bytes([mark]) * size:
                wrong.append(mark)
            lib.arena_free(p)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert arena_used() == before


@pytest.mark.parametrize("force_mlock", [False, True])
def test_neither_kind_is_dumped_or_inherited_and_both_are_locked(force_mlock):
    kind, *flags = run(
        f"""
assert init({force_mlock}) == 0 and lib.arena_init_gcrypt() == 0
print(lib.arena_info().kind, *flags(lib.arena_alloc(1)))
"""
    )
    assert int(kind) == (MLOCK if force_mlock else MEMFD_SECRET)
    assert {"lo", "dc"} <= set(flags)  # locked; not copied on fork
    assert "dd" in flags or not force_mlock  # not dumped: no page of memfd_secret ever is


@pytest.mark.parametrize("force_mlock", [False, True])
def test_a_forked_child_has_no_arena(force_mlock):
    (status,) = run(
        f"""
assert init({force_mlock}) == 0
p = ffi.cast("char *", lib.arena_alloc(1))
if (child := os.fork()) == 0:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os._exit(p[0][0])
print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""
    )
    assert int(status) == 11


def test_memory_beside_the_arena_is_out_of_bounds():
    (status,) = run(
        """
assert init(first=4096, limit=1 << 20) == 0
p = ffi.cast("char *", lib.arena_alloc(4096))
r, w = os.pipe()
libc, address = ctypes.CDLL(None), int(ffi.cast("uintptr_t", p))
# write(2) reads the memory in the kernel: EFAULT instead of a signal.
libc.write.restype = ctypes.c_ssize_t
libc.write.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
print(libc.write(w, address, 4096), libc.write(w, address + 4096, 1), libc.write(w, address - 1, 1),
      sep=",")
"""
    )
    assert status == "4096,-1,-1"


# In the child, with everything imported: another user may have no way to the checkout.
DROP_TO_1_MIB = """
import os, resource
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
if os.geteuid() == 0:
    os.setuid(65534)
"""


def test_a_small_memlock_limit_is_told_and_kept():
    words = run(
        DROP_TO_1_MIB
        + """
print(init(limit=64 << 20))
while lib.arena_alloc(100_000) != ffi.NULL:
    pass
print(lib.arena_info().size)
"""
    )
    assert words[0] == "0"
    assert 512 << 10 <= int(words[1]) <= 1 << 20


def test_a_first_part_that_the_limit_forbids_is_an_error():
    (result,) = run(DROP_TO_1_MIB + "print(init(first=2 << 20))")
    assert -int(result) in (11, 12)  # EAGAIN of memfd_secret's mmap, ENOMEM of mlock


@pytest.mark.parametrize("force_mlock", [False, True])
def test_all_of_the_crypto_works_in_either_kind(force_mlock):
    words = run(
        f"""
assert init({force_mlock}) == 0 and lib.arena_init_gcrypt() == 0 and lib.kdf_init(65536, 2) == 0
failed = ffi.new("const char **")
print(lib.selftest_run(failed), lib.session_init(), lib.arena_init(4096, 4096, False))
"""
    )
    assert words == ["0", "0", "-114"]  # EALREADY


def test_argon2s_matrix_is_not_in_the_arena_and_not_dumped():
    start()
    seen, done = set(), threading.Event()

    def watch():
        while not done.wait(0.002):
            for block in re.split(
                r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text()
            ):
                size = re.search(r"^Size: +(\d+) kB", block, re.MULTILINE)
                flags = re.search(r"^VmFlags: (.*)$", block, re.MULTILINE)
                if size and flags and int(size[1]) == KDF_MEMORY_LIMIT:
                    seen.add(frozenset(flags[1].split()) & {"dd", "dc"})

    watcher = threading.Thread(target=watch)
    watcher.start()
    kdf = ffi.new("struct wire_kdf *", {"type": 3, "iterations": 4, "lanes": 2})
    kdf.memory, kdf.salt_length = KDF_MEMORY_LIMIT, 16
    out = ffi.new("uint8_t[]", 32)
    check(lib.kdf_derive(kdf, b"p", 1, out, 32))
    done.set()
    watcher.join()
    assert frozenset({"dd", "dc"}) in seen
    assert lib.arena_info().kdf_memory == 0
    assert lib.arena_info().size <= ARENA_LIMIT


@pytest.mark.parametrize(
    ("a", "b", "equal"), [(b"", b"", True), (b"abc", b"abc", True), (b"abc", b"abd", False)]
)
def test_comparison(a, b, equal):
    assert lib.equal_const_time(a, b, len(a)) is equal
