"""``fusecrypt adapter seal|unlock|lock``: what keeps the adapters' state from a thief of it."""

from __future__ import annotations

from ...keystore.errors import ConfigError
from ...keystore.seal_state import SealMethod
from ...keystore.tpm import check_pcrs
from ..config import Settings
from ..control.messages import KeyInput
from ..exitcodes import ExitCode
from ..keystored.client import Keystore
from ..keystored.messages import pack_sealing
from .adapter_backup import as_stream
from .arguments import Arguments
from .key_input import make_key_options, provide_key, try_keys
from .output import Output

_OF_PASSPHRASE = ("key-file", "keyfile-offset", "keyfile-size", "timeout")


def run_seal(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Seal the state with something else; without ``--with``, say what seals it."""
    keystore = Keystore(settings)
    text = args.text("with")
    if text is None:
        for name in (*_OF_PASSPHRASE, "pcrs"):
            if args.has(name):
                raise ConfigError(f"--{name}: only with --with")
        return _tell(keystore, output)
    if text not in tuple(SealMethod):
        raise ConfigError(f"--with: got {text!r}; wanted: {', '.join(SealMethod)}")
    method = SealMethod(text)
    if args.has("pcrs") and method is not SealMethod.TPM2:
        raise ConfigError(f"--pcrs: only --with {SealMethod.TPM2}")
    if method is not SealMethod.PASSPHRASE:
        for name in _OF_PASSPHRASE:
            if args.has(name):
                raise ConfigError(f"--{name}: only --with {SealMethod.PASSPHRASE}")
        keystore.seal(method, pcrs=check_pcrs(args.text("pcrs") or ""))
    else:
        options = make_key_options(args, is_verified=True)
        prompt = "Enter new passphrase for the adapters: "
        with provide_key(options, prompt) as key, as_stream(key) as fd:
            keystore.seal(method, passphrase_fd=fd)
    if method is not SealMethod.HOST_KEY_FILE:
        output.warn(
            "without what seals them the adapters are lost, with all data of all volumes under"
            " their master keys: keep a backup elsewhere (fusecrypt adapter backup FILE). Copies of"
            " the state directory from before are sealed as they were"
        )
    return _tell(keystore, output)


def run_unlock(args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Give the passphrase that seals the state."""
    keystore = Keystore(settings)

    def attempt(key: KeyInput) -> None:
        with as_stream(key) as fd:
            keystore.unlock(fd)

    try_keys(make_key_options(args), "Enter passphrase for the adapters: ", attempt)
    return _tell(keystore, output, is_quiet=True)


def run_lock(_args: Arguments, settings: Settings, output: Output) -> ExitCode:
    """Have the passphrase asked for again."""
    keystore = Keystore(settings)
    keystore.lock()
    return _tell(keystore, output, is_quiet=True)


def warn_of_file(keystore: Keystore, output: Output) -> None:
    """Say what the embedded default is worth."""
    state = keystore.get_sealing()
    if state.method is SealMethod.HOST_KEY_FILE:
        output.warn(
            "the adapters are sealed by a host key in a file: whoever copies both has the master"
            " keys; fusecrypt adapter seal --with … changes that"
        )
    elif state.has_plain_file:
        output.warn("a host key file is still there: repeat fusecrypt adapter seal --with …")


def _tell(keystore: Keystore, output: Output, *, is_quiet: bool = False) -> ExitCode:
    state = keystore.get_sealing()
    output.json(pack_sealing(state))
    text = f"The adapters are sealed with {state.method}{', and locked' * state.is_locked}."
    (output.note if is_quiet else output.line)(text)
    if not is_quiet:
        warn_of_file(keystore, output)
    return ExitCode.OK
