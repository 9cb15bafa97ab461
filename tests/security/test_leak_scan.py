"""The scanner finds what a process holds on purpose: else finding nothing would prove nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.leak_scan import (
    CoreError,
    Search,
    expand,
    force_core,
    inverse_mix,
    key_patterns,
    passphrase_patterns,
    volume_key_patterns,
)

# FIPS 197, appendix A.3: the key and the last round key of its expansion.
AES256_KEY = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
AES256_LAST = bytes.fromhex("fe4890d1e6188d0b046df344706c631e")
AES128_KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
AES128_LAST = bytes.fromhex("d014f9a8c9ee2589e13f0cc8b6630ca6")
# FIPS 197, appendix C.1: the first round key of the equivalent inverse cipher.
C1_KEY = bytes(range(16))
C1_INVERSE_ROUND_9 = bytes.fromhex("13aa29be9c8faff6f770f58000f7bf03")

VICTIM = """
import sys, time
kept = [sys.stdin.buffer.raw.read(1 << 16)]
exec(sys.argv[1])
sys.stdout.write("ready\\n"); sys.stdout.flush()
time.sleep(120)
"""


def test_key_expansion_matches_fips_197():
    assert expand(AES256_KEY)[-1] == AES256_LAST
    assert expand(AES128_KEY)[-1] == AES128_LAST
    assert len(expand(AES128_KEY)) == 11
    assert len(expand(bytes(24))) == 13
    assert len(expand(AES256_KEY)) == 15


def test_inverse_round_keys_match_fips_197():
    assert inverse_mix(expand(C1_KEY)[9]) == C1_INVERSE_ROUND_9


@pytest.fixture
def victim():
    """Start processes that are fed bytes and run a statement; all are ended."""
    started = []

    def start(data: bytes, statement: str = "pass") -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, statement],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.close()
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def names(findings):
    return {what for what, _place in findings.hits}


@pytest.mark.parametrize("name", sorted(key_patterns("k", AES256_KEY)))
def test_each_form_of_a_key_is_found_in_a_living_process(victim, name):
    key = os.urandom(32)
    patterns = key_patterns("k", key)
    findings = Search(patterns).process(victim(patterns[name]))
    assert names(findings) == {name}


def test_both_halves_of_an_xts_key_and_the_passphrase_are_found(victim):
    key = os.urandom(64)
    patterns = volume_key_patterns("v", key, xts=True)
    patterns |= passphrase_patterns("p", b"correct horse battery staple")
    data = key + "correct horse battery staple".encode("utf-16-le")
    assert names(Search(patterns).process(victim(data))) == {
        "v (data half): key",
        "v (tweak half): key",
        "p: passphrase in UTF-16",
    }


def test_the_schedule_inside_a_live_cipher_context_is_found(victim):
    # What OpenSSL keeps: this is the leak that the engine's arena is there to prevent.
    key = os.urandom(64)
    statement = (
        "from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes;"
        "kept.append(Cipher(algorithms.AES(kept[0]), modes.XTS(bytes(16))).encryptor());"
        "kept[0] = None"
    )
    found = names(Search(volume_key_patterns("v", key, xts=True)).process(victim(key, statement)))
    assert any("round key" in what for what in found), found


def test_a_process_without_the_key_gives_no_finding(victim):
    findings = Search(key_patterns("k", os.urandom(32))).process(victim(os.urandom(32)))
    assert not findings.hits
    assert findings.searched > 1 << 20


def test_a_key_across_the_border_of_two_pieces_is_found_once(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.security.leak_scan.PIECE", 4096)
    key = os.urandom(32)
    for at in (4096 - 31, 4096 - 1, 4096, 4096 - 32, 0):
        path = tmp_path / "dump"
        path.write_bytes(bytes(at) + key + bytes(8192))
        findings = Search(key_patterns("k", key)).file(path)
        assert findings.hits == {("k: key", "dump"): 1}, at


def test_what_was_searched_before_is_searched_for_what_is_new_and_found_each_time(tmp_path):
    known, new = os.urandom(32), os.urandom(32)
    path = tmp_path / "dump"
    path.write_bytes(bytes(100_000) + new + bytes(100_000))
    search = Search(key_patterns("known", known))
    assert not search.file(path).hits
    assert not search.file(path).hits
    search.add(key_patterns("new", new))
    for _ in range(2):
        assert search.file(path).hits == {("new: key", "dump"): 1}


def test_memory_behind_memfd_secret_is_reported_unreadable_and_not_found(victim):
    key = os.urandom(32)
    statement = (
        "import ctypes, mmap, os; libc = ctypes.CDLL(None, use_errno=True);"
        "fd = libc.syscall(447, 0);"
        "kept.append(fd);"
        "fd >= 0 and (os.ftruncate(fd, 4096), kept.append(mmap.mmap(fd, 4096)),"
        " kept[-1].write(bytes(b ^ 0xff for b in kept[0])))"
    )
    probe = subprocess.run(
        [sys.executable, "-c", "import ctypes; print(ctypes.CDLL(None).syscall(447, 0))"],
        capture_output=True,
        text=True,
        check=True,
    )
    if int(probe.stdout) < 0:
        pytest.skip("this kernel has no memfd_secret")
    findings = Search(key_patterns("k", key)).process(
        victim(bytes(b ^ 0xFF for b in key), statement)
    )
    # The generator expression's bytes go through ordinary memory: only the place matters here.
    assert not any("secretmem" in place for _what, place in findings.hits)
    assert any("secretmem" in place for place in findings.unreadable), findings


def test_a_forced_core_holds_what_the_process_held(victim, tmp_path):
    if shutil.which("gcore") is None:
        pytest.skip("gdb is not installed (tests/lab/install.sh)")
    key = os.urandom(32)
    pid = victim(key)
    try:
        core = force_core(pid, tmp_path)
    except CoreError as error:
        pytest.skip(f"no core can be made here: {error}")
    assert ("k: key", core.name) in Search(key_patterns("k", key)).file(core).hits
    assert ("k: key", "memory") in Search(key_patterns("k", key)).core(core).hits
    assert Path(f"/proc/{pid}").exists()
