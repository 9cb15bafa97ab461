"""How the adapters' state is sealed, as it is told to everybody: no secret, and no cryptography."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SealMethod(StrEnum):
    """What keeps the host key from a thief of the state directory."""

    HOST_KEY_FILE = "host-key-file"  # nothing, if he has that file too
    PASSPHRASE = "passphrase"  # noqa: S105 (its name)
    CREDENTIAL = "systemd-credential"
    TPM2 = "tpm2"


@dataclass(frozen=True, slots=True)
class SealState:
    """How the host key is kept."""

    method: SealMethod
    is_locked: bool  # nobody has given the passphrase yet
    has_plain_file: bool  # the host key lies in a file, whatever else seals it
