"""Volumes whose keys and passphrase must not be found."""

import os
import signal

import pytest

from tests.lab import cryptsetup
from tests.product import wait_for
from tests.security.leak_scan import passphrase_patterns, volume_key_patterns

PASSPHRASE = b"correct-horse-3f9a7c-battery-staple"
SIZE = 8 << 20


@pytest.fixture
def volumes(instance):
    """LUKS2 with XTS, with CBC and with a secure key, and plain; all that must not be found."""
    pass_file = instance.write_file("pass", PASSPHRASE)
    patterns = passphrase_patterns("passphrase", PASSPHRASE)
    lines = []
    for name, cipher, bits in (
        ("xts", "aes-xts-plain64", 512),
        ("cbc", "aes-cbc-essiv:sha256", 256),
    ):
        image = instance.directory / f"{name}.img"
        cryptsetup.luks_format(
            image,
            pass_file,
            SIZE,
            "--cipher",
            cipher,
            "--key-size",
            str(bits),
            "--sector-size",
            "512",
        )
        key = cryptsetup.volume_key(image, "--key-file", pass_file)
        patterns |= volume_key_patterns(name, key, xts="xts" in cipher)
        lines.append((name, f"{name} {image} {pass_file} luks"))
    plain_key = os.urandom(64)
    plain_file = instance.write_file("plain.key", plain_key)
    image = instance.write_file("plain.img", bytes(SIZE))
    patterns |= volume_key_patterns("plain", plain_key, xts=True)
    lines.append(("plain", f"plain {image} {plain_file} plain,cipher=aes-xts-plain64,size=512"))
    lines.append(("paes", f"paes {make_paes(instance, pass_file, patterns)} {pass_file} luks"))
    return lines, patterns


def make_paes(instance, pass_file, patterns):
    """An image whose secure key was made of a clear one, which joins what must not be found."""
    clear = os.urandom(64)
    patterns |= volume_key_patterns("paes", clear, xts=True)
    instance.cli("adapter", "create", "03.0039")
    secure = instance.directory / "paes.skey"
    clear_file = instance.write_file("paes.clear", clear)
    instance.cli("zkey", "generate", secure, "--xts", "--clearkey", clear_file)
    # The process that saw the clear key's file ends; another one opens the volume.
    keystored = instance.pid("fusecrypt-keystored")
    os.kill(keystored, signal.SIGTERM)
    wait_for(lambda: keystored not in instance.pids(), "keystored gone")
    return cryptsetup.luks_format(
        instance.directory / "paes.img",
        pass_file,
        SIZE + (4 << 20),
        *("--cipher", "paes-xts-plain64", "--volume-key-file", secure, "--key-size", "1024"),
        *("--offset", "8192", "--sector-size", "512"),
    )
