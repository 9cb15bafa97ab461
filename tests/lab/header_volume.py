"""Small LUKS2 images of the real cryptsetup, and fusecrypt's header actions on them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.cryptsetup import QUICK_PBKDF, metadata
from tests.product import make_environment, mounts_below, processes_in, wait_for

#: Room for four keyslots of a 512-bit key: 16 KiB metadata, 1 MiB keyslots, data behind 2 MiB.
LAYOUT = ("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "1m", "--offset", "4096")
SIZE = 3 << 20
PROGRAM = "import sys; from fusecrypt.daemon.cli import main; sys.exit(main())"


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Lab:
    """A directory with key files, images, and a state directory for fusecrypt."""

    directory: Path

    def key(self, name: str) -> Path:
        """A key file whose content is its name."""
        path = self.directory / f"key-{name}"
        path.write_bytes(name.encode())
        return path

    def image(self, name: str = "img", key: str = "p1", *options: str, size: int = SIZE) -> Path:
        """An image that the real cryptsetup formatted."""
        path = self.directory / name
        path.touch()
        os.truncate(path, size)
        layout = () if {"--offset", "--header"} & set(options) else LAYOUT
        self.real_ok(
            *("luksFormat", "-q", "--type", "luks2", *layout, *QUICK_PBKDF, *options),
            *("--key-file", self.key(key), path),
        )
        return path

    @property
    def environment(self) -> dict[str, str]:
        """That fusecrypt runs in."""
        return {
            **make_environment(self.directory),
            "FUSECRYPT_STATE_DIR": str(self.directory / "state"),
            "FUSECRYPT_RUNTIME_DIR": str(self.directory / "run"),
        }

    def ours(self, *words: object, stdin: bytes = b"") -> Result:
        """Run fusecrypt as its users do."""
        result = self._run([sys.executable, "-c", PROGRAM, *map(str, words)], stdin)
        assert "Traceback" not in result.err
        assert "internal error" not in result.err
        return result

    def ours_ok(self, *words: object, stdin: bytes = b"") -> str:
        result = self.ours(*words, stdin=stdin)
        assert result.code == 0, f"{words}: {result}"
        return result.out

    def real(self, *words: object, stdin: bytes = b"") -> Result:
        """Run the real cryptsetup."""
        return self._run(["cryptsetup", *map(str, words)], stdin)

    def real_ok(self, *words: object, stdin: bytes = b"") -> str:
        result = self.real(*words, stdin=stdin)
        assert result.code == 0, f"{words}: {result}"
        return result.out

    def both(self, base: Path, *words: object, stdin: bytes = b"") -> tuple[Path, Result, Result]:
        """The same words for fusecrypt and the real cryptsetup, each on a copy of ``base``.

        The word ``IMAGE`` stands for the copy. Their exit codes and the metadata that they leave
        are the same, but for the epoch; the result is our copy, and what each of them said.
        """
        copies = [self.directory / f"{base.name}-{who}" for who in ("ours", "theirs")]
        done = []
        for copy, run in zip(copies, (self.ours, self.real), strict=True):
            shutil.copyfile(base, copy)
            done.append(run(*[copy if word == "IMAGE" else word for word in words], stdin=stdin))
        ours, theirs = done
        assert ours.code == theirs.code, (words, ours, theirs)
        assert self.metadata(copies[0]) == self.metadata(copies[1]), (words, ours, theirs)
        return copies[0], ours, theirs

    def opens(self, image: Path, key: str, slot: int | None = None) -> bool:
        """Whether the real cryptsetup opens it with a key (a keyslot)."""
        words = [] if slot is None else ["--key-slot", slot]
        test = ("open", "--test-passphrase", "--key-file", self.key(key), *words, image)
        return self.real(*test).code == 0

    def check_opening(self, name: str, state: bytes, opens: Iterable[tuple[int, str]]) -> None:
        """The real cryptsetup opens these keyslots of an image with these keys."""
        copy = self.directory / "cut"  # it mends what it reads
        copy.write_bytes(state)
        assert self.real("luksDump", copy).code == 0, name
        for slot, key in opens:
            assert self.opens(copy, key, slot), (name, slot, key)

    def end(self) -> None:
        """The daemon that an action started is gone, and its mount."""
        for pid in processes_in(self.directory / "run"):
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not processes_in(self.directory / "run"), "the daemon is gone")
        wait_for(lambda: not mounts_below(self.directory), "its mount is gone")

    def metadata(self, image: Path) -> dict:
        """The JSON area, as the real cryptsetup reads it."""
        return metadata(image)

    def _run(self, words: list[str], stdin: bytes) -> Result:
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            check=False,
            env=self.environment,
            cwd=self.directory,
        )
        texts = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return Result(done.returncode, *texts)
