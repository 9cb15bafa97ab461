"""A keystored that is killed at every system call by which its files change loses no master key.

Each call is a run of its own, with a state directory of its own. Afterwards another keystored has
the master key that a file's key is under, and goes on with what the first one was at.

It takes minutes. Unless all is wanted (see kill_calls.py), two of the changes are tried.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fusecrypt.keystore.keys import SecureKey
from fusecrypt.keystore.verification import make_mkvp
from tests.lab.kill_calls import IS_ALL, Call, choose, find_calls, strace
from tests.product import Instance, running, wait_for
from tests.unit.keystore.independent import unwrap
from tests.unit.keystore.samples import FIRST, master_key, put_adapter

pytestmark = [
    pytest.mark.skipif(shutil.which("strace") is None, reason="no strace"),
    pytest.mark.root,  # to trace a process that forbids it
]

KEYSTORED = "fusecrypt-keystored"
#: Of each kind of call, where not all are tried.
MOST = 2
CLEAR = bytes(range(32))
ONE, TWO = master_key(0), master_key(1)
PARTS = bytes(range(100, 132)), bytes(a ^ b for a, b in zip(range(100, 132), TWO, strict=True))
WORD = b"passphrase\n"

APQN = str(FIRST)
CREATE = ("adapter", "create", APQN)
LOAD = ("adapter", "master-key", "load", APQN, "-", "--part")
SET = ("adapter", "master-key", "set", APQN)
USE = ("zkey", "reencipher", "file")
VALIDATE = ("zkey", "validate", "file")
SEAL = ("adapter", "seal", "--with", "passphrase")
UNSEAL = ("adapter", "seal", "--with", "host-key-file")
RESTORE = ("adapter", "restore", "backup")
EP11 = "05.0011"
ASSOCIATE = ("chzcrypt", "--se-associate", "0", EP11)
UNBIND = ("chzcrypt", "--se-unbind", EP11)
FORBID = ("adapter", "control-points", EP11, "--clear", "KEYGEN_SYMM")


def put(place: Instance, **registers: bytearray) -> None:
    put_adapter(place.directory / "state/keystore", FIRST, **registers)


def nothing(_place: Instance) -> None:
    """No adapter yet, and no key."""


def a_key(place: Instance) -> None:
    put(place, current=ONE)
    place.cli("zkey", "generate", "file", "-c", place.write_file("clear", CLEAR))


def a_part(place: Instance) -> None:
    a_key(place)
    place.cli(*LOAD, "first", stdin=PARTS[0])


def a_new_master_key(place: Instance) -> None:
    a_key(place)
    put(place, current=ONE, new=TWO)


def another_master_key(place: Instance) -> None:
    a_key(place)
    put(place, current=TWO, old=ONE)


def a_passphrase(place: Instance) -> None:
    a_key(place)
    place.cli(*SEAL, stdin=WORD)


def a_backup(place: Instance) -> None:
    a_key(place)
    place.cli("adapter", "backup", "backup", stdin=WORD)
    place.cli("adapter", "remove", "-q", APQN)


def a_bound_adapter(place: Instance) -> None:
    place.cli("adapter", "create", EP11, "--mode", "ep11")
    place.cli("pvsecret", "create", "association", "-o", "request", "secret")
    place.cli("pvsecret", "add", "request")
    place.cli("chzcrypt", "--se-bind", EP11)


def a_key_of_a_session(place: Instance) -> None:
    a_bound_adapter(place)
    place.cli(*ASSOCIATE)
    place.cli("zkey", "generate", "file", "-K", "EP11-AES")


def is_valid(place: Instance) -> None:
    place.cli(*VALIDATE)


def get_new(place: Instance) -> str:
    return place.cli("adapter", "show", APQN, "--json").json["new"]["state"]


def has_adapter(place: Instance) -> bool:
    return bool(place.cli("adapter", "list", "--json").json["adapters"])


def is_valid_if_associated(place: Instance) -> None:
    assert (place.run(*VALIDATE).status == 0) == (get_guest_state(place) == "usable")


def get_guest_state(place: Instance) -> str:
    return place.cli("adapter", "show", EP11, "--json").json["se_state"]


def go_on_associating(place: Instance) -> None:
    if get_guest_state(place) != "usable":
        place.cli(*ASSOCIATE)
    place.cli("zkey", "generate", "file", "-K", "EP11-AES")
    place.cli(*VALIDATE)


def go_on_unbinding(place: Instance) -> None:
    if get_guest_state(place) == "usable":
        place.cli(*UNBIND)
    assert place.run(*VALIDATE).status != 0
    place.cli("chzcrypt", "--se-bind", EP11)
    place.cli(*ASSOCIATE)
    place.cli(*VALIDATE)


def go_on_forbidding(place: Instance) -> None:
    place.cli(*FORBID)
    assert place.run("zkey", "generate", "other", "-K", "EP11-AES").status != 0
    place.cli(*VALIDATE)


def go_on_creating(place: Instance) -> None:
    if not has_adapter(place):
        place.cli(*CREATE)
    place.cli("zkey", "generate", "file")
    place.cli(*VALIDATE)


def go_on_loading(place: Instance) -> None:
    if get_new(place) != "full":
        place.cli(*LOAD, "last", stdin=PARTS[1])
    go_on_setting(place)


def go_on_setting(place: Instance) -> None:
    if get_new(place) == "full":
        place.cli(*SET)
    go_on_using(place)


def go_on_using(place: Instance) -> None:
    """The key gets under the other master key, as another AES sees it."""
    path = place.directory / "file"
    if SecureKey(path.read_bytes()).mkvp != make_mkvp(TWO):
        place.cli(*USE)
    assert unwrap(path.read_bytes(), TWO) == CLEAR


def go_on_sealing(place: Instance) -> None:
    place.cli(*SEAL, stdin=WORD)
    assert not (place.directory / "state/keystore/host.key").exists()
    place.cli(*VALIDATE)


def go_on_unsealing(place: Instance) -> None:
    place.cli(*UNSEAL)
    assert not (place.directory / "state/keystore/host.key.sealed").exists()
    place.cli(*VALIDATE)


def go_on_restoring(place: Instance) -> None:
    if not has_adapter(place):
        place.cli(*RESTORE, stdin=WORD)
    place.cli(*VALIDATE)


@dataclass(frozen=True)
class Change:
    """A command, what there is before it, what holds after it, and how it is gone on with."""

    before: Callable[[Instance], None]
    words: tuple[str, ...]
    stdin: bytes
    holds: Callable[[Instance], None]
    go_on: Callable[[Instance], None]


CHANGES = {
    "create": Change(nothing, CREATE, b"", nothing, go_on_creating),
    "load": Change(a_part, (*LOAD, "last"), PARTS[1], is_valid, go_on_loading),
    "set": Change(a_new_master_key, SET, b"", is_valid, go_on_setting),
    "re-encipher": Change(another_master_key, USE, b"", is_valid, go_on_using),
    "seal": Change(a_key, SEAL, WORD, is_valid, go_on_sealing),
    "unseal": Change(a_passphrase, UNSEAL, b"", is_valid, go_on_unsealing),
    "restore": Change(a_backup, RESTORE, WORD, nothing, go_on_restoring),
    "associate": Change(a_bound_adapter, ASSOCIATE, b"", nothing, go_on_associating),
    "unbind": Change(a_key_of_a_session, UNBIND, b"", is_valid_if_associated, go_on_unbinding),
    "forbid": Change(a_key_of_a_session, FORBID, b"", is_valid, go_on_forbidding),
}


def unlock(place: Instance) -> None:
    """A keystored runs, and has what it needs."""
    if place.cli("adapter", "seal", "--json").json["locked"]:
        place.cli("adapter", "unlock", stdin=WORD)


@contextmanager
def traced(place: Instance, kill: Call | None):
    """Note the calls of the keystored that runs, or kill it at one; the file of notes."""
    trace = place.directory / "trace"
    words = [*strace(trace, kill), "-p", str(place.pid(KEYSTORED))]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"attached" in process.stderr.readline()
        try:
            yield trace
            if kill is not None:
                process.communicate(timeout=60)
        finally:
            process.terminate()
            process.communicate()


def run(change: Change, begin: Path, scratch: Path, kill: Call | None) -> str:
    """The calls of one run; of one that was killed at a call, all that must hold then, does."""
    with running(scratch) as place:
        shutil.copytree(begin, place.directory, dirs_exist_ok=True)
        unlock(place)
        with traced(place, kill) as trace:
            done = place.run(*change.words, stdin=change.stdin)
            assert (done.status == 0) == (kill is None), (kill, done)
        if kill is not None:
            assert "killed by SIGKILL" in trace.read_text(), (kill, trace.read_text())
            wait_for(lambda: not any(KEYSTORED in w for w in place.pids().values()), "killed")
            unlock(place)
            change.holds(place)
        change.go_on(place)
        place.cli("audit", "verify")
        return trace.read_text()


@pytest.mark.parametrize("name", CHANGES if IS_ALL else ["set", "re-encipher"])
def test_no_master_key_is_lost(scratch, tmp_path, name, record_figure):
    change, begin = CHANGES[name], tmp_path / "begin"
    with running(scratch) as place:
        change.before(place)
        own = shutil.ignore_patterns("run", "config", "crypttab", "zkey")
        shutil.copytree(place.directory, begin, ignore=own)
    calls = find_calls(run(change, begin, scratch, None))
    assert "write" in {call.name for call in calls}
    chosen = choose(calls, MOST)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda call: run(change, begin, scratch, call), chosen))
    record_figure("killed", f"at {len(chosen)} of {len(calls)} calls")
