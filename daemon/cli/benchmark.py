"""``benchmark``: how fast KDFs and ciphers are here, laid out as cryptsetup does."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ...dmcrypt.cipher_spec import CipherSpec
from ...dmcrypt.engine.client import Engine
from ...dmcrypt.engine.messages import KdfType
from ...dmcrypt.pbkdf import KDF_TYPES, PbkdfParams, make_kdf
from ...keystore.errors import ConfigError, EngineMemoryError, UnsupportedError
from ..config import Settings
from ..exitcodes import ExitCode
from .arguments import Arguments
from .output import Output
from .own_engine import run_engine

_MIB: Final = 1 << 20
_HASHES: Final = ("sha1", "sha256", "sha512", "ripemd160", "whirlpool")
_MEMORY_HARD: Final = ("argon2i", "argon2id")
#: cryptsetup's table: mode, bits of the key.
_ROWS: Final = (("cbc", 128), ("cbc", 256), ("xts", 256), ("xts", 512))
_CIPHERS: Final = ("aes", "serpent", "twofish")
#: What there is without an option (cryptsetup: DEFAULT_PLAIN_KEYBITS).
_KEY_BITS: Final = 256
_SECTOR_SIZE: Final = 4096
_CIPHER_MILLISECONDS: Final = 250  # for each direction
_PBKDF2_MILLISECONDS: Final = 1000  # what the iterations are counted for
_NOTE: Final = "# Tests are approximate using memory only (no storage IO)."
_LEAST_WIDTH: Final = 15
_LEAST_BAR: Final = 10


@dataclass(frozen=True, slots=True)
class CipherSpeed:
    """What one cipher does, in MiB/s of one thread."""

    name: str  # without its IV
    key_bits: int
    encryption: float
    decryption: float


def run(args: Arguments, _settings: Settings, output: Output) -> ExitCode:
    """Measure what the options name; without any, cryptsetup's table."""
    if (args.has("pbkdf") or args.has("hash")) and args.has("cipher"):
        raise ConfigError("--cipher: not with --pbkdf or --hash; wanted: one kind of test")
    key_bits = args.number("key-size") or _KEY_BITS
    if key_bits % 8:
        raise ConfigError(f"--key-size: {key_bits}; wanted: a multiple of 8")
    sector_size = args.number("sector-size") or _SECTOR_SIZE
    result: dict[str, object] = {}
    with run_engine() as engine:
        output.line(_NOTE)
        if args.has("pbkdf") or args.has("hash"):
            kind = args.text("pbkdf") or "pbkdf2"
            params = _make_params(args, kind, args.text("hash") or "sha256")
            result["kdfs"] = [_run_kdf(engine, params, key_bits, output)]
        elif (name := args.text("cipher")) is not None:
            speed = _measure(engine, name, key_bits, sector_size)
            result["ciphers"] = [_show(speed)]
            _print_one(speed, output)
        else:
            result["kdfs"] = [
                _run_kdf(engine, params, key_bits, output) for params in _list_kdfs(args)
            ]
            result["ciphers"] = _run_table(engine, sector_size, output)
    if "ciphers" in result:
        result["sector_size"] = sector_size
    output.json(result)
    return ExitCode.OK


def _make_params(args: Arguments, kind: str, hash_name: str) -> PbkdfParams:
    is_hard = kind in _MEMORY_HARD
    return PbkdfParams(
        type=kind,
        hash_name=hash_name,
        milliseconds=(args.number("iter-time") or 2000) if is_hard else _PBKDF2_MILLISECONDS,
        memory_kib=args.number("pbkdf-memory") if is_hard else None,
        parallel=args.number("pbkdf-parallel") if is_hard else None,
    )


def _list_kdfs(args: Arguments) -> Iterator[PbkdfParams]:
    for name in _HASHES:
        yield _make_params(args, "pbkdf2", name)
    for kind in _MEMORY_HARD:
        yield _make_params(args, kind, "sha256")


