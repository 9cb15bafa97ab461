"""A change of the master key under many keys and volumes: how long plan, stage and complete take.

The volumes are small, their keyslots as zkey has them made (Argon2i, 32 KiB, 4 passes).

Usage: python benchmarks/master_key.py [--keys N] [--volumes N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

PROGRAM: Final = "import sys; from fusecrypt.daemon.cli import main; sys.exit(main())"
APQN: Final = "03.0039"
SIZE: Final = 3 << 20
LAYOUT: Final = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "2032k")
PBKDF: Final = ("--pbkdf", "argon2i", "--pbkdf-memory", "32", "--pbkdf-force-iterations", "4")


class Site:
    """A repository and volumes in a directory, and fusecrypt at work on them."""

    def __init__(self, work: Path) -> None:
        self.work = work
        (work / "run").mkdir(mode=0o700)
        (work / "crypttab").write_text("")
        self.environment = {
            **os.environ,
            "FUSECRYPT_RUNTIME_DIR": str(work / "run"),
            "FUSECRYPT_STATE_DIR": str(work / "state"),
            "FUSECRYPT_CRYPTTAB": str(work / "crypttab"),
            "ZKEY_REPOSITORY": str(work / "zkey"),
        }

    def run(self, *words: str | Path) -> str:
        """Run fusecrypt, which is to succeed; what it printed."""
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"fusecrypt {' '.join(map(str, words))}: {done.returncode}\n{done.stderr}")
        return done.stdout

    def make(self, keys: int, volumes: int) -> list[Path]:
        """An adapter, ``keys`` keys in the repository, and ``volumes`` images."""
        from fusecrypt.daemon.config import load_settings
        from fusecrypt.daemon.keystored.client import Keystore
        from fusecrypt.keystore.repository import Repository
        from fusecrypt.keystore.tokens import KeyType

        self.run("adapter", "create", APQN)
        keystore = Keystore(load_settings(environment=self.environment))
        repository = Repository(self.work / "zkey")
        for number in range(keys):
            key = keystore.generate(KeyType.CCA_AESCIPHER, key_bits=256, xts=True)
            repository.add(f"key{number:04}", key, pattern=keystore.validate(key).pattern)
        self.run("zkey", "generate", self.work / "skey", "-x")
        (self.work / "passphrase").write_bytes(b"passphrase")
        first = self.work / "first.img"
        with first.open("wb") as file:
            file.truncate(SIZE)
        self.run("luksFormat", "-q", *LAYOUT, "--offset", "4352", *PBKDF, "--cipher",
                 "paes-xts-plain64", "--volume-key-file", self.work / "skey", "--key-file",
                 self.work / "passphrase", first)  # fmt: skip
        images: list[Path] = []
        for number in range(volumes):
            image = self.work / f"{number}.img"
            shutil.copyfile(first, image)
            self.run("luksUUID", "-q", "--uuid", str(uuid.uuid4()), image)
            images.append(image)
        return images


def measure(site: Site, images: list[Path], action: str) -> float:
    """Seconds of an action on everything."""
    start = time.monotonic()
    site.run("master-key", action, "--json", "-d", site.work / "passphrase", *images)
    return time.monotonic() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--volumes", type=int, default=100)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        site = Site(Path(directory))
        images = site.make(arguments.keys, arguments.volumes)
        seconds: dict[str, float] = {}
        site.run("adapter", "master-key", "generate", APQN)
        for action in ("plan", "stage"):
            seconds[action] = measure(site, images, action)
        site.run("adapter", "master-key", "set", APQN)
        seconds["complete"] = measure(site, images, "complete")
    for action, taken in seconds.items():
        print(f"{action:>9}: {taken:6.1f} s")
    if arguments.json is not None:
        arguments.json.write_text(
            json.dumps({"keys": arguments.keys, "volumes": arguments.volumes, "seconds": seconds})
        )


if __name__ == "__main__":
    main()
