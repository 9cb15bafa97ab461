"""`make demo`: the main job on real input, step by step, with every command shown.

Runs as root (the file system is mounted through a loop device) or as an ordinary user (fuse2fs).
Exit status 0 only if every step held.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

BIN = Path(sys.executable).parent
IS_ROOT = os.geteuid() == 0
MIB = 1 << 20


class StepError(Exception):
    """A step did not do what it says."""


def say(text: str) -> None:
    """Tell the reader what comes next, and why."""
    print("\n" + textwrap.fill(textwrap.dedent(text).strip(), 88), flush=True)


def run(*words: str, stdin: bytes | None = None, expect: int = 0) -> str:
    """Run a command in sight of the reader; its output.

    Raises:
        StepError: another exit status than ``expect``.
    """
    print(f"  $ {shlex.join(words)}", flush=True)
    done = subprocess.run(words, input=stdin, capture_output=True, check=False)
    output = (done.stdout + done.stderr).decode(errors="replace")
    if output.strip():
        print(textwrap.indent(output.rstrip(), "    "), flush=True)
    if done.returncode != expect:
        raise StepError(f"{words[0]} ended with status {done.returncode}, wanted {expect}")
    return output


def check(holds: bool, what: str) -> None:
    """Show one proven fact.

    Raises:
        StepError: it is none.
    """
    if not holds:
        raise StepError(f"not so: {what}")
    print(f"  ✓ {what}", flush=True)


def fusecrypt(*words: str, stdin: bytes | None = None, expect: int = 0) -> str:
    """Our own command."""
    return run(str(BIN / "fusecrypt"), *words, stdin=stdin, expect=expect)


def read_status(*words: str) -> dict[str, object]:
    """What ``fusecrypt status`` says, without the warnings that `run` has kept behind it."""
    said = fusecrypt(*words, "--json", "status")
    return dict(json.loads(next(line for line in said.splitlines() if line.startswith("{"))))


class Daemon:
    """fusecryptd in the background, ended by its pid."""

    def __init__(self, runtime: Path, crypttab: Path) -> None:
        self.runtime, self.crypttab = runtime, crypttab
        self.pid = 0

    def start(self) -> None:
        run(
            str(BIN / "fusecryptd"),
            "--runtime-dir",
            str(self.runtime),
            "--crypttab",
            str(self.crypttab),
            "--fork",
        )
        self.pid = int(str(read_status("--runtime-dir", str(self.runtime))["pid"]))

    def stop(self) -> None:
        if not self.pid:
            return
        print(f"  $ kill -TERM {self.pid}    # what `systemctl stop` does", flush=True)
        handle = os.pidfd_open(self.pid)
        os.kill(self.pid, signal.SIGTERM)
        self.pid = 0
        deadline = time.monotonic() + 20
        while not _has_ended(handle) and time.monotonic() < deadline:
            time.sleep(0.02)
        ended = _has_ended(handle)
        os.close(handle)
        check(ended, "the daemon has flushed, unmounted and ended")
        check(not os.path.ismount(self.runtime / "dev"), "no mount is left behind")


def _has_ended(pidfd: int) -> bool:
    import select

    return bool(select.select([pidfd], [], [], 0)[0])


@contextlib.contextmanager
def mounted(device: Path, where: Path) -> Iterator[Path]:
    """The file system in a mapped device, as root through a loop device, else with fuse2fs."""
    where.mkdir(exist_ok=True)
    if IS_ROOT:
        run("mount", "-o", "loop", str(device), str(where))
    else:
        run("fuse2fs", "-o", "fakeroot,rw", str(device), str(where))
    try:
        yield where
    finally:
        if IS_ROOT:
            run("umount", str(where))
        else:
            run("fusermount3", "-u", str(where))
            _wait_for_fuse2fs(device)


def _wait_for_fuse2fs(device: Path) -> None:
    """fuse2fs writes its last blocks after the unmount has returned."""
    for _ in range(200):
        busy = False
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):
                busy = busy or link.readlink() == device
        if not busy:
            return
        time.sleep(0.05)


def make_secure_volume(work: Path, image: Path, passphrase: Path) -> Path:
    """An adapter, a secure key, and a volume of the real cryptsetup under it."""
    say(
        "2. A volume whose key is guarded as on IBM Z. An adapter (here a virtual one) has a "
        "master key that never leaves it; a secure key is a volume key that this master key "
        "wraps. It is worth nothing elsewhere, so it may lie in a LUKS header, in a repository, "
        "in a backup."
    )
    fusecrypt("adapter", "create", "03.0039", "--mode", "cca")
    fusecrypt(
        *("zkey", "generate", "--name", "secure", "--xts", "--keybits", "256"),
        *("--volumes", f"{image}:secure", "--description", "for the demo"),
    )
    fusecrypt("zkey", "list")
    key = work / "zkey" / "secure.skey"
    run(
        *("cryptsetup", "luksFormat", "-q", "--type", "luks2", "--cipher", "paes-xts-plain64"),
        *("--volume-key-file", str(key), "--key-size", "1024", "--pbkdf", "pbkdf2"),
        *("--iter-time", "100", "--key-file", str(passphrase), str(image)),
    )
    fusecrypt("adapter", "backup", str(work / "master-keys"), "--key-file", str(passphrase))
    return key


def lose_master_key(work: Path, image: Path, key: Path, passphrase: Path, data: bytes) -> None:
    """Without the adapter's master key the passphrase opens nothing; with its backup it does."""
    say(
        "8. A thief has image, passphrase, secure key and repository, but not the adapter: nothing "
        "opens. Its owner puts the master key back from the backup."
    )
    fusecrypt("adapter", "remove", "--batch-mode", "03.0039")
    fusecrypt("open", "--key-file", str(passphrase), str(image), "secure", expect=6)
    fusecrypt("adapter", "restore", str(work / "master-keys"), "--key-file", str(passphrase))
    fusecrypt("zkey", "validate", str(key))
    fusecrypt("open", "--key-file", str(passphrase), str(image), "secure")
    with (work / "run" / "dev" / "mapper" / "secure").open("rb") as device:
        check(device.read(len(data)) == data, "the data are there again")
    pid = int(str(read_status()["pid"]))
    handle = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while not _has_ended(handle) and time.monotonic() < deadline:
        time.sleep(0.02)
    check(_has_ended(handle), "its daemon has ended")
    os.close(handle)


def play(work: Path) -> None:
    """All steps, in ``work``."""
    runtime, mount = work / "run", work / "mnt"
    passphrase, key = work / "passphrase", work / "plain.key"
    passphrase.write_bytes(b"a passphrase for the demo")
    key.write_bytes(os.urandom(64))
    for secret in (passphrase, key):
        secret.chmod(0o600)
    ours, plain, real = work / "ours.img", work / "plain.img", work / "cryptsetup.img"
    secure = work / "secure.img"
    mapper = runtime / "dev" / "mapper"
    # Nothing of the user's own: adapters, keys and daemon of the demo lie in its folder.
    os.environ["FUSECRYPT_RUNTIME_DIR"] = str(runtime)
    os.environ["FUSECRYPT_STATE_DIR"] = str(work / "state")
    os.environ["ZKEY_REPOSITORY"] = str(work / "zkey")
    runtime.mkdir(mode=0o700)

    say(
        "1. Three images: one that our own luksFormat makes, a raw one for plain mode, and one "
        "that the real cryptsetup formats."
    )
    for image in (ours, plain, real, secure):
        with image.open("wb") as file:
            file.truncate(64 * MIB)
    fusecrypt(
        "luksFormat",
        "-q",
        "--pbkdf-memory",
        "65536",
        "--iter-time",
        "300",
        "--label",
        "demo",
        "--key-file",
        str(passphrase),
        str(ours),
    )
    run(
        "cryptsetup",
        "luksFormat",
        "-q",
        "--type",
        "luks2",
        "--pbkdf-memory",
        "65536",
        "--iter-time",
        "300",
        "--sector-size",
        "4096",
        "--key-file",
        str(passphrase),
        str(real),
    )
    run("cryptsetup", "luksDump", str(ours))

    secure_key = make_secure_volume(work, secure, passphrase)

    say(
        "3. A crypttab names them, with the words of crypttab(5). The daemon is given this file, "
        "and opens every line of it. (In /etc/crypttab, which systemd reads as well, it "
        "takes only the lines that have the option x-fusecrypt.)"
    )
    crypttab = work / "crypttab"
    crypttab.write_text(
        "# name  source  key  options\n"
        f"ours  {ours}  {passphrase}  luks\n"
        f"plain {plain} {key} plain,cipher=aes-xts-plain64,size=512,sector-size=4096\n"
        f"real  {real}  {passphrase}  luks\n"
        f"secure {secure} {passphrase} luks\n"
        f"scratch {work / 'scratch.img'} {runtime}/dev/pkey/protkey/protkey_aes_256_xts "
        "plain,cipher=paes-xts-plain64,size=1280\n"
    )
    (work / "scratch.img").write_bytes(bytes(MIB))
    print(textwrap.indent(crypttab.read_text(), "    "))

    say(
        "4. The daemon opens every line of it. Keys live in its engine process only, in memory "
        "that no other process, core dump or debugger can read. The secure key goes to keystored, "
        "which wraps its effective key for this one engine: a protected key. The line scratch gets "
        "a random protected key, and what is in it ends with the daemon."
    )
    daemon = Daemon(runtime, crypttab)
    try:
        daemon.start()
        listing = fusecrypt("--runtime-dir", str(runtime), "list")
        names = ("ours", "plain", "real", "secure", "scratch")
        check(all(name in listing for name in names), "all five are open")
        status = fusecrypt("--runtime-dir", str(runtime), "status", "secure")
        check("CCA-AESDATA by adapter 03.0039" in status, "the adapter turned the secure key over")

        say(
            "5. A mapped device is a file. In ours: make a file system, mount it, write 8 MiB of "
            "random data into a file of it. Into plain, real and secure the demo writes the same "
            "8 MiB itself, from their beginning, as any program writes a file. Then it looks for "
            "them in the images."
        )
        run("mkfs.ext4", "-q", str(mapper / "ours"))
        data = os.urandom(8 * MIB)
        digest = hashlib.sha256(data).hexdigest()
        with mounted(mapper / "ours", mount) as top:
            (top / "data").write_bytes(data)
        for name in ("plain", "real", "secure"):
            with (mapper / name).open("r+b") as device:
                device.write(data)
                os.fsync(device.fileno())
        print(f"  8 MiB to each of {', '.join(names[1:4])}, and fsync", flush=True)
        with (mapper / "ours").open("rb") as device:
            superblock = device.read(2048)[1024:]
        images = [image.read_bytes() for image in (ours, plain, real, secure)]
        check(
            not any(piece in image for piece in (data[:64], superblock[:64]) for image in images),
            "neither the data nor the file system's superblock stands in any of the four images",
        )

        say("6. Restart the daemon: the same bytes are there.")
        daemon.stop()
        daemon.start()
        with mounted(mapper / "ours", mount) as top:
            check(
                hashlib.sha256((top / "data").read_bytes()).hexdigest() == digest,
                "the file in the file system is the one that was written",
            )
        for name in ("plain", "real", "secure"):
            with (mapper / name).open("rb") as device:
                check(device.read(len(data)) == data, f"{name} holds what was written")
        run("e2fsck", "-fn", str(mapper / "ours"))

        say("7. Close one volume by hand, stop the daemon for the rest.")
        fusecrypt("--runtime-dir", str(runtime), "close", "real")
        check(not (mapper / "real").exists(), "its name is gone")
    finally:
        daemon.stop()

    lose_master_key(work, secure, secure_key, passphrase, data)

    say(
        "9. What does the real cryptsetup say? It decrypts both LUKS volumes in place, in user "
        "space, without us."
    )
    for image in (ours, real):
        run("cryptsetup", "open", "--test-passphrase", "--key-file", str(passphrase), str(image))
    real_size = real.stat().st_size
    run(
        "cryptsetup",
        "reencrypt",
        "-q",
        "--decrypt",
        "--force-offline-reencrypt",
        "--disable-locks",
        "--header",
        str(work / "header"),
        "--key-file",
        str(passphrase),
        str(real),
    )
    with real.open("rb") as file:
        check(file.read(len(data)) == data, "cryptsetup reads from real what we wrote through FUSE")
    check(real.stat().st_size <= real_size, "and its size did not grow")
    run(
        "cryptsetup",
        "reencrypt",
        "-q",
        "--decrypt",
        "--force-offline-reencrypt",
        "--disable-locks",
        "--header",
        str(work / "header2"),
        "--key-file",
        str(passphrase),
        str(ours),
    )
    run("e2fsck", "-fn", str(ours))
    check(True, "the file system in ours is clean to e2fsck after cryptsetup decrypted it")


def main() -> int:
    """Play, clean up, tell."""
    folder = Path(tempfile.mkdtemp(prefix="fusecrypt-demo-"))
    print(f"fusecrypt: the main job, as {'root' if IS_ROOT else 'an ordinary user'}, in {folder}")
    try:
        play(folder)
    except StepError as failure:
        print(f"\nThe demo failed: {failure}\nEverything is left in {folder} for a look.")
        return 1
    shutil.rmtree(folder)
    print("\nEvery step held. README.md tells how to open an image of your own.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
