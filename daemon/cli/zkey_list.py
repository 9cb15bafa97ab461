"""``fusecrypt zkey list`` and ``zkey validate``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ...keystore.coprocessor import Register
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
from .zkey_filter import find_keys
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
    for key in find_keys(args, settings):
        shape = key.shape
        described.append(describe_key(key, shape, None))
        for line in format_record(key, shape, None):
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
    return _validate_repository(find_keys(args, settings), keystore, output)


def _validate_file(path: str, keystore: Keystore, output: Output) -> ExitCode:
    try:
        secure_key = read_secure_key(path)
        finding = _validate(keystore, secure_key.token)
    except FormatError as error:
        raise ConfigError(f"the secure key in file '{path}' is not valid: {error}") from None
    if finding.validation is None:
        raise ConfigError(f"the secure key in file '{path}' is not valid: {finding.reason}")
    shape = describe_token(secure_key.token)
    output.json({"file": path, **describe_secure_key(shape, finding)})
    for line in format_file(path, shape, finding):
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
        shape = key.shape
        finding = _validate(keystore, key.token)
        described.append(describe_key(key, shape, finding))
        for line in format_record(key, shape, finding):
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
