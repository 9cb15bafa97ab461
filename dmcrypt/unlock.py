"""The volume key of a header of either LUKS: found by trying keyslots, or given and compared."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..keystore.errors import (
    ConfigError,
    DigestMismatchError,
    EngineMemoryError,
    FormatError,
    MapperError,
    NoKeyError,
    PolicyError,
    UnlockError,
    UnsupportedError,
)
from ..keystore.keys import ProtectedKey
from .engine.client import Engine
from .engine.messages import DigestSpec


class NoKeyslotError(ConfigError, UnlockError):
    """No passphrase at all can open the volume; cryptsetup ends with 1, not 2."""


def try_keyslots(
    numbers: Iterable[int], open_keyslot: Callable[[int], ProtectedKey]
) -> tuple[ProtectedKey, int]:
    """The key of the first keyslot that opens, and the number of that keyslot.

    A keyslot that is damaged or too costly does not keep the others from being tried.

    Raises:
        NoKeyError: none opens, and nothing was wrong with any of them.
        FormatError, UnsupportedError, PolicyError, EngineMemoryError, ConfigError: none opens, and
            this was wrong with the first that could not be tried.
    """
    failure: MapperError | None = None
    for number in numbers:
        try:
            return open_keyslot(number), number
        except NoKeyError:
            continue
        except (
            FormatError,
            UnsupportedError,
            PolicyError,
            EngineMemoryError,
            ConfigError,
        ) as error:
            failure = failure or type(error)(f"keyslot {number}: {error}")
    raise failure or NoKeyError("no key available with this passphrase")


def check_volume_key(engine: Engine, key: ProtectedKey, digest: DigestSpec) -> None:
    """Compare a volume key that was given with the digest of a header.

    Raises:
        DigestMismatchError: it is not this volume's key.
    """
    made = engine.make_digest(key, replace(digest, digest=b""))
    if not hmac.compare_digest(made, digest.digest):
        raise DigestMismatchError("volume key does not match the volume")
