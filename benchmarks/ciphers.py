"""Throughput of the engine's ciphers beside libgcrypt's own, on one core, in memory.

For what libgcrypt has not got (lrw, pcbc, lmk, tcw, elephant, Adiantum) the peer is what it is made
of, or its nearest relation: its speed is a bound, not a goal.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import BenchmarkError

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "dmcrypt" / "engine" / "src"
PROGRAM = Path(__file__).resolve().parent / "cipher_speed.c"
#: What the engine promises of libgcrypt's speed, where that has the mode.
PROMISE = 0.9


@dataclass(frozen=True)
class Case:
    """A cipher of ours, and its peer in libgcrypt."""

    spec: str
    key_size: int  # bytes
    algorithm: str
    mode: str
    sector_sizes: tuple[int, ...] = (512, 4096)
    note: str = ""  # why the peer is not the same; then there is no promise


CASES = (
    Case("aes-xts-plain64", 64, "AES256", "xts"),
    Case("aes-xts-plain64", 32, "AES128", "xts"),
    Case("aes-cbc-plain64", 32, "AES256", "cbc"),
    Case("aes-cbc-essiv:sha256", 32, "AES256", "cbc", note="CBC, whose IVs need no cipher"),
    Case("aes-ctr-plain64", 32, "AES256", "ctr"),
    Case("aes-ecb", 32, "AES256", "ecb"),
    Case("serpent-xts-plain64", 64, "SERPENT256", "xts"),
    Case("serpent-cbc-plain64", 32, "SERPENT256", "cbc"),
    Case("serpent-cbc-essiv:sha256", 32, "SERPENT256", "cbc", note="CBC, whose IVs need no cipher"),
    Case("twofish-xts-plain64", 64, "TWOFISH", "xts"),
    Case("camellia-xts-plain64", 64, "CAMELLIA256", "xts"),
    Case("cast5-cbc-plain64", 16, "CAST5", "cbc"),
    Case("blowfish-cbc-plain64", 16, "BLOWFISH", "cbc"),
    Case("des3_ede-cbc-plain64", 24, "3DES", "cbc"),
    Case("des-cbc-plain64", 8, "DES", "cbc"),
    Case("aes-lrw-benbi", 48, "AES256", "xts", note="XTS, which libgcrypt has in assembly"),
    Case("aes-pcbc-plain64", 32, "AES256", "cbc", note="CBC"),
    Case("aes:64-cbc-lmk", 1040, "AES128", "cbc", (512,), note="CBC without lmk's MD5"),
    Case("aes-cbc-tcw", 64, "AES256", "cbc", (512,), note="CBC without tcw's whitening"),
    Case("aes-cbc-elephant", 64, "AES256", "cbc", note="CBC without the diffuser"),
    Case("xchacha20,aes-adiantum-plain64", 32, "CHACHA20", "stream", note="ChaCha20 alone"),
)


@dataclass(frozen=True)
class Speed:
    """MB/s of one case with one sector size."""

    case: Case
    sector_size: int
    ours: tuple[float, float]  # enciphering, deciphering
    peer: tuple[float, float]

    @property
    def ratio(self) -> float:
        """Of ours to the peer's, in the worse direction."""
        return min(mine / theirs for mine, theirs in zip(self.ours, self.peer, strict=True))

    @property
    def is_kept(self) -> bool | None:
        """Whether the promise is kept; None where there is none."""
        return None if self.case.note else self.ratio >= PROMISE


def measure(directory: Path, *, milliseconds: int) -> list[Speed]:
    """All cases, ``milliseconds`` for each.

    Raises:
        BenchmarkError: the program could not be built, or failed.
    """
    program = directory / "cipher_speed"
    _run(
        "cc", "-std=gnu17", "-O2", "-D_GNU_SOURCE", "-pthread", f"-I{SOURCES}", "-o", program,
        PROGRAM, *sorted(SOURCES.glob("*.c")), "-lgcrypt", "-largon2",
    )  # fmt: skip
    speeds: list[Speed] = []
    for case in CASES:
        for size in case.sector_sizes:
            words = (case.spec, case.key_size, size, case.algorithm, case.mode, milliseconds)
            numbers = [float(word) for word in _run(program, *words).split()]
            speeds.append(Speed(case, size, (numbers[0], numbers[1]), (numbers[2], numbers[3])))
    return speeds


def as_text(speeds: Sequence[Speed]) -> str:
    """A table, in Markdown, that reads as well without."""
    head = ("cipher", "key", "sector", "enciphers, MB/s", "deciphers", "libgcrypt", "", "ratio", "")
    lines = [f"| {' | '.join(head)} |", "|---|---:|---:|---:|---:|---:|---:|---:|---|"]
    for speed in speeds:
        case = speed.case
        kept = {True: "kept", False: "MISSED", None: f"peer: {case.note}"}[speed.is_kept]
        cells = (*speed.ours, *speed.peer)
        lines.append(
            f"| {case.spec} | {case.key_size * 8} | {speed.sector_size} | "
            + " | ".join(f"{cell:.0f}" for cell in cells)
            + f" | {speed.ratio:.2f} | {kept} |"
        )
    return "\n".join(lines)


def as_json(speeds: Sequence[Speed]) -> list[dict[str, object]]:
    """All figures."""
    return [
        {
            "cipher": speed.case.spec,
            "key_bits": speed.case.key_size * 8,
            "sector_size": speed.sector_size,
            "ours": speed.ours,
            "libgcrypt": speed.peer,
            "ratio": round(speed.ratio, 3),
            "kept": speed.is_kept,
        }
        for speed in speeds
    ]


def _run(*words: object) -> str:
    try:
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BenchmarkError(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        raise BenchmarkError(f"{words[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout
