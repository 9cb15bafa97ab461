"""The fourth field of a crypttab line: every option of systemd and Debian, and what we make of it.

Source: crypttab(5) of systemd 262 and of Debian's cryptsetup 2.8. An option is honoured, or without
effect here by its nature, or refused by name; an unknown one is warned about, and so is a bad
number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from .crypttab_values import parse_boolean, parse_lease, parse_time_span, parse_unsigned
from .device_spec import is_device_spec

MIN_SECTOR_SIZE: Final = 512
MAX_SECTOR_SIZE: Final = 4096


class Verdict(Enum):
    """How much a remark about an option weighs."""

    NOTE = "note"  # may be as it should
    WARNING = "warning"  # the line is used without the option
    WRONG = "wrong"  # the line is not used
    UNSUPPORTED = "not supported"  # likewise


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be said about one option."""

    option: str
    verdict: Verdict
    text: str


@dataclass(slots=True)
class CrypttabOptions:
    """The options of one line. Not to be changed once parsed."""

    type: Literal["luks", "plain"] | None = None  # None: not said
    cipher: str | None = None
    key_bits: int | None = None
    hash: str | None = None
    sector_size: int | None = None
    offset: int = 0  # 512-byte sectors
    skip: int = 0  # 512-byte sectors
    keyfile_offset: int = 0  # bytes
    keyfile_size: int = 0  # bytes; 0: to the end
    header: str | None = None  # absolute path
    key_slot: int | None = None
    read_only: bool = False
    discard: bool = False
    noauto: bool = False
    nofail: bool = False
    tries: int = 3  # 0: for ever
    timeout: float | None = None  # seconds for each question; None: for ever
    headless: bool = False  # never ask
    lease: int | None = None  # seconds, 0: none; None: as the settings say
    idle: int | None = None  # likewise
    claim: Literal["start", "noauto"] | None = None  # x-fusecrypt, x-fusecrypt=noauto


class _BadValueError(Exception):
    """The value is not what the option takes; the option is ignored, as systemd does."""


class _RefusedError(Exception):
    """The line cannot be used."""

    def __init__(self, text: str, verdict: Verdict = Verdict.WRONG) -> None:
        super().__init__(text)
        self.verdict = verdict


def parse_options(field: str) -> tuple[CrypttabOptions, tuple[Remark, ...]]:
    """Options from the field's text, and the remarks on them, in order."""
    options = CrypttabOptions()
    remarks: list[Remark] = []
    try:
        words = split_options(field)
    except ValueError as error:
        return options, (Remark(field, Verdict.WRONG, str(error)),)
    for word in words:
        try:
            remark = _apply(options, word)
        except _BadValueError as error:
            remark = Remark(word, Verdict.WARNING, f"ignored; wanted: {error}")
        except _RefusedError as error:
            remark = Remark(word, error.verdict, str(error))
        if remark is not None:
            remarks.append(remark)
    return options, tuple(remarks)


def split_options(field: str) -> list[str]:
    r"""Split at commas; ``\,`` stands for a comma and ``\\`` for a backslash, as in systemd.

    Raises:
        ValueError: another character after a backslash, or none.
    """
    if re.search(r"\\(?![,\\])", re.sub(r"\\[,\\]", "", field)):
        raise ValueError("a backslash; wanted: \\, for a comma or \\\\ for a backslash")
    words = re.findall(r"(?:[^,\\]|\\.)+", field)
    return [re.sub(r"\\(.)", r"\1", word) for word in words]


def _apply(options: CrypttabOptions, word: str) -> Remark | None:
    name, equals, value = word.partition("=")
    if not equals and name in _FLAGS:
        _FLAGS[name](options)
        return None
    if equals and name in _VALUES:
        _VALUES[name](options, value)
        return None
    if name in _REFUSED:
        return Remark(word, Verdict.UNSUPPORTED, f"not supported: {_REFUSED[name]}")
    if name.startswith(_REFUSED_PREFIXES):
        return Remark(word, Verdict.UNSUPPORTED, "not supported: hardware tokens")
    if name.startswith("x-fusecrypt"):
        return Remark(word, Verdict.WRONG, "unknown; wanted: x-fusecrypt, …-lease= or …-idle=")
    if name in _WITHOUT_EFFECT or name.startswith("x-"):
        return None
    return Remark(word, Verdict.WARNING, "unknown option, ignored")


