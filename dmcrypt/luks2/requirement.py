"""Requirements and flags of a LUKS2 header: what one must understand to open it, or to write.

Source: LUKS2 On-Disk Format Specification 1.1.4, section 3.5.1; lib/luks2/luks2_json_metadata.c.
cryptsetup refuses every activation under a requirement that it does not know. One that we do not
know may forbid writing; those below change what the data are, so that even reading would be wrong.
"""

from __future__ import annotations

from typing import Final

from ...keystore.errors import UnsupportedError
from .model import Config

#: Begin of the name; what it means.
_FORBID_ALL: Final = (
    ("online-reencrypt", "the volume is being reencrypted"),
    ("offline-reencrypt", "the volume is being reencrypted"),
    ("opal", "the volume is encrypted by the drive"),
    ("inline-hw-tags", "integrity tags lie in the drive's own metadata"),
)

#: Flags that concern how the kernel does it, not what the data are (sec. 3.5).
_KNOWN_FLAGS: Final = (
    "allow-discards",
    "same-cpu-crypt",
    "submit-from-crypt-cpus",
    "no-journal",
    "no-read-workqueue",
    "no-write-workqueue",
    "high-priority",
)


def check_requirements(config: Config, *, read_only: bool) -> None:
    """Refuse what a header demands and we do not do.

    Raises:
        UnsupportedError: names the requirement.
    """
    for requirement in config.requirements:
        for name, meaning in _FORBID_ALL:
            if requirement.startswith(name):
                raise UnsupportedError(
                    f"config.requirements: {requirement} is not supported ({meaning})"
                )
    if config.requirements and not read_only:
        names = ", ".join(config.requirements)
        raise UnsupportedError(
            f"config.requirements: {names} is not known, so the volume cannot be written; it "
            "can be opened read-only"
        )


def allows_discards(config: Config) -> bool:
    """Whether a flag says so for every open."""
    return "allow-discards" in config.flags


def find_unknown_flags(config: Config) -> tuple[str, ...]:
    """The flags that nobody told us of; cryptsetup ignores them, with a message."""
    return tuple(flag for flag in config.flags if flag not in _KNOWN_FLAGS)
