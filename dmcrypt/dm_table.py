"""Tables as dmsetup takes and shows them: text to values, values to text, without any key.

Source: Linux Documentation/admin-guide/device-mapper/{dm-crypt,linear,zero}.rst; drivers/md/
dm-crypt.c (crypt_ctr, crypt_ctr_optional, crypt_status), dm-linear.c, dm-table.c
(dm_table_add_target); dmsetup(8).
Where a key stands in a table, the text that is read here has ``:SIZE:``, its length in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..keystore.errors import ConfigError, UnsupportedError
from .cipher_spec import CipherSpec
from .engine.messages import SEGMENTS_MAX, TargetKind
from .units import ENCRYPTION_SECTOR_SIZES, NO_SECTORS, SECTOR_SIZE, UINT64_MAX, Sector

TARGETS: Final = {
    "crypt": TargetKind.CRYPT,
    "linear": TargetKind.LINEAR,
    "zero": TargetKind.ZERO,
    "error": TargetKind.ERROR,
}
#: Options that only say how the kernel shares out the work.
NO_OPERATIONS: Final = (
    "same_cpu_crypt",
    "submit_from_crypt_cpus",
    "no_read_workqueue",
    "no_write_workqueue",
)
_SECTOR_SIZE_OPTION: Final = "sector_size:"
_OPTIONS: Final = ("allow_discards", "iv_large_sectors", *NO_OPERATIONS)
_KEY: Final = re.compile(r":([0-9]{1,5}):")
#: What dm can name.
_SECTORS_MAX: Final = UINT64_MAX // SECTOR_SIZE


@dataclass(frozen=True, slots=True)
class TableLine:
    """One target; all numbers in 512-byte sectors but those that say otherwise."""

    start: int
    length: int
    target: TargetKind
    device: str = ""  # as it was written; empty: none
    offset: int = 0  # in it
    cipher: CipherSpec | None = None
    key_size: int = 0  # bytes
    iv_offset: Sector = NO_SECTORS
    sector_size: int = SECTOR_SIZE  # bytes
    iv_large_sectors: bool = False
    allow_discards: bool = False
    options: tuple[str, ...] = ()  # as they were written

    def format(self, key: str) -> str:
        """As ``dmsetup table`` shows it, with ``key`` in the key's place."""
        words: list[object] = [self.start, self.length, self.target.name.lower()]
        if self.cipher is not None:
            words += [self.cipher.dm_name, key, self.iv_offset]
        if self.device:
            words += [self.device, self.offset]
        if self.options:
            words += [len(self.options), *self.options]
        return " ".join(map(str, words))


def parse_table(lines: Sequence[str]) -> tuple[TableLine, ...]:
    """The targets of a device, which follow each other without gaps.

    Raises:
        ConfigError: what the device mapper refuses; says in which line.
        UnsupportedError: a target, cipher or option that we do not have.
    """
    if not 0 < len(lines) <= SEGMENTS_MAX:
        raise ConfigError(f"table: {len(lines)} lines; wanted 1 to {SEGMENTS_MAX}")
    table: list[TableLine] = []
    at = 0
    for number, text in enumerate(lines, 1):
        try:
            line = parse_line(text)
        except (ConfigError, UnsupportedError) as error:
            raise type(error)(f"line {number}: {error}") from None
        if line.start != at:
            raise ConfigError(f"line {number}: starts at {line.start}, wanted {at}: no gaps")
        at += line.length
        table.append(line)
    if at > _SECTORS_MAX:
        raise ConfigError(f"table: {at} sectors do not fit 64 bits of bytes")
    _check_sector_sizes(table)
    return tuple(table)


def parse_line(text: str) -> TableLine:
    """One target.

    Raises:
        ConfigError, UnsupportedError: as `parse_table`.
    """
    words = text.split()
    if len(words) < 3:
        raise ConfigError("wanted START LENGTH TARGET …")
    start, length = _number("start", words[0]), _number("length", words[1])
    if length == 0:
        raise ConfigError("length 0: wanted at least one sector")
    target = TARGETS.get(words[2])
    if target is None:
        raise UnsupportedError(f"target {words[2]}: not supported, only {', '.join(TARGETS)}")
    arguments = words[3:]
    if target is TargetKind.CRYPT:
        return _parse_crypt(start, length, arguments)
    if target is TargetKind.LINEAR:
        if len(arguments) != 2:
            raise ConfigError("linear: wanted DEVICE OFFSET")
        return TableLine(start, length, target, arguments[0], _number("offset", arguments[1]))
    if arguments:
        raise ConfigError(f"{words[2]}: takes no arguments, got {len(arguments)}")
    return TableLine(start, length, target)


