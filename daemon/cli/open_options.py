"""The options of ``open`` that say what kind of volume it is."""

from __future__ import annotations

from typing import Final, Literal

from ...dmcrypt.units import ENCRYPTION_SECTOR_SIZES, SECTOR_SIZE
from ...keystore.errors import ConfigError, UnsupportedError
from ..control.messages import PlainOptions
from .arguments import Arguments
from .key_input import KeyOptions
from .output import Output

_PLAIN_ONLY: Final = (
    "cipher",
    "key-size",
    "hash",
    "offset",
    "skip",
    "size",
    "device-size",
    "sector-size",
    "iv-large-sectors",
)
_LUKS_ONLY: Final = ("header", "key-slot", "volume-key-file", "test-passphrase")
_OTHER_TYPES: Final = frozenset({"luks1", "loopaes", "tcrypt", "bitlk", "fvault2"})
_DEFAULTS: Final = (
    "defaults differ and a wrong guess destroys data: cryptsetup before 2.7 takes"
    " --cipher aes-cbc-essiv:sha256 --key-size 256 --hash ripemd160, later ones"
    " --cipher aes-xts-plain64 --key-size 256 --hash sha256"
)


def parse_type(text: str | None) -> Literal["luks", "luks2", "plain"]:
    """The kind of volume that ``--type`` names; LUKS when it is not given.

    Raises:
        UnsupportedError: a kind that cryptsetup has and we do not.
        ConfigError: anything else.
    """
    match text:
        case None | "luks":
            return "luks"
        case "luks2":
            return "luks2"
        case "plain":
            return "plain"
        case other if other in _OTHER_TYPES:
            raise UnsupportedError(f"--type {other}: not supported; wanted: luks2 or plain")
        case other:
            raise ConfigError(f"--type: got {other!r}; wanted: luks, luks2 or plain")


def check_luks_options(args: Arguments) -> None:
    """Refuse what only a volume without a header needs.

    Raises:
        ConfigError: naming the option.
    """
    for name in _PLAIN_ONLY:
        if args.has(name):
            raise ConfigError(f"--{name}: only for --type plain; the LUKS header decides")
    if args.has("volume-key-file") and args.has("key-file"):
        raise ConfigError("--key-file: not with --volume-key-file, which needs no passphrase")


def make_plain_options(args: Arguments, key: KeyOptions, output: Output) -> PlainOptions:
    """The parameters of a plain volume.

    Raises:
        ConfigError: one that is missing or wrong.
    """
    for name in _LUKS_ONLY:
        if args.has(name):
            raise ConfigError(f"--{name}: not for --type plain, which has no header")
    cipher, key_bits = args.text("cipher"), args.number("key-size")
    missing = [
        f"--{name}" for name, value in (("cipher", cipher), ("key-size", key_bits)) if not value
    ]
    if not key.is_file and not args.has("hash"):
        missing.append("--hash")
    if missing or not cipher or not key_bits:
        raise ConfigError(f"--type plain without {', '.join(missing)}: {_DEFAULTS}")
    if key_bits % 8:
        raise ConfigError(f"--key-size: got {key_bits}; wanted: a multiple of 8")
    hash_name, hash_length = _parse_hash(args.text("hash"))
    if key.is_file:
        if hash_name not in {None, "plain"} and not output.is_quiet:
            output.warn("--hash is ignored: in plain mode a key file is not hashed")
        if args.has("keyfile-size") and not output.is_quiet:
            output.warn("--keyfile-size is ignored: in plain mode as much is read as the key has")
        hash_name, hash_length = None, 0
    sector_size = args.number("sector-size") or SECTOR_SIZE
    if sector_size not in ENCRYPTION_SECTOR_SIZES:
        raise ConfigError(f"--sector-size: got {sector_size}; wanted: 512, 1024, 2048 or 4096")
    if args.has("iv-large-sectors") and sector_size == SECTOR_SIZE:
        raise ConfigError("--iv-large-sectors: wanted: with --sector-size above 512")
    return PlainOptions(
        cipher=cipher,
        key_bits=key_bits,
        hash=hash_name,
        hash_length=hash_length,
        offset=args.number("offset") or 0,
        skip=args.number("skip") or 0,
        size=_parse_size(args),
        sector_size=sector_size,
        iv_large_sectors=args.has("iv-large-sectors"),
    )


def _parse_hash(text: str | None) -> tuple[str | None, int]:
    """``NAME`` or ``NAME:BYTES``."""
    if text is None:
        return None, 0
    name, colon, length = text.partition(":")
    if not name or (colon and not (length.isascii() and length.isdigit() and int(length) > 0)):
        raise ConfigError(f"--hash: got {text!r}; wanted: NAME or NAME:BYTES")
    return name, int(length) if colon else 0


def _parse_size(args: Arguments) -> int | None:
    sectors, size = args.number("size"), args.size("device-size")
    if sectors is not None and size is not None:
        raise ConfigError("--size and --device-size: wanted: one of them")
    if size is None:
        return sectors or None  # as cryptsetup: 0 is the whole device
    if size % SECTOR_SIZE:
        raise ConfigError(f"--device-size: {size} bytes; wanted: a multiple of {SECTOR_SIZE}")
    return size // SECTOR_SIZE or None
