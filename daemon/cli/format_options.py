"""What ``luksFormat`` was asked for: options to the parameters of a LUKS1 or LUKS2 volume."""

from __future__ import annotations

from typing import Final

from ...dmcrypt.cipher_spec import CipherSpec
from ...dmcrypt.luks1.format import FormatParams as Luks1Params
from ...dmcrypt.luks2.format import FormatParams as Luks2Params
from ...dmcrypt.pbkdf import PbkdfParams
from ...dmcrypt.units import SECTOR_SIZE
from ...keystore.errors import ConfigError, PolicyError
from .arguments import Arguments
from .open_options import parse_type
from .source import open_parameter

Params = Luks1Params | Luks2Params

_DEFAULTS: Final = Luks2Params()
_DEFAULT_PBKDF: Final = PbkdfParams()
#: What a LUKS1 header has no place for.
_LUKS2_ONLY: Final = (
    "label",
    "subsystem",
    "pbkdf-memory",
    "pbkdf-parallel",
    "luks2-metadata-size",
    "luks2-keyslots-size",
    "keyslot-cipher",
    "keyslot-key-size",
)


def make_params(args: Arguments) -> Params:
    """The parameters of the volume.

    Raises:
        ConfigError, UnsupportedError: an option that is wrong, or not for this type of volume.
        PolicyError: a weak cipher, and nobody said that it is wanted.
    """
    kind = parse_type(args.text("type"))
    if kind in ("plain", "loopaes"):
        raise ConfigError(f"--type {kind}: has no header; wanted: luks1 or luks2")
    args.refuse_both("offset", "align-payload")
    args.refuse_both("iter-time", "pbkdf-force-iterations")
    params = _make_luks1(args) if kind == "luks1" else _make_luks2(args)
    _check_weakness(params.spec, is_wanted=args.has("force-weak"))
    return params


def _check_weakness(spec: CipherSpec, *, is_wanted: bool) -> None:
    if spec.weakness and not is_wanted:
        raise PolicyError(f"cipher {spec.dm_name}: {spec.weakness}; --force-weak takes it anyway")


def _make_luks1(args: Arguments) -> Luks1Params:
    for name in _LUKS2_ONLY:
        if args.has(name):
            raise ConfigError(f"--{name}: not for --type luks1, which has no such thing")
    if args.number("sector-size") not in (None, SECTOR_SIZE):
        raise ConfigError(f"--sector-size: not for --type luks1, whose sectors have {SECTOR_SIZE}")
    return Luks1Params(
        cipher=args.text("cipher") or _DEFAULTS.cipher,
        key_bits=args.number("key-size"),
        pbkdf=_make_pbkdf(args, "pbkdf2"),
        key_slot=args.number("key-slot") or 0,
        uuid=args.text("uuid"),
        offset=args.number("offset"),
        alignment=args.number("align-payload"),
    )


def _make_luks2(args: Arguments) -> Luks2Params:
    cipher = args.text("cipher") or _DEFAULTS.cipher
    return Luks2Params(
        cipher=cipher,
        key_bits=args.number("key-size") or _get_secure_key_bits(cipher, args),
        sector_size=args.number("sector-size"),
        pbkdf=_make_pbkdf(args, _DEFAULT_PBKDF.type),
        key_slot=args.number("key-slot") or 0,
        uuid=args.text("uuid"),
        label=args.text("label") or "",
        subsystem=args.text("subsystem") or "",
        offset=args.number("offset"),
        alignment=args.number("align-payload"),
        metadata_size=args.size("luks2-metadata-size"),
        keyslots_size=args.size("luks2-keyslots-size"),
        area_cipher=args.text("keyslot-cipher"),
        area_key_bits=args.number("keyslot-key-size"),
    )


def _make_pbkdf(args: Arguments, default: str) -> PbkdfParams:
    return PbkdfParams(
        type=args.text("pbkdf") or default,
        hash_name=(args.text("hash") or _DEFAULT_PBKDF.hash_name).lower(),
        milliseconds=args.number("iter-time") or _DEFAULT_PBKDF.milliseconds,
        iterations=args.number("pbkdf-force-iterations"),
        memory_kib=args.number("pbkdf-memory"),
        parallel=args.number("pbkdf-parallel"),
    )


def _get_secure_key_bits(cipher: str, args: Arguments) -> int | None:
    """Of paes the size of its secure key, lest only the beginning of one is taken."""
    if not CipherSpec.parse(cipher).takes_secure_keys:
        return None
    path = args.text("volume-key-file")
    if path is None:
        raise ConfigError(
            f"--cipher {cipher}: wanted --volume-key-file, a secure key (fusecrypt zkey generate)"
        )
    with open_parameter(path, "volume key file") as file:
        return file.size * 8
