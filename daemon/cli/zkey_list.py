"""``fusecrypt zkey list`` and ``zkey validate``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...keystore.coprocessor import Apqn, Register
from ...keystore.cross_check import cross_check
from ...keystore.errors import (
    ConfigError,
    FormatError,
    MasterKeyChangedError,
)
from ...keystore.keys import SecureKey
from ...keystore.repository_key import RepositoryKey
from ...keystore.token_shape import describe_token
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .output import Output
from .secure_key_file import read_secure_key
from .zkey_filter import Found, find_whole_keys
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
    found = find_whole_keys(args, settings)
    for key in found.keys:
        shape = key.shape
        described.append(describe_key(key, shape, None))
        for line in format_record(key, shape, None):
            output.line(line)
    damaged = _say_damaged(found, output)
    output.json({"keys": described, "damaged": damaged})
    return ExitCode.HEADER_DAMAGED if damaged else ExitCode.OK


def _say_damaged(found: Found, output: Output) -> list[dict[str, str]]:
    """Say which keys cannot be looked at; the same for --json."""
    for error in found.damaged.values():
        output.say("error", str(error))
    return [{"name": name, "reason": str(error)} for name, error in found.damaged.items()]


def run_validate(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """What adapters can use; status 1 if there is a key that none can."""
    keystore = Keystore(settings)
    if args.positionals:
        for name in ("name", "apqns"):
            if args.has(name):
                raise ConfigError(f"--{name}: only for keys of the repository, without a file name")
        return _validate_file(args.positionals[0], keystore, output)
    return _validate_repository(
        find_whole_keys(args, settings), keystore, output, is_checked=not args.has("no-apqn-check")
    )


def _validate_file(path: str, keystore: Keystore, output: Output) -> ExitCode:
    try:
        secure_key = read_secure_key(path)
        finding = _validate(keystore, secure_key.token)
    except FormatError as error:
        raise ConfigError(f"the secure key in file '{path}' is not valid: {error}") from None
    if finding.validation is None:
        raise ConfigError(f"the secure key in file '{path}' is not valid: {finding.reason}")
    shape = describe_token(secure_key.token)
    for line in format_file(path, shape, finding):
        output.line(line)
    checked = check_adapters(keystore, (), secure_key, output)
    output.json({"file": path, **describe_secure_key(shape, finding), **checked})
    if finding.validation.register is Register.OLD:
        output.warn(_OLD_WARNING)
    return ExitCode.OK


def _validate_repository(
    matching: Found, keystore: Keystore, output: Output, *, is_checked: bool
) -> ExitCode:
    keys = matching.keys
    described: list[dict[str, object]] = []
    invalid = warnings = 0
    for key in keys:
        shape = key.shape
        finding = _validate(keystore, key.token)
        for line in format_record(key, shape, finding):
            output.line(line)
        checked = _check_key_adapters(keystore, key, output) if is_checked else {}
        described.append({**describe_key(key, shape, finding), **checked})
        found = _find_warnings(key, finding)
        for text in found:
            output.warn(text)
        warnings += len(found)
        invalid += finding.validation is None
    valid = len(keys) - invalid
    damaged = _say_damaged(matching, output)
    invalid += len(damaged)
    output.line(f"{valid} keys are valid, {invalid} keys are invalid, {warnings} warnings")
    output.json(
        {
            "keys": described,
            "damaged": damaged,
            "valid": valid,
            "invalid": invalid,
            "warnings": warnings,
        }
    )
    return ExitCode.WRONG_PARAMETERS if invalid else ExitCode.OK


def check_adapters(
    keystore: Keystore, apqns: Sequence[Apqn], key: SecureKey, output: Output
) -> dict[str, object]:
    """Print what is to be said of the master keys that the adapters have; the same for --json."""
    found = cross_check(keystore.list_adapters(), apqns, key.key_type, key.mkvp)
    for line in found.lines:
        output.line(line)
    return {"adapter_notes": list(found.notes), "adapter_warnings": list(found.warnings)}


def _check_key_adapters(
    keystore: Keystore, key: RepositoryKey, output: Output
) -> dict[str, object]:
    try:
        secure_key = key.secure_key
    except FormatError:
        return {}  # of another kind, for which there is no adapter
    apqns = [Apqn.parse(text) for text in key.apqns]
    return check_adapters(keystore, apqns, secure_key, output)


def _validate(keystore: Keystore, token: bytes) -> Finding:
    """What the adapters say.

    Raises:
        CoprocessorError: there is nobody to ask.
    """
    try:
        return Finding(keystore.validate(SecureKey.parse(token)))
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
