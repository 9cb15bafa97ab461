"""After each operation that used them, no effective key and no master key is left in any process.

That of the keystored is searched after each, since what comes next may overwrite what was left.
"""

import os
import subprocess
from dataclasses import dataclass, field

import pytest

from fusecrypt.keystore.adapter_store import AdapterStore
from fusecrypt.keystore.coprocessor import Apqn, Register
from fusecrypt.keystore.ep11_session import make_session
from fusecrypt.keystore.sealing import HostKey
from tests.lab.cryptsetup import luks_format
from tests.product import Instance
from tests.security.leak_scan import (
    Search,
    key_patterns,
    passphrase_patterns,
    volume_key_patterns,
)
from tests.unit.keystore.independent import unwrap

pytestmark = [pytest.mark.fuse, pytest.mark.root]

PASSPHRASE = b"correct-horse-77ab30-battery-staple"
SIZE = 8 << 20
LAYOUT = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "5m", "--offset", "12288")


@dataclass
class Watch:
    """All that must not be found, and where it is looked for after each operation."""

    place: Instance
    patterns: dict[str, bytes] = field(default_factory=dict)
    search: Search = field(default_factory=lambda: Search({}))
    found: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def look(self, operation: str, *, everywhere: bool = False) -> None:
        self.search.add(self.patterns)
        pids = self.place.pids()
        chosen = {p: w for p, w in pids.items() if everywhere or "fusecrypt-keystored" in w}
        assert any("fusecrypt-keystored" in words for words in chosen.values()), pids
        for pid, words in chosen.items():
            findings = self.search.process(pid)
            assert findings.searched > 100_000, findings
            self.found += [f"{operation}: {words}: {hit}" for hit in findings.hits]
        self.seen.append(operation)

    def cli(self, *words, stdin: bytes = b"", everywhere: bool = False) -> None:
        self.place.cli(*words, stdin=stdin)
        self.look(" ".join(map(str, words[:4])), everywhere=everywhere)

    def load_parts(self, apqn: str) -> bytes:
        """A NEW master key of two parts; what it is."""
        parts = [os.urandom(32), os.urandom(32)]
        whole = bytes(a ^ b for a, b in zip(*parts, strict=True))
        name = f"master key {len(self.patterns)}"
        self.patterns |= key_patterns(name, whole)
        for part, content in zip(("first", "last"), parts, strict=True):
            self.patterns |= key_patterns(f"{name}, {part} part", content)
            words = ("adapter", "master-key", "load", apqn, "-", "--part", part)
            self.cli(*words, stdin=content)
        return whole

    def register(self, apqn: Apqn, register: Register) -> bytes:
        """What an adapter's file has, as its host key opens it."""
        state = self.place.directory / "state/keystore"
        with AdapterStore(state, HostKey(state / "host.key")).opened(apqn) as adapter:
            return bytes(adapter.master_keys.copy(register))


