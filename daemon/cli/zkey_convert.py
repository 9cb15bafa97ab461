"""``fusecrypt zkey convert``: CCA-AESDATA keys become CCA-AESCIPHER keys."""

from __future__ import annotations

from ...keystore.errors import BusyError, ConfigError, UnsupportedError
from ...keystore.keys import SecureKey
from ...keystore.repository import Repository
from ...keystore.repository_key import LUKS2, RepositoryKey
from ...keystore.tokens import KeyType
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .ask_yes import ask_yes
from .output import Output
from .secure_key_file import read_secure_key
from .zkey_reencipher import overwrite

_ATTENTION = (
    "ATTENTION: converting a secure key is irreversible, and might have an effect on the volumes "
    "encrypted with it! Convert key"
)


def run(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Convert a key in a file or in the repository.

    Raises:
        MapperError: why not; then it is as it was.
    """
    kind = (args.text("key-type") or "").upper()
    if not kind:
        raise ConfigError(f"zkey convert: wanted: --key-type {KeyType.CCA_AESCIPHER}")
    if kind != KeyType.CCA_AESCIPHER:
        raise UnsupportedError(f"--key-type {kind}: wanted: {KeyType.CCA_AESCIPHER}")
    keystore = Keystore(settings)
    if args.positionals:
        if args.has("name"):
            raise ConfigError("--name: only for a key of the repository, without a file name")
        (path,) = args.positionals
        key = read_secure_key(path)
        _check_convertible(key, f"secure key {path}")
        _confirm(args, path)
        overwrite(path, _convert(args, keystore, key))
        output.json({"file": path, "key_type": kind})
        return ExitCode.OK
    return _run_repository(args, settings, output, keystore)


def _run_repository(
    args: Arguments, settings: Settings, output: Output, keystore: Keystore
) -> ExitCode:
    repository = Repository(settings.zkey_repository)
    key = repository.get(args.get_text("name"))
    if key.kms:
        raise ConfigError(f"key {key.name!r}: is bound to {key.kms}")
    if key.is_pending:
        raise BusyError(f"key {key.name!r}: its re-enciphering is pending; complete that first")
    if key.secure_key.key_type is KeyType.CCA_AESCIPHER:
        output.warn(f"key '{key.name}' is of type {KeyType.CCA_AESCIPHER} already")
        output.json({"name": key.name, "key_type": str(KeyType.CCA_AESCIPHER), "changed": False})
        return ExitCode.OK
    _check_convertible(key.secure_key, f"key {key.name!r}")
    _confirm(args, key.name)
    new = repository.replace_key(key, _convert(args, keystore, key.secure_key))
    _tell_of_volumes(new, output)
    output.json({"name": key.name, "key_type": new.key_type, "changed": True})
    return ExitCode.OK


def _check_convertible(key: SecureKey, what: str) -> None:
    if key.key_type is not KeyType.CCA_AESDATA:
        raise ConfigError(f"{what}: is of type {key.key_type}; wanted: {KeyType.CCA_AESDATA}")


def _confirm(args: Arguments, name: str) -> None:
    if not args.has("force") and not args.has("batch-mode"):
        ask_yes(f"{_ATTENTION} '{name}'", f"key {name!r}: was not converted")


def _convert(args: Arguments, keystore: Keystore, key: SecureKey) -> SecureKey:
    before = keystore.validate(key).pattern
    new = keystore.convert(key, KeyType.CCA_AESCIPHER, is_exportable=args.has("exportable"))
    if keystore.validate(new).pattern != before:
        raise ConfigError("the converted key has another verification pattern: nothing was changed")
    return new


def _tell_of_volumes(key: RepositoryKey, output: Output) -> None:
    if not key.volumes:
        return
    names = ", ".join(key.volumes)
    if key.volume_type == LUKS2:
        output.warn(
            f"'fusecrypt zkey-cryptsetup setkey' puts the new key into the headers of {names}"
        )
    else:
        output.warn(
            f"crypttab lines and scripts must say --key-size {len(key.token) * 8} from now on, "
            f"for {names}"
        )
