"""``fusecrypt zkey cryptsetup``: the commands that format or open volumes, shown or run.

Source: zkey's keystore.c, which sets the commands and their options. What is run is the real
cryptsetup where there is one that can do it, else fusecrypt, which takes the same words: only a
kernel for IBM Z opens volumes with cipher paes.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ...keystore.errors import NotFoundError, UnsupportedError
from ...keystore.repository import Repository
from ...keystore.repository_key import LUKS2, PLAIN, RepositoryKey, Volume
from ..config import Settings
from ..exitcodes import ExitCode, parse_exit_code
from .arguments import Arguments
from .output import Output
from .zkey_crypttab import has_kernel_paes, list_volumes, make_cipher

CRYPTSETUP: Final = "cryptsetup"
ZKEY_CRYPTSETUP: Final = "zkey-cryptsetup"
_QUOTED: Final = ("--key-file", "--volume-key-file")
_FIPS: Final = Path("/proc/sys/crypto/fips_enabled")
#: The keyslot's content needs no secrecy, so cheap costs do, which even a small machine can pay.
_PBKDF: Final = (
    ("--pbkdf", "argon2i"), ("--pbkdf-memory", "32"), ("--pbkdf-force-iterations", "4")
)  # fmt: skip


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Show or run the commands for the volumes that fit; the first failure ends it.

    Raises:
        MapperError: the repository cannot be read.
    """
    args.refuse_both("open", "format")
    commands = list(_list_commands(args, settings))
    if not args.has("run"):
        lines = [format_command(_name_program(command)) for command in commands]
        for line in lines:
            output.line(line)
        output.json({"commands": lines})
        return ExitCode.OK
    done: list[dict[str, object]] = []
    code = ExitCode.OK
    for command in commands:
        words = find_program(command)
        output.line(f"Executing: {format_command(words)}")
        status = subprocess.run(words, check=False).returncode
        output.line(f"{Path(words[0]).name} exit code: {status}")
        done.append({"command": format_command(words), "status": status})
        if status:
            code = parse_exit_code(status)
            break
    output.json({"commands": done})
    return code


def _list_commands(args: Arguments, settings: Settings) -> Iterator[list[str]]:
    of_integrity = _find_integrity_volumes(settings)
    for key, volume in list_volumes(args, settings):
        if volume.path in of_integrity:
            raise UnsupportedError(
                f"volume {volume.path}: key {of_integrity[volume.path]!r} is for its integrity, "
                "which is not supported"
            )
        if key.volume_type == PLAIN:
            if not args.has("format"):
                yield _make_plain_open(args, key, volume)
        elif args.has("open"):
            yield _make_luks_open(args, key, volume)
        else:
            yield _make_format(args, key, volume)
            yield [ZKEY_CRYPTSETUP, "setvp", volume.path, *_make_key_options(args, key), *(
                ["-V"] if args.has("verbose") else []
            )]  # fmt: skip


def _find_integrity_volumes(settings: Settings) -> dict[str, str]:
    keys = Repository(settings.zkey_repository).list()
    return {
        text.rpartition(":")[0]: key.name
        for key in keys
        if not key.is_aes and key.volume_type == LUKS2
        for text in key.volumes
    }


def _make_plain_open(args: Arguments, key: RepositoryKey, volume: Volume) -> list[str]:
    sector_size = ["--sector-size", str(key.sector_size)] if key.sector_size else []
    return [
        CRYPTSETUP, "plainOpen", *_make_flags(args), "--key-file", str(key.path),
        "--key-size", str(len(key.token) * 8), "--cipher", make_cipher(key), *sector_size,
        volume.path, volume.dm_name,
    ]  # fmt: skip


def _make_luks_open(args: Arguments, key: RepositoryKey, volume: Volume) -> list[str]:
    tries = args.number("tries")
    return [
        CRYPTSETUP, "luksOpen", *_make_flags(args), *_make_key_options(args, key),
        *([] if tries is None else ["--tries", str(tries)]), volume.path, volume.dm_name,
    ]  # fmt: skip


def _make_format(args: Arguments, key: RepositoryKey, volume: Volume) -> list[str]:
    is_fips = _FIPS.exists() and _FIPS.read_text().strip() == "1"
    pbkdf = ["--pbkdf", "pbkdf2"] if is_fips else [word for pair in _PBKDF for word in pair]
    sector_size = ["--sector-size", str(key.sector_size)] if key.sector_size else []
    return [
        CRYPTSETUP, "luksFormat", *_make_flags(args), "--type", "luks2",
        "--volume-key-file", str(key.path), "--key-size", str(len(key.token) * 8),
        "--cipher", make_cipher(key), *pbkdf, *_make_key_options(args, key), *sector_size,
        volume.path,
    ]  # fmt: skip


def _make_flags(args: Arguments) -> list[str]:
    quiet = ["-q"] if args.has("batch-mode") else []
    return [*quiet, *(["-v"] if args.has("verbose") else [])]


def _make_key_options(args: Arguments, key: RepositoryKey) -> list[str]:
    """The passphrase's file: the one that is given, else the dummy passphrase's."""
    file = args.text("key-file")
    if file is None:
        return [] if key.passphrase_path is None else ["--key-file", str(key.passphrase_path)]
    words = ["--key-file", file]
    for name in ("keyfile-offset", "keyfile-size"):
        number = args.number(name)
        words += [] if number is None else [f"--{name}", str(number)]
    return words


def format_command(words: Sequence[str]) -> str:
    """As a shell takes it; zkey puts files into quotes whatever they are."""
    shown: list[str] = []
    for before, word in zip(("", *words), words, strict=False):
        is_plain = before in _QUOTED and "'" not in word
        shown.append(f"'{word}'" if is_plain else shlex.quote(word))
    return " ".join(shown)


def find_program(command: Sequence[str]) -> list[str]:
    """What to run for a command of cryptsetup or zkey-cryptsetup.

    Raises:
        NotFoundError: fusecrypt does not know how it was started.
    """
    real = _find_real(command)
    return [real, *command[1:]] if real else [*_find_own(), *_make_own(command)]


def _name_program(command: Sequence[str]) -> list[str]:
    """The same for people: the command that would be run, by its name."""
    return list(command) if _find_real(command) else ["fusecrypt", *_make_own(command)]


def _find_real(command: Sequence[str]) -> str | None:
    """The real cryptsetup, if it is there and can do this."""
    tool, action, *_ = command
    can = tool == CRYPTSETUP and (action == "luksFormat" or has_kernel_paes())
    return shutil.which(CRYPTSETUP) if can else None


def _make_own(command: Sequence[str]) -> list[str]:
    """The words for fusecrypt, which has cryptsetup's actions without its name."""
    return list(command[1:] if command[0] == CRYPTSETUP else command)


def _find_own() -> list[str]:
    """fusecrypt, as this process was started."""
    for candidate in (Path(sys.argv[0]), Path(sys.executable).parent / "fusecrypt"):
        if candidate.name == "fusecrypt" and candidate.exists():
            return [str(candidate.resolve())]
    found = shutil.which("fusecrypt")
    if found is None:
        raise NotFoundError("fusecrypt: not found beside the interpreter nor on the PATH")
    return [found]