def _parse_crypt(start: int, length: int, words: Sequence[str]) -> TableLine:
    if len(words) < 5:
        raise ConfigError("crypt: wanted CIPHER KEY IVOFFSET DEVICE OFFSET")
    cipher = CipherSpec.parse(words[0])
    key_size = _parse_key(words[1])
    cipher.check_key_size(key_size)
    if cipher.is_null and key_size:
        raise ConfigError(f"cipher {cipher.dm_name}: takes no key, wanted -")
    iv_offset = Sector(_number("IV offset", words[2], most=UINT64_MAX))
    offset = _number("offset", words[4])
    options = _parse_options(words[5:])
    sector_size = _find_sector_size(options)
    cipher.check_sector_size(sector_size)
    unit = sector_size // SECTOR_SIZE
    for what, amount in (("length", length), ("IV offset", iv_offset)):
        if amount % unit:
            raise ConfigError(f"{what} {amount}: not a multiple of sector_size {sector_size}")
    return TableLine(
        start=start,
        length=length,
        target=TargetKind.CRYPT,
        device=words[3],
        offset=offset,
        cipher=cipher,
        key_size=key_size,
        iv_offset=iv_offset,
        sector_size=sector_size,
        iv_large_sectors="iv_large_sectors" in options,
        allow_discards="allow_discards" in options,
        options=options,
    )


def _parse_key(word: str) -> int:
    """Bytes of the key."""
    if word == "-":
        return 0
    match = _KEY.fullmatch(word)
    if match is not None:
        return int(match[1])
    if word.startswith(":"):
        raise UnsupportedError(
            "a key of the kernel's keyring is not supported: only the kernel has it"
        )
    raise ConfigError("key: wanted hexadecimal digits, two a byte")


def _parse_options(words: Sequence[str]) -> tuple[str, ...]:
    """The optional parameters, each of which is one that we have."""
    if not words:
        return ()
    count = _number("number of options", words[0])
    if count != len(words) - 1:
        raise ConfigError(f"{count} options announced, {len(words) - 1} given")
    for option in words[1:]:
        name = option.partition(":")[0]
        if name in ("integrity", "integrity_key_size"):
            raise UnsupportedError(f"{name}: not supported: it needs a place beside each sector")
        if not option.startswith(_SECTOR_SIZE_OPTION) and option not in _OPTIONS:
            raise UnsupportedError(f"option {option}: not supported")
    return tuple(words[1:])


def _find_sector_size(options: Sequence[str]) -> int:
    """Bytes, as the last option about it says."""
    size = SECTOR_SIZE
    for option in options:
        if option.startswith(_SECTOR_SIZE_OPTION):
            size = _number("sector_size", option.removeprefix(_SECTOR_SIZE_OPTION))
            if size not in ENCRYPTION_SECTOR_SIZES:
                raise ConfigError(f"{option}: wanted 512, 1024, 2048 or 4096")
    return size


def _number(what: str, text: str, *, most: int = _SECTORS_MAX) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > most:
        raise ConfigError(f"{what} {text}: wanted a number up to {most}")
    return int(text)


def _check_sector_sizes(table: Sequence[TableLine]) -> None:
    """A device has one; the others' ends must not cut its sectors."""
    sizes = {line.sector_size for line in table if line.cipher is not None}
    if len(sizes) > 1:
        raise UnsupportedError("crypt targets of several sector sizes in one table: not supported")
    unit = max(sizes, default=SECTOR_SIZE) // SECTOR_SIZE
    for number, line in enumerate(table, 1):
        if line.length % unit:
            raise UnsupportedError(
                f"line {number}: length {line.length}: not supported beside sectors of "
                f"{unit * SECTOR_SIZE} bytes, of which it is no multiple"
            )