def _run_kdf(
    engine: Engine, params: PbkdfParams, key_bits: int, output: Output
) -> dict[str, object]:
    """Measure and print one KDF; what the machine cannot do is N/A, as with cryptsetup."""
    name = params.hash_name if params.type == "pbkdf2" else params.type
    shown: dict[str, object] = {"type": params.type, "key_bits": key_bits}
    if params.type == "pbkdf2":
        shown["hash"] = params.hash_name
    try:
        kdf = make_kdf(engine, params, key_bits // 8)
    except (UnsupportedError, EngineMemoryError):
        output.line(f"PBKDF2-{name:<9}     N/A" if params.type == "pbkdf2" else f"{name:<10} N/A")
        return shown
    if KDF_TYPES[params.type] is KdfType.PBKDF2:
        output.line(
            f"PBKDF2-{name:<9} {kdf.iterations:7} iterations per second for {key_bits}-bit key"
        )
        return {**shown, "iterations_per_second": kdf.iterations}
    output.line(
        f"{name:<10} {kdf.iterations:4} iterations, {kdf.memory_kib:5} memory, {kdf.lanes} "
        f"parallel threads (CPUs) for {key_bits}-bit key (requested {params.milliseconds} ms time)"
    )
    return {
        **shown,
        "iterations": kdf.iterations,
        "memory": kdf.memory_kib,
        "threads": kdf.lanes,
        "milliseconds": params.milliseconds,
    }


def _measure(engine: Engine, name: str, key_bits: int, sector_size: int) -> CipherSpeed:
    # cryptsetup's names here may lack the IV, which its test makes up as well.
    spec = CipherSpec.parse(name if name.count("-") > 1 else f"{name}-plain64").effective
    spec.check_key_size(key_bits // 8)
    spec.check_sector_size(sector_size)
    encryption, decryption = engine.benchmark_cipher(
        spec.dm_name,
        key_size=key_bits // 8,
        sector_size=sector_size,
        milliseconds=_CIPHER_MILLISECONDS,
    )
    short = "-".join(name.split("-")[:2])
    return CipherSpeed(short, key_bits, encryption / _MIB, decryption / _MIB)


def _run_table(engine: Engine, sector_size: int, output: Output) -> list[dict[str, object]]:
    output.line(_head(_LEAST_WIDTH))
    speeds: list[CipherSpeed] = []
    for mode, key_bits in _ROWS:
        for cipher in _CIPHERS:
            speed = _measure(engine, f"{cipher}-{mode}", key_bits, sector_size)
            speeds.append(speed)
            output.line(_row(speed, _LEAST_WIDTH))
    if output.json_mode == "off" and sys.stdout.isatty():
        for line in draw_chart(speeds, shutil.get_terminal_size().columns):
            output.line(line)
    return [_show(speed) for speed in speeds]


def _print_one(speed: CipherSpeed, output: Output) -> None:
    width = max(_LEAST_WIDTH, len(speed.name))
    output.line(_head(width))
    output.line(_row(speed, width))


def _head(width: int) -> str:
    return f"#{'Algorithm':>{width - 1}} |       Key |      Encryption |      Decryption"


def _row(speed: CipherSpeed, width: int) -> str:
    return (
        f"{speed.name:>{width}}  {speed.key_bits:9}b  {speed.encryption:10.1f} MiB/s"
        f"  {speed.decryption:10.1f} MiB/s"
    )


def _show(speed: CipherSpeed) -> dict[str, object]:
    return {
        "cipher": speed.name,
        "key_bits": speed.key_bits,
        "encryption": round(speed.encryption, 1),
        "decryption": round(speed.decryption, 1),
    }


def draw_chart(speeds: list[CipherSpeed], columns: int) -> list[str]:
    """Bars, one for each direction, the fastest as long as the line leaves room for."""
    labels = [f"{speed.name} {speed.key_bits}b" for speed in speeds]
    width = max(map(len, labels))
    room = max(columns - width - len("  encrypt   99999"), _LEAST_BAR)
    most = max(max(speed.encryption, speed.decryption) for speed in speeds)
    lines = [""]
    for label, speed in zip(labels, speeds, strict=True):
        for name, what, value in (
            (label, "encrypt", speed.encryption),
            ("", "decrypt", speed.decryption),
        ):
            bar = "#" * max(1, round(value / most * room))
            lines.append(f"{name:>{width}}  {what} {bar} {value:.0f}")
    return lines