def _number(text: str, wanted: str, *, bits: int = 32) -> int:
    try:
        return parse_unsigned(text, bits=bits)
    except ValueError:
        raise _BadValueError(wanted) from None


def _fatal_sectors(text: str) -> int:
    try:
        return parse_unsigned(text, bits=64)
    except ValueError as error:
        raise _RefusedError(f"{error}; wanted: a number of 512-byte sectors") from None


def _boolean(text: str) -> bool:
    try:
        return parse_boolean(text)
    except ValueError:
        raise _BadValueError("yes or no") from None


# --- what each option does --------------------------------------------------------------------


def _set_plain(o: CrypttabOptions) -> None:
    o.type = "plain"


def _set_luks(o: CrypttabOptions) -> None:
    o.type = "luks"


def _set_cipher(o: CrypttabOptions, value: str) -> None:
    if not value:
        raise _BadValueError("a cipher, as in aes-xts-plain64")
    o.cipher = value


def _set_hash(o: CrypttabOptions, value: str) -> None:
    if not value:
        raise _BadValueError("a hash, as in sha256")
    o.hash = value


def _set_size(o: CrypttabOptions, value: str) -> None:
    bits = _number(value, "a key size in bits")
    if bits == 0 or bits % 8:
        raise _BadValueError("a key size in bits, a multiple of 8")
    o.key_bits = bits


def _set_sector_size(o: CrypttabOptions, value: str) -> None:
    wanted = "512, 1024, 2048 or 4096"
    size = _number(value, wanted)
    if not MIN_SECTOR_SIZE <= size <= MAX_SECTOR_SIZE or size & (size - 1):
        raise _BadValueError(wanted)
    o.sector_size = size


def _set_offset(o: CrypttabOptions, value: str) -> None:
    o.offset = _fatal_sectors(value)


def _set_skip(o: CrypttabOptions, value: str) -> None:
    o.skip = _fatal_sectors(value)


def _set_keyfile_offset(o: CrypttabOptions, value: str) -> None:
    o.keyfile_offset = _number(value, "a number of bytes", bits=64)


def _set_keyfile_size(o: CrypttabOptions, value: str) -> None:
    o.keyfile_size = _number(value, "a number of bytes")


def _set_header(o: CrypttabOptions, value: str) -> None:
    # systemd: header= means LUKS also on a line that says plain.
    o.type = "luks"
    if not value.startswith("/"):
        raise _RefusedError("not an absolute path")
    if o.header is not None:
        raise _RefusedError("header= twice")
    if find_device_suffix(value) is not None:
        raise _RefusedError("not supported: a header on another device", Verdict.UNSUPPORTED)
    o.header = value


def find_device_suffix(path: str) -> str | None:
    """The device that ``PATH:DEVICE`` names: after the last colon before a device, else None."""
    for position in range(len(path) - 1, 0, -1):
        if path[position] == ":" and is_device_spec(path[position + 1 :]):
            return path[position + 1 :]
    return None


def _set_key_slot(o: CrypttabOptions, value: str) -> None:
    o.type = "luks"
    o.key_slot = _number(value, "the number of a keyslot", bits=31)


def _set_tries(o: CrypttabOptions, value: str) -> None:
    o.tries = _number(value, "a number of tries, 0 for no end")


def _set_timeout(o: CrypttabOptions, value: str) -> None:
    try:
        o.timeout = parse_time_span(value)
    except ValueError:
        raise _BadValueError("a time span, as in 90 or 2min") from None


def _set_read_only(o: CrypttabOptions) -> None:
    o.read_only = True


def _set_discard(o: CrypttabOptions) -> None:
    o.discard = True


def _set_noauto(o: CrypttabOptions) -> None:
    o.noauto = True


def _set_auto(o: CrypttabOptions) -> None:
    o.noauto = False


def _set_nofail(o: CrypttabOptions) -> None:
    o.nofail = True


def _set_fail(o: CrypttabOptions) -> None:
    o.nofail = False


def _set_headless(o: CrypttabOptions) -> None:
    o.headless = True


def _set_headless_value(o: CrypttabOptions, value: str) -> None:
    o.headless = _boolean(value)


def _set_claim(o: CrypttabOptions) -> None:
    o.claim = "start"


def _set_claim_value(o: CrypttabOptions, value: str) -> None:
    o.claim = "noauto"  # ours in any case, and not opened when we do not understand it
    if value != "noauto":
        raise _RefusedError("wanted: x-fusecrypt or x-fusecrypt=noauto")


def _set_lease(o: CrypttabOptions, value: str) -> None:
    o.lease = _lease_seconds(value)


