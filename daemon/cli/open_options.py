"""The options of ``open`` that say what kind of volume it is."""

from __future__ import annotations

from typing import Final

from ...dmcrypt.loopaes import DEFAULT_CIPHER, DEFAULT_KEY_BITS, LoopaesParams
from ...dmcrypt.plain import HASH_IGNORED, KEYFILE_SIZE_IGNORED, PlainParams, make_params
from ...dmcrypt.units import SECTOR_SIZE
from ...keystore.errors import ConfigError, UnsupportedError
from ..control.messages import PlainOptions, VolumeType
from .arguments import Arguments
from .data_size import parse_data_size
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
_LUKS_ONLY: Final = (
    "header",
    "key-slot",
    "volume-key-file",
    "test-passphrase",
    "unbound",
    "persistent",
    "serialize-memory-hard-pbkdf",
    "token-id",
    "token-type",
    "token-only",
)
_NOT_OF_LOOPAES: Final = (
    *_LUKS_ONLY,
    "size",
    "device-size",
    "sector-size",
    "iv-large-sectors",
    "shared",
    "verify-passphrase",
)
_OTHER_TYPES: Final = frozenset({"tcrypt", "bitlk", "fvault2"})


def parse_type(text: str | None) -> VolumeType:
    """The kind of volume that ``--type`` names; LUKS when it is not given.

    Raises:
        UnsupportedError: a kind that cryptsetup has and we do not.
        ConfigError: anything else.
    """
    match text:
        case None:
            return "luks"
        case "luks" | "luks1" | "luks2" | "plain" | "loopaes":
            return text
        case other if other in _OTHER_TYPES:
            raise UnsupportedError(
                f"--type {other}: not supported; wanted: luks1, luks2, plain or loopaes"
            )
        case other:
            raise ConfigError(
                f"--type: got {other!r}; wanted: luks, luks1, luks2, plain or loopaes"
            )


def check_luks_options(args: Arguments) -> None:
    """Refuse what only a volume without a header needs.

    Raises:
        ConfigError: naming the option.
    """
    for name in _PLAIN_ONLY:
        if args.has(name):
            raise ConfigError(f"--{name}: only for --type plain; the LUKS header decides")
    if args.has("shared"):
        raise ConfigError("--shared: only for --type plain")
    if args.has("persistent") and args.has("test-passphrase"):
        raise ConfigError("--persistent: not with --test-passphrase, which changes nothing")
    if args.has("unbound") and not args.has("test-passphrase"):
        raise ConfigError("--unbound: only with --test-passphrase: such a key opens no volume")
    if args.has("volume-key-file") and args.has("key-file"):
        raise ConfigError("--key-file: not with --volume-key-file, which needs no passphrase")


def make_plain_params(args: Arguments, key: KeyOptions, output: Output) -> PlainParams:
    """The parameters of a plain volume.

    Raises:
        ConfigError: one that is missing or wrong.
        UnsupportedError: a cipher that we do not serve.
    """
    for name in _LUKS_ONLY:
        if args.has(name):
            raise ConfigError(f"--{name}: not for --type plain, which has no header")
    if key.is_file and not output.is_quiet:
        if args.text("hash") not in {None, "plain"}:
            output.warn(HASH_IGNORED)
        if args.has("keyfile-size"):
            output.warn(KEYFILE_SIZE_IGNORED)
    size = parse_data_size(args)
    return make_params(
        cipher=args.text("cipher"),
        key_bits=args.number("key-size"),
        hash_spec=args.text("hash"),
        has_keyfile=key.is_file,
        offset=args.number("offset") or 0,
        skip=args.number("skip") or 0,
        size=size and size // SECTOR_SIZE,
        sector_size=args.number("sector-size") or SECTOR_SIZE,
        iv_large_sectors=args.has("iv-large-sectors"),
    )


def make_loopaes_params(args: Arguments, key: KeyOptions) -> LoopaesParams:
    """The parameters of a loop-AES volume.

    Raises:
        ConfigError: one that is missing or wrong.
        UnsupportedError: a cipher that we do not serve.
    """
    for name in _NOT_OF_LOOPAES:
        if args.has(name):
            raise ConfigError(f"--{name}: not for --type loopaes")
    if key.key_file is None:
        raise ConfigError("--type loopaes: --key-file is required; - is standard input")
    offset = args.number("offset") or 0
    skip = args.number("skip")
    return LoopaesParams(
        cipher=args.text("cipher") or DEFAULT_CIPHER,
        key_bits=args.number("key-size") or DEFAULT_KEY_BITS,
        hash_name=args.text("hash") or "",
        offset=offset,
        skip=offset if skip is None else skip,  # as cryptsetup
    )


def pack_params(params: PlainParams | LoopaesParams) -> PlainOptions:
    """The parameters for the daemon."""
    if isinstance(params, LoopaesParams):
        return PlainOptions(
            cipher=params.cipher,
            key_bits=params.key_bits,
            hash=params.hash_name or None,
            offset=params.offset,
            skip=params.skip,
        )
    return PlainOptions(
        cipher=params.cipher,
        key_bits=params.key_bits,
        hash=params.hash_name,
        hash_length=params.hash_length,
        offset=params.offset,
        skip=params.skip,
        size=params.size,
        sector_size=params.sector_size,
        iv_large_sectors=params.iv_large_sectors,
    )
