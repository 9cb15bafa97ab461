"""The options of cryptsetup that ``fusecrypt`` does not have, and what to do instead.

Source: cryptsetup --help of versions 2.6.1 and 2.8. They are refused by name, whichever action they
are given to.
"""

from __future__ import annotations

from typing import Final

_REENCRYPT: Final = "volumes are not re-encrypted here; cryptsetup reencrypt does it, while closed"
_TCRYPT: Final = "TrueCrypt and VeraCrypt volumes are not opened; cryptsetup opens them"
_INTEGRITY: Final = "there is no dm-integrity here; such volumes are opened by cryptsetup"
_OPAL: Final = "drives are not asked to encrypt; wanted: --cipher, which needs no such drive"
_KEYRING: Final = "the volume key never leaves the engine"

#: Option to reason.
REFUSED: Final = {
    **dict.fromkeys(
        (
            "active-name",
            "block-size",
            "decrypt",
            "encrypt",
            "force-no-keyslots",
            "force-offline-reencrypt",
            "hotzone-size",
            "init-only",
            "keep-key",
            "new",
            "progress-frequency",
            "progress-json",
            "reduce-device-size",
            "resilience",
            "resilience-hash",
            "resume-only",
            "use-directio",
            "use-fsync",
            "write-log",
        ),
        _REENCRYPT,
    ),
    **dict.fromkeys(
        (
            "disable-veracrypt",
            "tcrypt-backup",
            "tcrypt-hidden",
            "tcrypt-system",
            "veracrypt",
            "veracrypt-pim",
            "veracrypt-query-pim",
        ),
        _TCRYPT,
    ),
    **dict.fromkeys(
        (
            "integrity",
            "integrity-inline",
            "integrity-key-size",
            "integrity-legacy-padding",
            "integrity-no-journal",
            "integrity-no-wipe",
        ),
        _INTEGRITY,
    ),
    **dict.fromkeys(("hw-opal", "hw-opal-factory-reset", "hw-opal-only"), _OPAL),
    **dict.fromkeys(("link-vk-to-keyring", "volume-key-keyring"), _KEYRING),
    "disable-blkid": "what a device holds is told without blkid; --batch-mode asks nothing",
    "external-tokens-path": "token plugins are not loaded",
    "perf-high_priority": "it tunes the kernel's dm-crypt, and needs its newest version",
}

#: Their letters.
REFUSED_LETTERS: Final = {"B": "block-size", "I": "integrity", "N": "new"}

#: Action to reason.
REFUSED_ACTIONS: Final = {
    "reencrypt": _REENCRYPT,
    "tcryptOpen": _TCRYPT,
    "tcryptDump": _TCRYPT,
    **dict.fromkeys(
        ("bitlkOpen", "bitlkDump"), "BitLocker volumes are not opened; cryptsetup opens them"
    ),
    **dict.fromkeys(
        ("fvault2Open", "fvault2Dump"), "FileVault2 volumes are not opened; cryptsetup opens them"
    ),
}
