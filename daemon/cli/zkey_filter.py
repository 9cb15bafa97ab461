"""Which keys of the repository the options of a zkey command choose."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ...keystore.errors import ConfigError, FormatError
from ...keystore.repository import Repository
from ...keystore.repository_key import RepositoryKey
from ..config import Settings
from .arguments import Arguments


@dataclass(frozen=True, slots=True)
class Found:
    """The keys that fit, and why others cannot be looked at, by name."""

    keys: list[RepositoryKey]
    damaged: Mapping[str, FormatError]


def find_keys(args: Arguments, settings: Settings) -> list[RepositoryKey]:
    """The keys that fit all filters that are given: by name, volumes, adapters, types, and KMS.

    Raises:
        FormatError: one that may fit is damaged or incomplete.
        MapperError: as `find_whole_keys`.
    """
    found = find_whole_keys(args, settings)
    for error in found.damaged.values():
        raise error
    return found.keys


def find_whole_keys(args: Arguments, settings: Settings) -> Found:
    """The same, so that one damaged key does not keep the others from being seen.

    Raises:
        NotFoundError: a name without wildcards that no key has.
        FormatError: the key of that name is damaged or incomplete.
        MapperError: as `RepositoryDirectory.survey`.
    """
    name = args.text("name")
    whole, damaged = Repository(settings.zkey_repository).survey()
    keys = [
        key
        for key in whole
        if (name is None or fnmatch.fnmatchcase(key.name, name))
        and _has_volume(key, args.text("volumes"))
        and _has_apqn(key, args.text("apqns"))
        and args.options.get("volume-type", key.volume_type).lower() == key.volume_type
        and args.options.get("key-type", key.key_type).upper() == key.key_type
        and not (args.has("local") and key.kms)
        and (not args.has("kms-bound") or key.kms)
    ]
    if not keys and name is not None and not any(letter in name for letter in "*?["):
        Repository(settings.zkey_repository).get(name)  # says that it is not there, or damaged
    return Found(
        keys,
        {
            its: why
            for its, why in damaged.items()
            if name is None or fnmatch.fnmatchcase(its, name)
        },
    )


def fits_volume(volume: str, patterns: str) -> bool:
    """Whether one of some patterns, ``VOLUME`` or ``VOLUME:DMNAME``, fits ``VOLUME:DMNAME``.

    A path that is relative is meant from the working directory, as where volumes are set.
    """
    path, _, dm_name = volume.rpartition(":")
    for pattern in patterns.split(","):
        wanted, colon, wanted_name = (
            pattern.rpartition(":") if ":" in pattern else (pattern, "", "")
        )
        paths = (wanted, os.path.abspath(wanted))  # noqa: PTH100 - keeps symlinks
        if any(fnmatch.fnmatchcase(path, each) for each in paths) and (
            not colon or fnmatch.fnmatchcase(dm_name, wanted_name)
        ):
            return True
    return False


def _has_volume(key: RepositoryKey, wanted: str | None) -> bool:
    return wanted is None or any(fits_volume(volume, wanted) for volume in key.volumes)


def _has_apqn(key: RepositoryKey, wanted: str | None) -> bool:
    """Whether one of some patterns, ``CARD.DOMAIN`` with missing zeros, fits one of its APQNs."""
    if wanted is None:
        return True
    return any(
        fnmatch.fnmatchcase(apqn, _pad_apqn(pattern))
        for pattern in wanted.split(",")
        for apqn in key.apqns
    )


def _pad_apqn(pattern: str) -> str:
    card, dot, domain = pattern.lower().partition(".")
    if not dot:
        raise ConfigError(f"--apqns: got {pattern!r}; wanted: CARD.DOMAIN")
    return f"{_pad(card, 2)}.{_pad(domain, 4)}"


def _pad(digits: str, width: int) -> str:
    return digits if "*" in digits else digits.rjust(width, "0")
