"""``fusecrypt zkey import`` and ``zkey export``: keys of the repository from and into files."""

from __future__ import annotations

from ...keystore.errors import CoprocessorError
from ...keystore.key_rules import find_weaknesses
from ...keystore.keys import SecureKey
from ...keystore.repository import Repository
from ...keystore.tokens import KeyType
from ..config import Settings
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from .arguments import Arguments
from .ask_yes import ask_yes
from .dummy_passphrase import provide_dummy_passphrase
from .new_file import write_new_file
from .output import Output
from .secure_key_file import read_secure_key
from .zkey_generate import choose_adapters, parse_apqns, parse_volumes
from .zkey_record import describe_key


def run_import(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Store the key in a file under a name.

    Raises:
        MapperError: why not; then nothing was stored.
    """
    name = args.get_text("name")
    (path,) = args.positionals
    apqns = parse_apqns(args.text("apqns"))
    secure_key = read_secure_key(path)
    keystore = Keystore(settings)
    if apqns and not args.has("no-apqn-check"):
        choose_adapters(keystore, apqns)
    pattern = _find_pattern(args, keystore, path, secure_key, output)
    may_export = args.has("exportable")
    _confirm_weak_key(path, secure_key, output, may_export=may_export)
    if pattern and secure_key.key_type is KeyType.CCA_AESCIPHER and not may_export:
        secure_key = keystore.restrict(secure_key)
    with provide_dummy_passphrase(args) as passphrase:
        key = Repository(settings.zkey_repository).add(
            name,
            secure_key,
            pattern=pattern,
            description=args.text("description") or "",
            volumes=parse_volumes(args.text("volumes")),
            apqns=apqns,
            sector_size=args.number("sector-size") or 0,
            volume_type=(args.text("volume-type") or "luks2").lower(),
            passphrase=passphrase,
        )
    output.json(describe_key(key, key.shape, None))
    return ExitCode.OK


def run_export(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Write a key of the repository into a file that is not there yet.

    Raises:
        MapperError: why not; then there is none.
    """
    (path,) = args.positionals
    key = Repository(settings.zkey_repository).get(args.get_text("name"))
    write_new_file(path, key.token, "secure key")
    output.json({"name": key.name, "file": path, "size": len(key.token)})
    return ExitCode.OK


def _find_pattern(
    args: Arguments, keystore: Keystore, path: str, secure_key: SecureKey, output: Output
) -> str:
    try:
        return keystore.validate(secure_key).pattern
    except CoprocessorError as error:
        if not args.has("no-apqn-check"):
            raise CoprocessorError(
                f"secure key {path}: {error}; --no-apqn-check imports it all the same, without a "
                "verification pattern"
            ) from None
        output.warn(f"secure key {path}: {error}; it has no verification pattern yet")
        return ""


def _confirm_weak_key(
    path: str, secure_key: SecureKey, output: Output, *, may_export: bool
) -> None:
    weaknesses = find_weaknesses(secure_key, may_export=may_export)
    if not weaknesses:
        return
    for weakness in weaknesses:
        output.warn(f"secure key {path}: {weakness}")
    if output.is_quiet:
        return
    question = "The secure key to import might not be secure. Do you want to import it anyway"
    ask_yes(question, f"secure key {path}: was not imported")
