"""What an image holds already: a LUKS header, a file system, a partition table."""

from __future__ import annotations

from ...dmcrypt.probe import find_superblock, probe
from ...keystore.errors import ConfigError
from .arguments import Arguments
from .ask_yes import ask_capitals
from .output import Output
from .passphrase import is_terminal
from .source import SourceFile


def find_content(file: SourceFile) -> str | None:
    """Its name; None where nothing is known."""
    if (kind := probe(file.pread, file.size)) is not None:
        return f"crypto_LUKS ({kind})"
    return find_superblock(file.pread, file.size)


def describe_content(spec: str, found: str) -> str:
    """The warning, in cryptsetup's words."""
    return f"Device {spec} already contains a '{found}' superblock signature."


def confirm_plain(args: Arguments, spec: str, file: SourceFile, output: Output) -> None:
    """Have the one at the terminal type YES before what is there is taken for a plain volume.

    Who is none is warned; who gave -q, or an offset, which says that there is more, is not.

    Raises:
        ConfigError: he typed something else.
    """
    if args.has("batch-mode") or args.has("offset") or (found := find_content(file)) is None:
        return
    if not is_terminal():
        output.warn(describe_content(spec, found))
        return
    warning = (
        f"Detected device signature(s) on {spec}. Proceeding further may damage existing data."
    )
    if not ask_capitals(warning, before=f"WARNING: {describe_content(spec, found)}\n"):
        raise ConfigError(f"{spec}: not opened; wanted: YES")
