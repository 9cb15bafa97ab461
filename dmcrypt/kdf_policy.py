"""What a header may ask of a KDF: checked before a passphrase is tried, and before memory is taken.

A header is anybody's bytes; without a bound one of a few hundred bytes keeps a processor busy for
days. Each bound is far above what formatting with --iter-time of a minute gives on any machine.
How much memory Argon2 may take is the engine's to refuse (kdf.c), which knows the setting.
"""

from __future__ import annotations

from typing import Final

from ..keystore.errors import PolicyError

#: About ten minutes of PBKDF2 with SHA-256.
PBKDF2_ITERATIONS_MAX: Final = 1 << 30
ARGON2_LANES_MAX: Final = 64
#: KiB times passes: 1 TiB, about ten minutes.
ARGON2_WORK_MAX: Final = 1 << 30


def check_pbkdf2(path: str, iterations: int) -> None:
    """Refuse PBKDF2 that takes too long.

    Raises:
        PolicyError: naming the field.
    """
    if iterations > PBKDF2_ITERATIONS_MAX:
        raise PolicyError(
            f"{path}.iterations: got {iterations}, policy allows {PBKDF2_ITERATIONS_MAX}"
        )


def check_argon2(path: str, *, passes: int, memory_kib: int, lanes: int) -> None:
    """Refuse Argon2 that takes too long, or too many threads.

    Raises:
        PolicyError: naming the field.
    """
    if lanes > ARGON2_LANES_MAX:
        raise PolicyError(f"{path}.cpus: got {lanes}, policy allows {ARGON2_LANES_MAX}")
    if passes * memory_kib > ARGON2_WORK_MAX:
        raise PolicyError(
            f"{path}.time: got {passes} passes over {memory_kib} KiB, policy allows "
            f"{ARGON2_WORK_MAX // memory_kib}"
        )
