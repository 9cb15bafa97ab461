"""What a PKCS#11 token guards is in no process between two calls: neither keys nor the PIN."""

import os

import pytest

from tests.fuse.test_paes import real_format
from tests.lab import tokens
from tests.product import Instance, running
from tests.security.leak_scan import Search, passphrase_patterns, volume_key_patterns

pytestmark = [pytest.mark.fuse, pytest.mark.root]

PASSPHRASE = b"correct-horse-7be2d1-battery-staple"
PIN = b"pin-of-a-token-93ab71"


@pytest.fixture
def place(scratch):
    with running(scratch) as instance:
        yield instance


def make_volumes(place: Instance):
    """An adapter with a token, volumes of two clear keys that it wrapped, and what to look for."""
    hsm = tokens.SoftHsm(place.directory)
    place.environment.update(hsm.environment)
    uri = hsm.make("Token1", PIN.decode())
    pin_file = place.write_file("pin", PIN + b"\n")
    place.cli(
        *("adapter", "create", "03.0039", "--mode", "pkcs11"),
        *("--uri", f"{uri}&pin-source={pin_file}"),
    )
    patterns = passphrase_patterns("passphrase", PASSPHRASE) | passphrase_patterns("PIN", PIN)
    pass_file = place.write_file("pass", PASSPHRASE)
    images = []
    for name, size, bits, cipher in (
        ("xts", 64, 1536, "paes-xts-plain64"),
        ("cbc", 32, 768, "paes-cbc-plain64"),
    ):
        clear = os.urandom(size)
        patterns |= volume_key_patterns(name, clear, xts=name == "xts")
        key = place.directory / f"{name}.skey"
        words = ["zkey", "generate", key, "-K", "PKCS11-AES"]
        words += ["-c", place.write_file(f"{name}.clear", clear)]
        place.cli(*words, *(["-x"] if name == "xts" else []))
        place.cli("zkey", "validate", key)
        images.append((name, real_format(place.directory / name, pass_file, key, bits, cipher)))
    return images, pass_file, patterns


def test_no_process_keeps_the_key_or_the_pin(place):
    images, pass_file, patterns = make_volumes(place)
    place.start()
    for name, image in images:
        place.cli("open", "-d", pass_file, image, name)
        with place.device(name).open("r+b") as device:
            text = device.read()
            device.seek(0)
            device.write(text)
            os.fsync(device.fileno())
    search = Search(patterns)
    pids = place.pids()
    assert len(pids) >= 3, pids
    for pid, words in pids.items():
        findings = search.process(pid)
        assert findings.searched > 100_000, f"{words}: nothing could be read"
        assert not findings.hits, (words, findings)
