"""``fusecrypt zkey crypttab``: lines of /etc/crypttab for the volumes of the repository's keys.

Source: zkey's keystore.c, which sets the layout, literal blanks and all.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from ...keystore.errors import ConfigError
from ...keystore.repository_key import PLAIN, RepositoryKey, Volume
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .output import Output
from .zkey_filter import find_keys, fits_volume


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Print a line for each volume that fits --volumes and --volume-type.

    Raises:
        MapperError: the repository cannot be read.
    """
    lines = [make_line(args, key, volume) for key, volume in list_volumes(args, settings)]
    for line in lines:
        output.line(line)
    output.json({"lines": lines})
    return ExitCode.OK


def list_volumes(args: Arguments, settings: Settings) -> Iterator[tuple[RepositoryKey, Volume]]:
    """The volumes that were asked for, with their keys; those for integrity are left out.

    Raises:
        ConfigError: options of a key file without --key-file.
        MapperError: the repository cannot be read.
    """
    for option in ("keyfile-offset", "keyfile-size"):
        if args.has(option) and not args.has("key-file"):
            raise ConfigError(f"--{option}: only with --key-file")
    wanted = args.text("volumes")
    for key in find_keys(args, settings):
        if not key.is_aes:
            continue
        for text in key.volumes:
            if wanted is None or fits_volume(text, wanted):
                yield key, Volume.parse(text)


def has_kernel_paes() -> bool:
    """Whether the machine's own kernel may open volumes with cipher paes: an IBM Z's."""
    return platform.machine() == "s390x"


def make_line(args: Arguments, key: RepositoryKey, volume: Volume) -> str:
    """One line, its fields between tabulators; for fusecryptd where systemd cannot open it."""
    ours = "" if has_kernel_paes() else ",noauto,x-fusecrypt"
    if key.volume_type == PLAIN:
        options = f"plain,cipher={make_cipher(key)},size={len(key.token) * 8}"
        if key.sector_size:
            options += f",sector-size={key.sector_size}"
        return "\t".join((volume.dm_name, volume.path, str(key.path), options + ours))
    options = "luks"
    key_file = args.text("key-file")
    if key_file is not None:
        for name in ("keyfile-offset", "keyfile-size"):
            number = args.number(name)
            options += "" if number is None else f",{name}={number}"
    elif key.passphrase_path is not None:
        key_file = str(key.passphrase_path)
    tries = args.number("tries")
    options += "" if tries is None else f",tries={tries}"
    return "\t".join((volume.dm_name, volume.path, key_file or "none", options + ours))


def make_cipher(key: RepositoryKey) -> str:
    """The cipher of the key's volumes, as dm-crypt spells it."""
    return "paes-xts-plain64" if key.shape.is_xts else "paes-cbc-plain64"