def test_nothing_is_left_after_any_operation(instance):
    place, watch = instance, Watch(instance)
    place.start()  # the daemon, its engine, and a keystored that stays
    clear = os.urandom(64)
    watch.patterns |= volume_key_patterns("clear key", clear, xts=True)
    watch.patterns |= passphrase_patterns("passphrase", PASSPHRASE)
    place.write_file("clear", clear)
    word = place.write_file("word", PASSPHRASE)
    place.cli("adapter", "create", "--no-master-key", "03.0039")
    master = watch.load_parts("3.39")
    watch.cli("adapter", "master-key", "set", "3.39")
    state = place.directory / "state/keystore"
    watch.patterns |= key_patterns("host key", (state / "host.key").read_bytes())

    for key_type in ("CCA-AESDATA", "CCA-AESCIPHER"):
        watch.cli("zkey", "generate", key_type, "-x", "-c", "clear", "-K", key_type)
        watch.cli("zkey", "validate", key_type)
        random = place.directory / f"random-{key_type}"
        place.cli("zkey", "generate", random, "-x", "-K", key_type)
        effective = unwrap(random.read_bytes(), master)
        watch.patterns |= volume_key_patterns(f"random {key_type}", effective, xts=True)
        watch.look(f"generate {key_type}")
    watch.cli("zkey", "import", "-N", "imported", "CCA-AESDATA")
    watch.cli("zkey", "convert", "-N", "imported", "-K", "CCA-AESCIPHER", "-F")
    watch.cli("zkey", "import", "-N", "restricted", "-q", "CCA-AESCIPHER")

    image = luks_format(place.directory / "image", word, SIZE, *LAYOUT, "--cipher",
                        "paes-xts-plain64", "--key-size", "1024", "--volume-key-file",
                        place.directory / "CCA-AESDATA")  # fmt: skip
    watch.cli("open", image, "disk", "-d", word, everywhere=True)
    watch.cli("zkey-cryptsetup", "setvp", image, "-d", word)
    watch.load_parts("3.39")
    watch.cli("master-key", "stage", "-d", word, image, everywhere=True)
    watch.cli("adapter", "master-key", "set", "3.39")
    watch.cli("master-key", "complete", "-d", word, image, everywhere=True)
    watch.cli("zkey", "reencipher", "CCA-AESDATA")
    watch.cli("luksSuspend", "disk", everywhere=True)
    watch.cli("luksResume", "disk", "-d", word, everywhere=True)

    watch.cli("adapter", "create", "04.0007")
    watch.patterns |= key_patterns(
        "random master key", watch.register(Apqn(4, 7), Register.CURRENT)
    )
    watch.look("create 04.0007")
    watch.cli("adapter", "master-key", "clone", "4.7", "3.39")
    watch.cli("adapter", "master-key", "clear-new", "4.7")
    watch.cli("adapter", "master-key", "generate", "4.7")
    watch.patterns |= key_patterns("random NEW", watch.register(Apqn(4, 7), Register.NEW))
    watch.look("generate 4.7")
    watch.cli("adapter", "master-key", "set", "4.7")
    watch.cli("adapter", "backup", "backup", stdin=PASSPHRASE + b"\n")
    watch.cli("adapter", "remove", "-q", "4.7")
    watch.cli("adapter", "restore", "backup", stdin=PASSPHRASE + b"\n")
    if has_shares():
        (place.directory / "shares").mkdir()
        watch.cli(
            "adapter", "master-key", "split", "--shares", "3", "--threshold", "2", "3.39", "shares"
        )
        shares = sorted((place.directory / "shares").iterdir())
        watch.cli("adapter", "master-key", "combine", "--dry-run", *shares)
    watch.cli("adapter", "seal", "--with", "passphrase", stdin=PASSPHRASE + b"\n")
    watch.cli("zkey", "validate", "CCA-AESCIPHER")
    watch.cli("adapter", "lock")
    watch.cli("adapter", "unlock", stdin=PASSPHRASE + b"\n")
    watch.cli("close", "disk", everywhere=True)
    assert not watch.found, "\n".join(watch.found)
    assert len(watch.seen) > 35
    check_that_it_finds(watch, clear)


def test_nothing_is_left_of_an_association_secret(instance):
    place, watch = instance, Watch(instance)
    place.start()
    clear, secret = os.urandom(64), os.urandom(32)
    watch.patterns |= volume_key_patterns("clear key", clear, xts=True)
    place.write_file("clear", clear)
    place.write_file("secret", secret)
    place.cli("adapter", "create", "--mode", "ep11", "05.0011")
    create = ("pvsecret", "create", "association")
    place.cli(*create, "two", "-o", "two.request", "--output-secret", "random")
    for name in ("secret", "random"):
        content = bytearray((place.directory / name).read_bytes())
        watch.patterns |= key_patterns(name, bytes(content))
        with make_session(content) as session:
            watch.patterns |= key_patterns(f"session of {name}", bytes(session.key))
    watch.look("create two")
    watch.cli(*create, "one", "-o", "one.request", "--input-secret", "secret")
    watch.cli("pvsecret", "add", "one.request")
    place.cli("pvsecret", "add", "two.request")
    place.cli("chzcrypt", "--se-bind", "5.11")
    watch.cli("chzcrypt", "--se-associate", "1", "5.11")
    wrapping_key = watch.register(Apqn(5, 0x11), Register.CURRENT)
    watch.patterns |= key_patterns("wrapping key", wrapping_key)
    watch.cli("zkey", "generate", "key", "-x", "-c", "clear", "-K", "EP11-AES")
    watch.cli("zkey", "validate", "key")
    place.cli("adapter", "master-key", "generate", "5.11")
    place.cli("adapter", "master-key", "commit", "5.11")
    watch.cli("zkey", "reencipher", "--to-new", "key")
    assert not watch.found, "\n".join(watch.found)
    assert len(watch.seen) == 7


def has_shares() -> bool:
    try:
        import shamir_mnemonic  # noqa: F401
    except ImportError:
        return False
    return True


def check_that_it_finds(watch: Watch, clear: bytes) -> None:
    """A process that does keep the key is found out."""
    with subprocess.Popen(
        ["sh", "-c", "read -r line; echo ready; read -r end"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(clear.hex().encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        found = Search(watch.patterns).process(process.pid)
        process.stdin.close()
    assert found.hits
