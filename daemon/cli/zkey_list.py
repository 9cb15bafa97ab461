"""``fusecrypt zkey list`` and ``zkey validate``."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence

from ...keystore.coprocessor import Register
from ...keystore.errors import (
    ConfigError,
    FormatError,
    MasterKeyChangedError,
)
from ...keystore.keys import SecureKey
from ...keystore.repository import Repository, RepositoryKey
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .output import Output
from .secure_key_file import read_secure_key
from .zkey_record import (
    Finding,
    describe_key,
    describe_secure_key,
    format_file,
    format_record,
)

_OLD_WARNING = (
    "The secure key is currently enciphered with the OLD master key. To mitigate the danger of data"
    " loss re-encipher it with the CURRENT master key"
)


def run_list(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Keys of the repository that match all filters."""
    described: list[dict[str, object]] = []
    for key in _find_keys(args, settings):
        secure_key = key.secure_key
        described.append(describe_key(key, secure_key, None))
        for line in format_record(key, secure_key, None):
            output.line(line)
    output.json({"keys": described})
    return ExitCode.OK


def run_validate(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """What adapters can use; status 1 if there is a key that none can."""
    keystore = Keystore(settings)
    if args.positionals:
        for name in ("name", "apqns"):
            if args.has(name):
                raise ConfigError(f"--{name}: only for keys of the repository, without a file name")
        return _validate_file(args.positionals[0], keystore, output)
    return _validate_repository(_find_keys(args, settings), keystore, output)


def _validate_file(path: str, keystore: Keystore, output: Output) -> ExitCode:
    try:
        secure_key = read_secure_key(path)
        finding = _validate(keystore, secure_key)
    except FormatError as error:
        raise ConfigError(f"the secure key in file '{path}' is not valid: {error}") from None
    if finding.validation is None:
        raise ConfigError(f"the secure key in file '{path}' is not valid: {finding.reason}")
    output.json({"file": path, **describe_secure_key(secure_key, finding)})
    for line in format_file(path, secure_key, finding):
        output.line(line)
    if finding.validation.register is Register.OLD:
        output.warn(_OLD_WARNING)
    return ExitCode.OK


def _validate_repository(
    keys: Sequence[RepositoryKey], keystore: Keystore, output: Output
) -> ExitCode:
    described: list[dict[str, object]] = []
    invalid = warnings = 0
    for key in keys:
        secure_key = key.secure_key
        finding = _validate(keystore, secure_key)
        described.append(describe_key(key, secure_key, finding))
        for line in format_record(key, secure_key, finding):
            output.line(line)
        found = _find_warnings(key, finding)
        for text in found:
            output.warn(text)
        warnings += len(found)
        invalid += finding.validation is None
    valid = len(keys) - invalid
    output.line(f"{valid} keys are valid, {invalid} keys are invalid, {warnings} warnings")
    output.json({"keys": described, "valid": valid, "invalid": invalid, "warnings": warnings})
    return ExitCode.WRONG_PARAMETERS if invalid else ExitCode.OK


def _validate(keystore: Keystore, secure_key: SecureKey) -> Finding:
    """What the adapters say.

    Raises:
        CoprocessorError: there is nobody to ask.
    """
    try:
        return Finding(keystore.validate(secure_key))
    except (MasterKeyChangedError, FormatError) as error:
        return Finding(None, str(error))


def _find_warnings(key: RepositoryKey, finding: Finding) -> list[str]:
    found: list[str] = []
    validation = finding.validation
    if validation is None:
        found.append(f"The secure key '{key.name}' is not valid: {finding.reason}")
    else:
        if validation.register is Register.OLD:
            found.append(_OLD_WARNING)
        if key.pattern and key.pattern != validation.pattern:
            found.append(f"The key '{key.name}' is not the one of its verification pattern")
    for volume in key.volumes:
        path = volume.rpartition(":")[0]
        if "=" not in path and not os.path.exists(path):  # noqa: PTH110
            found.append(f"The volume '{path}' associated with key '{key.name}' is not available")
    return found


def _find_keys(args: Arguments, settings: Settings) -> list[RepositoryKey]:
    name = args.text("name")
    keys = [
        key
        for key in Repository(settings.zkey_repository).list()
        if (name is None or fnmatch.fnmatchcase(key.name, name))
        and _has_volume(key, args.text("volumes"))
        and _has_apqn(key, args.text("apqns"))
        and args.options.get("volume-type", key.volume_type).lower() == key.volume_type
        and args.options.get("key-type", key.key_type).upper() == key.key_type
    ]
    if not keys and name is not None and not any(letter in name for letter in "*?["):
        Repository(settings.zkey_repository).get(name)  # says that it is not there
    return keys


def _has_volume(key: RepositoryKey, wanted: str | None) -> bool:
    """Whether one of some patterns, ``VOLUME`` or ``VOLUME:DMNAME``, fits one of its volumes."""
    if wanted is None:
        return True
    return any(
        fnmatch.fnmatchcase(volume if ":" in pattern else volume.rpartition(":")[0], pattern)
        for pattern in wanted.split(",")
        for volume in key.volumes
    )


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
