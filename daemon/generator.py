"""fusecrypt-generator: what the daemon must wait for at boot, devices and mounts of the crypttab.

Source: systemd.generator(7). Writes a drop-in for fusecryptd.service. Only wishes and orders: a
device or mount that does not come costs the volumes on it, not the daemon and the others.
"""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from ..keystore.errors import MapperError
from .config import load_settings
from .crypttab import Crypttab, CrypttabEntry, load_crypttabs

SERVICE: Final = "fusecryptd.service"
_FSTAB: Final = Path("/etc/fstab")
# systemd.unit(5), "string escaping for inclusion in unit names".
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + ":_.")


def escape_path(path: str) -> str:
    """A path in a unit's name, as systemd-escape --path has it."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    text = "/".join(parts)
    if not text:
        return "-"
    escaped: list[str] = []
    for position, byte in enumerate(text.encode("utf-8", "surrogateescape")):
        character = chr(byte)
        if character == "/":
            escaped.append("-")
        elif character in _PLAIN and not (character == "." and position == 0):
            escaped.append(character)
        else:
            escaped.append(f"\\x{byte:02x}")
    return "".join(escaped)


def list_waits(crypttab: Crypttab, *, own: Path, fstab: str, has_devices: bool) -> list[str]:
    """The units that the daemon starts after, and pulls in: mounts and devices, in their order.

    ``own`` is the daemon's mount. What lies on one of its own volumes cannot be waited for, by the
    lines of ``fstab``. ``has_devices``: udev tells systemd of devices here, unlike in a container.
    """
    behind_us = [own, *_list_mounts_on_us(fstab, own)]
    units: dict[str, None] = {}
    for entry in crypttab.own_entries:
        if not entry.opens_at_start or any(problem.is_error for problem in entry.problems):
            continue
        for path in _list_paths(entry):
            if any(path.is_relative_to(place) for place in behind_us):
                continue
            if not path.is_relative_to("/dev"):
                units |= dict.fromkeys(_list_mounts_above(path))
            elif has_devices and path == PurePosixPath(os.path.normpath(entry.source_path)):
                # Not /dev/urandom and its like, key files that no unit stands for.
                units[f"{escape_path(str(path))}.device"] = None
    return list(units)


def _list_paths(entry: CrypttabEntry) -> list[PurePosixPath]:
    texts = (entry.source_path, entry.options.header, entry.key_file)
    return [PurePosixPath(os.path.normpath(t)) for t in texts if t is not None and t[:1] == "/"]


def _list_mounts_above(path: PurePosixPath) -> list[str]:
    """The mount units of all directories above it, the outermost first; few of them exist."""
    return [f"{escape_path(str(p))}.mount" for p in reversed(path.parents) if str(p) != "/"]


def _list_mounts_on_us(fstab: str, own: Path) -> Iterable[Path]:
    for line in fstab.splitlines():
        fields = line.split()
        if len(fields) < 4 or line.lstrip().startswith("#"):
            continue
        source, place, _, options = fields[:4]
        if source.startswith(f"{own}/") or SERVICE in options:
            yield Path(os.path.normpath(place))


def make_drop_in(units: Sequence[str]) -> str:
    """The drop-in's text."""
    lines = ["# Made by fusecrypt-generator from the crypttab.", "[Unit]"]
    # A percent sign would be a specifier.
    for unit in (unit.replace("%", "%%") for unit in units):
        lines += [f"Wants={unit}", f"After={unit}"]
    return "\n".join(lines) + "\n"


def generate(directory: Path, environment: Mapping[str, str]) -> None:
    """Write the drop-in below ``directory``, if there is anything to wait for.

    Raises:
        MapperError: the crypttab cannot be read.
    """
    settings = load_settings(environment={})
    try:
        fstab = _FSTAB.read_text(errors="surrogateescape")
    except OSError:
        fstab = ""
    units = list_waits(
        load_crypttabs(settings.crypttabs),
        own=settings.device_dir,
        fstab=fstab,
        has_devices=not environment.get("SYSTEMD_VIRTUALIZATION", "").startswith("container"),
    )
    if units:
        place = directory / f"{SERVICE}.d"
        place.mkdir(exist_ok=True)
        (place / "50-crypttab.conf").write_text(make_drop_in(units))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as systemd runs generators: NORMAL-DIR EARLY-DIR LATE-DIR."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) not in (1, 3):
        sys.stderr.write("usage: fusecrypt-generator NORMAL-DIR [EARLY-DIR LATE-DIR]\n")
        return 1
    try:
        generate(Path(given[0]), os.environ)
    except (MapperError, OSError) as error:
        sys.stderr.write(f"fusecrypt-generator: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
