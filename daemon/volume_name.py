"""What may name a volume: a plain file name that device mapper would take too."""

from __future__ import annotations

from typing import Final

from ..keystore.errors import ConfigError

# dm-ioctl.h: DM_NAME_LEN is 128, the terminating NUL included.
MAX_LENGTH: Final = 127

# /dev/mapper/control is device mapper's own node, dm-N the kernel's names for devices.
RESERVED: Final = frozenset({".", "..", "control"})

#: Of the name of an open volume.
NAME_TAKEN: Final = "is open already; wanted: another name, or to close it first"


def check_volume_name(name: str) -> None:
    """Refuse a name that cannot be a file in ``dev/mapper``.

    Raises:
        ConfigError: empty, too long, reserved, with a slash or control character, not UTF-8.
    """
    reason = _find_fault(name)
    if reason is not None:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise ConfigError(f"volume name {shown!r}: {reason}; wanted: a plain file name")


def _find_fault(name: str) -> str | None:
    if not name:
        return "it is empty"
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return "it is not UTF-8"
    if len(encoded) > MAX_LENGTH:
        return f"it has {len(encoded)} bytes, more than {MAX_LENGTH}"
    if name in RESERVED:
        return "it is reserved"
    if "/" in name:
        return "it has a slash"
    if any(ord(c) < 0x20 or ord(c) == 0x7F for c in name):
        return "it has a control character"
    return None