def _set_idle(o: CrypttabOptions, value: str) -> None:
    o.idle = _lease_seconds(value)


def _lease_seconds(value: str) -> int:
    try:
        return parse_lease(value)
    except ValueError as error:  # a line that asks for a lease is not opened without one
        raise _RefusedError(str(error)) from None


def _refuse_when_true(_o: CrypttabOptions, value: str) -> None:
    if _boolean(value):
        raise _RefusedError("not supported", Verdict.UNSUPPORTED)


def _refuse_caching(_o: CrypttabOptions, value: str) -> None:
    if value == "read-only" or _boolean(value):
        raise _RefusedError("not supported: passphrases are not cached", Verdict.UNSUPPORTED)


def _refuse_echo(_o: CrypttabOptions, value: str) -> None:
    if value != "masked":
        _boolean(value)
        raise _RefusedError("not supported: wanted: masked", Verdict.UNSUPPORTED)


_FLAGS: Final[dict[str, Callable[[CrypttabOptions], None]]] = {
    "luks": _set_luks,
    "plain": _set_plain,
    "read-only": _set_read_only,
    "readonly": _set_read_only,
    "discard": _set_discard,
    "allow-discards": _set_discard,
    "noauto": _set_noauto,
    "auto": _set_auto,
    "nofail": _set_nofail,
    "fail": _set_fail,
    "headless": _set_headless,
    "x-fusecrypt": _set_claim,
}

_VALUES: Final[dict[str, Callable[[CrypttabOptions, str], None]]] = {
    "cipher": _set_cipher,
    "hash": _set_hash,
    "size": _set_size,
    "sector-size": _set_sector_size,
    "offset": _set_offset,
    "skip": _set_skip,
    "keyfile-offset": _set_keyfile_offset,
    "keyfile-size": _set_keyfile_size,
    "header": _set_header,
    "key-slot": _set_key_slot,
    "keyslot": _set_key_slot,
    "tries": _set_tries,
    "timeout": _set_timeout,
    "headless": _set_headless_value,
    "x-fusecrypt": _set_claim_value,
    "x-fusecrypt-lease": _set_lease,
    "x-fusecrypt-idle": _set_idle,
    # The value that asks for nothing is taken, the others are refused.
    "keyfile-erase": _refuse_when_true,
    "try-empty-password": _refuse_when_true,
    "password-cache": _refuse_caching,
    "password-echo": _refuse_echo,
}

_OTHER_FORMAT: Final = "only LUKS and plain volumes"
_CHECKS: Final = "checking what a volume holds"

_REFUSED: Final[dict[str, str]] = {
    "swap": "swap on a FUSE file can deadlock the machine",
    "tmp": "it would make a new file system, erasing the volume, at each start",
    "bitlk": _OTHER_FORMAT,
    "fvault2": _OTHER_FORMAT,
    "tcrypt": _OTHER_FORMAT,
    "tcrypt-hidden": _OTHER_FORMAT,
    "tcrypthidden": _OTHER_FORMAT,
    "tcrypt-system": _OTHER_FORMAT,
    "tcrypt-veracrypt": _OTHER_FORMAT,
    "veracrypt": _OTHER_FORMAT,
    "tcrypt-keyfile": _OTHER_FORMAT,
    "veracrypt-pim": _OTHER_FORMAT,
    "loopaes": _OTHER_FORMAT,
    "verify": "asking for a passphrase twice",
    "keyfile-erase": "erasing a key file",
    "keyfile-timeout": "a key file on another device",
    "try-empty-password": "trying an empty passphrase",
    "link-volume-key": "the volume key never leaves the engine",
    "fixate-volume-key": "comparing the volume key with a fingerprint",
    "token-timeout": "hardware tokens",
    "keyscript": "running a program that prints the key",
    "check": _CHECKS,
    "checkargs": _CHECKS,
}

_REFUSED_PREFIXES: Final = ("pkcs11-", "fido2-", "tpm2-")

# Tuning of the kernel's own dm-crypt, ordering of units that systemd makes, Debian's initramfs and
# its init scripts' messages: nothing that a volume of ours would be different without.
_WITHOUT_EFFECT: Final = frozenset(
    {
        "same-cpu-crypt",
        "submit-from-crypt-cpus",
        "no-read-workqueue",
        "no-write-workqueue",
        "_netdev",
        "initramfs",
        "noearly",
        "loud",
        "quiet",
    }
)
